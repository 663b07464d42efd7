"""A plan: the flat graphs of one question, made fast by a backend, and on CUDA captured and replayed.

Graphs have run on the CPU, as they are and by Inductor. CUDA graphs have not been run for want of a device: their buffers have,
with a stand-in for the capture, and the tests capture where there is a device.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor
from torch.fx import GraphModule

from relume.engine.trace import full_precision
from relume.errors import GraphError
from relume.portable.cut import Asked, Live
from relume.portable.flat_graph import flatten

__all__ = ["ONE_AT_A_TIME", "Backend", "Capture", "Kept", "Plan", "as_it_is", "cuda_graph", "inductor"]

Run: TypeAlias = Callable[..., Sequence[Tensor]]
Backend: TypeAlias = Callable[[GraphModule], Run]
#: Of a function and what it is to be run on, always in the same memory: what runs it again, and where its results then are.
Capture: TypeAlias = Callable[[Run, Sequence[Tensor]], tuple[Callable[[], None], Sequence[Tensor]]]

#: Recording patches torch for the moment, and a captured graph has one set of buffers.
ONE_AT_A_TIME = threading.RLock()


def as_it_is(graph: GraphModule) -> Run:
    """Run a flat graph operation by operation: nothing to wait for, and nothing kept that is not needed."""
    return graph


def inductor(graph: GraphModule) -> Run:
    """Compile a flat graph by Inductor, which takes a minute or so: on CUDA fewer and larger kernels; on a CPU no gain."""
    compiled: Run = torch.compile(graph, dynamic=False, fullgraph=True)
    return compiled


def cuda_graph(run: Run, inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """Capture ``run`` as a CUDA graph, which costs one launch however many kernels it has."""
    device = inputs[0].device
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # what is compiled, tuned or allocated at first use must not be captured
            for _ in range(3):
                run(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            outputs = run(*inputs)
    return graph.replay, outputs


class Kept(list[Tensor]):
    """What a forward graph keeps for the backward graphs; while it lives, a captured graph must not run again."""


class Plan:
    """Compiled passes, and how to run them.

    Attributes:
        seen: what is known of the network's graph.
        passes: what was compiled.
    """

    def __init__(
        self,
        live: Callable[[Tensor], Live],
        images: Tensor,
        passes: tuple[Asked, ...],
        backend: Backend,
        capture: Capture | None,
    ) -> None:
        """Record, compile and check ``passes``; ``live`` runs the network on images.

        Raises:
            GraphError: the network cannot be recorded, or what was compiled gives something else.
        """
        now = live(images)
        self.seen, self.passes, self._count = now.seen, passes, len(now.values)
        hidden = [name for part, _ in self.seen.parts for name, _ in part.hidden]
        if hidden:
            raise GraphError(f"{hidden[0]} hides part of it")
        cotangents = [[now.values[r].detach().cos() for r in asked.roots] for asked in passes]
        self._strides = {asked: [c.stride() for c in group] for asked, group in zip(passes, cotangents, strict=True)}

        def joint(images: Tensor, *arriving: Tensor) -> list[Tensor]:
            run, left = live(images), list(arriving)
            taken = [[left.pop(0) for _ in asked.roots] for asked in passes]
            pulled = [run.pull(asked, group) for asked, group in zip(passes, taken, strict=True)]
            return [*(value.detach() for value in run.values), *(g for group in pulled for g in group if g is not None)]

        # other values than the images', so that one that found its way into the graph shows when both are compared
        flat = flatten(joint, images.detach() * 0.75 + 0.125, cotangents, self._count, [len(asked.ends) for asked in passes])
        self._forward = backend(flat.forward)
        self._backward = {asked: (backend(g), reads) for asked, (g, reads) in zip(passes, flat.backward, strict=True)}
        self._captured: _Captured | None = None
        self._compare(now, images, cotangents)
        if capture is not None:
            examples = dict(zip(passes, cotangents, strict=True))
            with _quietly(images.device.type):
                self._captured = _Captured(capture, self._forward, self._backward, images.detach(), examples, self._count)
            self._compare(now, images, cotangents)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Kept]:
        """Values, and what is kept for the backward passes."""
        with _quietly(images.device.type):
            if self._captured is None or self._captured.taken:
                found = self._forward(images.detach())
                return list(found[: self._count]), Kept(found[self._count :])
            return self._captured.forward(images.detach())

    def backward(self, asked: Asked, kept: Kept, cotangents: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradients of one pass."""
        with _quietly(cotangents[0].device.type):
            if self._captured is not None and self._captured.holds(kept):
                return self._captured.backward(asked, cotangents)
            run, reads = self._backward[asked]
            laid = [_laid(cotangent, like) for cotangent, like in zip(cotangents, self._strides[asked], strict=True)]
            return run(*(kept[i] for i in reads), *laid)

    def _compare(self, live: Live, images: Tensor, cotangents: Sequence[Sequence[Tensor]]) -> None:
        values, kept = self.forward(images)
        pairs: list[tuple[Tensor, Tensor | None]] = list(zip(values, live.values, strict=True))
        for asked, arriving in zip(self.passes, cotangents, strict=True):
            pairs += zip(self.backward(asked, kept, arriving), live.pull(asked, arriving), strict=True)
        if not all(other is not None and _alike(one, other.detach()) for one, other in pairs):
            raise GraphError("compiled it gives other values, so something in it is not an operation on tensors")


