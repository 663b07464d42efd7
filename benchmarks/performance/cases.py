"""A case: a network at one size of input. Its contenders' maps are compared first; those that are right are timed together."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

RULES = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}
HEADROOM = 4  # times what a plain graph keeps: tools hold copies and masks beside it, and several results are alive at once


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
    expected = _expected(case, model, images)
    opened = _open({contender.key: contender for _, contender in asked}, model, images)
    runs: dict[str, Run] = {}
    for task, contender in asked:
        timing, run = _compared(case.network, task, contender, opened[contender.key], images, expected)
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


def _open(field: dict[str, Contender], model: nn.Module, images: Tensor) -> dict[str, nn.Module | Exception]:
    found: dict[str, nn.Module | Exception] = {}
    for key, contender in field.items():
        try:
            found[key] = contender.opened(model, images)
        except Exception as error:  # noqa: BLE001 - however a tool fails, that is its result
            found[key] = error
    return found


def _compared(
    network: Network, task: str, contender: Contender, model: nn.Module | Exception, images: Tensor, expected: Maps
) -> tuple[Timing, Run | None]:
    """How far off the maps are, and what is timed if they are right."""
    given = images[:1] if contender.single else images
    run: Callable[[], Maps] = functools.partial(_ask, contender, model, network, given, TASKS[task])
    try:
        found = run()
    except Exception as error:  # noqa: BLE001 - however a tool fails, that is its result
        return _untimed(task, contender, f"raises {type(error).__name__}", detail=(str(error).splitlines() or [""])[0]), None
    errors = []
    for method in TASKS[task]:
        got = found[method][:1].double().cpu()
        if got.shape != expected[method].shape:
            detail = f"{method} has the shape {tuple(found[method].shape)}"
            return _untimed(task, contender, "wrong (shape)", detail=detail), None
        errors.append(off(got, expected[method]))
    worst = math.inf if any(map(math.isnan, errors)) else max(errors)
    if worst > contender.limit:
        return _untimed(
            task, contender, f"wrong ({worst:.2g} off)" if worst < math.inf else "wrong (NaN)", min(worst, 1e9)
        ), None
    return _untimed(task, contender, "", worst), run


def _ask(contender: Contender, model: nn.Module | Exception, network: Network, images: Tensor, methods: Sequence[str]) -> Maps:
    if isinstance(model, Exception):
        raise model
    return contender.ask(model, network, images.to(contender.dtype), methods)


def _expected(case: Case, model: nn.Module, images: Tensor) -> Maps:
    """The maps of the first image that are right, in float64."""
    methods = tuple(dict.fromkeys(method for task in case.tasks for method in TASKS[task]))
    if not case.defined:
        found = CONTENDERS["relume"].ask(model, case.network, images[:1], methods)
        return {method: values.double().cpu() for method, values in found.items()}
    return reference(case.network, model, images[:1], methods)


def reference(network: Network, model: nn.Module, image: Tensor, methods: Sequence[str]) -> Maps:
    """Maps of one image by the slow twin of the tests, in float64."""
    exact, x = copy.deepcopy(model).cpu().double(), image.cpu().double()
    found = {key: twin.attribution(exact, x, [network.target], rule)[0] for key, rule in RULES.items() if _needed(key, methods)}
    if _needed("gradcam", methods):
        found["gradcam"] = _grad_cam(network, exact, x)
        if "guided_gradcam" in methods:
            mode = "bilinear" if x.ndim == 4 else "trilinear"
            heat = F.interpolate(found["gradcam"][:, None], x.shape[2:], mode=mode, align_corners=False)
            found["guided_gradcam"] = found["guided_backprop"] * heat
    return found


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
