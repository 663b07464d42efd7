"""A case: a network at one size of input. Its contenders' maps are compared first; those that are right are timed together."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from tests.reference import twin
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.correctness import off
from benchmarks.performance.contenders import CONTENDERS, TASKS, Contender, Maps
from benchmarks.performance.networks import Network
from benchmarks.performance.record import Point, Timing
from benchmarks.performance.timing import Pace, Run, costs, interleave, kernels, room

__all__ = ["Case", "measure", "reference"]

# A map is right up to this relative error, |map - definition| / |definition|, or up to so many times the error of the
# definition itself where that is run in the tool's own precision, but never beyond the last: rounding flips rectifiers that are
# within it of zero, which moves a few pixels of a guided map and many of a plain gradient. Leaving one out moves it by 0.2.
FLOOR, TIMES, CEILING = 0.01, 4.0, 0.15

RULES = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}
HEADROOM = 2.5  # times what a plain graph keeps: tools hold copies, masks and gradients beside it


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured at one point: ``contenders`` at ``tasks`` of ``network``, of which ``group`` says what the point is for.

    ``defined`` compares with the definition in float64; without, where that would be too large, with plain relume, which
    another case has compared with it. ``rates`` times the machine's own kernels in the same rounds.
    """

    group: str
    network: Network
    batch: int
    side: int | None
    tasks: tuple[str, ...]
    contenders: tuple[str, ...]
    pace: Pace
    defined: bool = True
    rates: bool = True


def measure(case: Case, device: torch.device, contenders: dict[str, Contender] = CONTENDERS) -> Point:
    """Everything about one case."""
    model = case.network.build().to(device)
    images = case.network.images(case.batch, case.side).to(device)
    flops, saved = costs(model, images)
    point = Point(
        group=case.group,
        network=case.network.name,
        batch=case.batch,
        side=images.shape[-1],
        layers=case.network.layers,
        flops=flops // case.batch,
        saved=saved,
        against="the definition in float64" if case.defined else "relume",
        reference={},
        opening={},
        rates={},
        runs=[],
    )
    field = [contenders[key] for key in case.contenders]
    asked = [(task, contender) for task in case.tasks for contender in field if contender.offers.issuperset(TASKS[task])]
    if HEADROOM * saved > room(device):
        point["runs"] = [_untimed(task, contender, "too large") for task, contender in asked]
        return point
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other tools' words about the hooks they set
        _fill(point, case, model, images, asked)
    return point


def _fill(point: Point, case: Case, model: nn.Module, images: Tensor, asked: Sequence[tuple[str, Contender]]) -> None:
    """Compare, then time."""
    field = {contender.key: contender for _, contender in asked}
    expected, limits = _expected(case, model, images, {contender.dtype for contender in field.values()})
    opened, point["opening"] = _open(field, model, images)
    runs: dict[str, Run] = {}
    for task, contender in asked:
        right = Right(expected, limits[contender.dtype])
        timing, run = _compared(case.network, task, contender, opened[contender.key], images, right)
        point["runs"].append(timing)
        if run is not None:
            runs[f"{task} {contender.key}"] = run
    plain = {"forward": model, "prepared forward": opened.get("prepared")}
    forward = {name: functools.partial(_forward, net, images) for name, net in plain.items() if isinstance(net, nn.Module)}
    rates = kernels(images.device) if case.rates else {}
    held: dict[str, Run] = {**forward, **{name: run for name, (_, run) in rates.items()}}
    for warm_up in held.values():
        warm_up()
    seconds = interleave(runs | held, case.pace, images.device)
    for timing in point["runs"]:
        contender = next(c for _, c in asked if c.key == timing["contender"])
        shared = 1 if contender.single else case.batch
        timing["seconds"] = [s / shared for s in seconds.get(f"{timing['task']} {timing['contender']}", [])]
    point["reference"] = {name: [s / case.batch for s in seconds[name]] for name in forward}
    point["rates"] = {name: {"flops": flops, "seconds": seconds[name]} for name, (flops, _) in rates.items()}


def _forward(model: nn.Module, images: Tensor) -> object:
    with torch.no_grad():
        return model(images)


def _untimed(task: str, contender: Contender, word: str, error: float | None = None, detail: str = "") -> Timing:
    return Timing(task=task, contender=contender.key, error=error, word=word, detail=detail, seconds=[])


# --- Compared before it is timed -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Right:
    """The maps that are right, and the relative error up to which others are."""

    maps: Maps
    limits: dict[str, float]


def _open(
    field: dict[str, Contender], model: nn.Module, images: Tensor
) -> tuple[dict[str, nn.Module | Exception], dict[str, float]]:
    """Each contender's network, or what it raised, and the seconds that it took."""
    found: dict[str, nn.Module | Exception] = {}
    seconds: dict[str, float] = {}
    for key, contender in field.items():
        start = perf_counter()
        try:
            found[key] = contender.opened(model, images)
        except Exception as error:  # noqa: BLE001 - however a tool fails, that is its result
            found[key] = error
        seconds[key] = perf_counter() - start
    return found, seconds