class _Captured:
    """A plan's graphs, each with its own inputs and outputs, in memory that every replay writes again."""

    def __init__(
        self,
        capture: Capture,
        forward: Run,
        backward: Mapping[Asked, tuple[Run, tuple[int, ...]]],
        images: Tensor,
        cotangents: Mapping[Asked, Sequence[Tensor]],
        count: int,
    ) -> None:
        self._images = images.clone()
        self._replay, outputs = capture(forward, [self._images])
        self._values, self._kept = outputs[:count], outputs[count:]
        self._replay()  # what is kept holds indices, which must be valid wherever they are read
        self._backward = {}
        for asked, (run, reads) in backward.items():
            arriving = [cotangent.clone() for cotangent in cotangents[asked]]
            replay, gradients = capture(run, [*(self._kept[i] for i in reads), *arriving])
            self._backward[asked] = replay, arriving, gradients
        self._holder: Callable[[], Kept | None] = lambda: None

    @property
    def taken(self) -> bool:
        """Whether what the last forward pass kept may still be asked for."""
        return self._holder() is not None

    def holds(self, kept: Kept) -> bool:
        """Whether ``kept`` is what the last forward pass kept."""
        return self._holder() is kept

    def forward(self, images: Tensor) -> tuple[list[Tensor], Kept]:
        """See :meth:`Plan.forward`."""
        self._images.copy_(images)
        self._replay()
        kept = Kept(self._kept)
        self._holder = weakref.ref(kept)
        return [value.clone() for value in self._values], kept

    def backward(self, asked: Asked, cotangents: Sequence[Tensor]) -> list[Tensor]:
        """See :meth:`Plan.backward`."""
        replay, arriving, gradients = self._backward[asked]
        for buffer, cotangent in zip(arriving, cotangents, strict=True):
            buffer.copy_(cotangent)
        replay()
        return [gradient.clone() for gradient in gradients]


@contextmanager
def _quietly(device: str) -> Iterator[None]:
    """Run a graph as it was recorded, whatever the caller has switched on."""
    with ONE_AT_A_TIME, torch.no_grad(), full_precision(device):
        yield


def _laid(values: Tensor, strides: tuple[int, ...]) -> Tensor:
    """``values`` in memory as they were when the graph was recorded."""
    if values.stride() == strides:
        return values
    return torch.empty_strided(values.shape, strides, dtype=values.dtype, device=values.device).copy_(values)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two results are the same but for rounding, which may turn a mask here and there."""
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    wide = torch.promote_types(one.dtype, torch.float32)
    tolerance = torch.finfo(one.dtype).eps ** (1 / 3)
    return bool((one.to(wide) - other.to(wide)).norm() <= tolerance * other.to(wide).norm())