def _compared(
    network: Network, task: str, contender: Contender, model: nn.Module | Exception, images: Tensor, right: Right
) -> tuple[Timing, Run | None]:
    """How far off the maps are, and what is timed if they are right."""
    given = images[:1] if contender.single else images
    run: Callable[[], Maps] = functools.partial(_ask, contender, model, network, given, TASKS[task])
    try:
        found = run()
    except Exception as error:  # noqa: BLE001 - however a tool fails, that is its result
        return _untimed(task, contender, f"raises {type(error).__name__}", detail=(str(error).splitlines() or [""])[0]), None
    errors: dict[str, float] = {}
    for method in TASKS[task]:
        got = found[method][:1].double().cpu()
        if got.shape != right.maps[method].shape:
            detail = f"{method} has the shape {tuple(found[method].shape)}"
            return _untimed(task, contender, "wrong (shape)", detail=detail), None
        errors[method] = off(got, right.maps[method])
    worst = max(errors.values())
    if any(not error <= right.limits[method] for method, error in errors.items()):  # NaN is not right either
        word = "wrong" if contender.dtype == torch.float32 else "imprecise"
        return _untimed(task, contender, f"{word} ({worst:.2g} off)", worst if math.isfinite(worst) else None), None
    return _untimed(task, contender, "", worst), run


def _ask(contender: Contender, model: nn.Module | Exception, network: Network, images: Tensor, methods: Sequence[str]) -> Maps:
    if isinstance(model, Exception):
        raise model
    return contender.ask(model, network, images, methods)


def _expected(
    case: Case, model: nn.Module, images: Tensor, dtypes: Iterable[torch.dtype]
) -> tuple[Maps, dict[torch.dtype, dict[str, float]]]:
    """Return the right maps of the first image, in float64, and each method's limit in each precision."""
    methods = tuple(dict.fromkeys(method for task in case.tasks for method in TASKS[task]))
    if not case.defined:
        found = CONTENDERS["relume"].ask(model, case.network, images[:1], methods)
        limits = {dtype: dict.fromkeys(methods, FLOOR) for dtype in dtypes}
        return {method: values.double().cpu() for method, values in found.items()}, limits
    exact = reference(case.network, model, images[:1], methods)
    assert all(values.any() for values in exact.values()), "a map of the definition is zero: nothing can be compared with it"
    limits = {}
    for dtype in dtypes:
        rounded = reference(case.network, model, images[:1], methods, dtype)
        errors = {method: off(rounded[method], exact[method]) for method in methods}
        limits[dtype] = {method: min(max(FLOOR, TIMES * error), CEILING) for method, error in errors.items()}
    return exact, limits


def reference(
    network: Network, model: nn.Module, image: Tensor, methods: Sequence[str], dtype: torch.dtype = torch.float64
) -> Maps:
    """Return maps of one image by the slow twin of the tests, computed in ``dtype``, in float64."""
    exact, x = copy.deepcopy(model).cpu().to(dtype), image.cpu().to(dtype)
    found = {key: twin.attribution(exact, x, [network.target], rule)[0] for key, rule in RULES.items() if _needed(key, methods)}
    if _needed("gradcam", methods):
        found["gradcam"] = _grad_cam(network, exact, x)
        if "guided_gradcam" in methods:
            mode = "bilinear" if x.ndim == 4 else "trilinear"
            heat = F.interpolate(found["gradcam"][:, None], x.shape[2:], mode=mode, align_corners=False)
            found["guided_gradcam"] = found["guided_backprop"] * heat
    return {method: values.double() for method, values in found.items()}


def _needed(method: str, methods: Sequence[str]) -> bool:
    return method in methods or (method in ("guided_backprop", "gradcam") and "guided_gradcam" in methods)


def _grad_cam(network: Network, model: nn.Module, x: Tensor) -> Tensor:
    """Grad-CAM from the layer's output and its gradient; tokens but the first are put back on their square grid."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # a network may overwrite it in place

    handle = model.get_submodule(network.layer).register_forward_hook(keep)
    score = model(x.requires_grad_())[0, network.target]
    handle.remove()
    maps = [kept[0].detach(), torch.autograd.grad(score, kept[0])[0]]
    if maps[0].ndim == 3:
        side = math.isqrt(maps[0].shape[1] - 1)
        maps = [tokens[:, 1:].mT.reshape(*tokens[:, 1:].mT.shape[:2], side, side) for tokens in maps]
    heat: Tensor = twin.grad_cam(*maps)
    return heat
