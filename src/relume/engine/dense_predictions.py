"""Dense predictions: the parts of a graph that are the network's own prediction already, a map of classes, boxes of scales.

Grad-CAM at such a layer would give the prediction back. A prediction is what the network returns and whatever only
rearranges, scales or joins on the way to it: upsampling, views, a softmax, the sum of several predictions; down to the
convolution or product that made it, this one included.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from relume.engine.graph import walk
from relume.targets.boxes import detections_in
from relume.targets.outputs import tensors_in

__all__ = ["dense", "predicting"]

# Operations that make new features of old ones. A BatchNorm in evaluation mode only scales.
_MAKES = re.compile(r"Conv|[Mm]m|^(Mkldnn)?Linear|Pool|Mean|Sum|(?<!Batch)Norm|Attention|Lstm|Gru|Rnn")
_JOINS = re.compile(r"Cat|Stack")


def dense(outputs: Any, count: int, scores: Sequence[Tensor] = ()) -> list[Tensor]:
    """Find the tensors with more axes than class scores that the network returned, of these those that ``scores`` read.

    All of them where there are no ``scores``; and where it returned lists of detections, all that these hold.
    """
    returned = [t for _, t in tensors_in(outputs) if t.grad_fn is not None and t.ndim]
    if detections_in(outputs, count) is not None:
        return returned
    returned = [t for t in returned if len(t) == count]
    read = _read(scores, {t.grad_fn for t in returned if t.grad_fn is not None}) if scores else None
    return [t for t in returned if t.ndim > 2 and (read is None or t.grad_fn in read)]


def _read(scores: Sequence[Tensor], returned: set[Node]) -> set[Node]:
    """Find those of ``returned`` that ``scores`` are made of, not those that only led to another of them."""
    stack = [score.grad_fn for score in scores if score.grad_fn is not None]
    met = set(stack)
    while stack:
        node = stack.pop()
        sources = () if node in returned else (source for source, _ in node.next_functions if source is not None)
        stack.extend(new := [source for source in sources if source not in met])
        met.update(new)
    return met & returned


def predicting(read: Sequence[Tensor], outputs: Any) -> set[Node]:
    """Find the nodes whose results are the prediction ``read`` already, up to rearranging.

    A sum of predictions is followed into both. In a residual sum one side is not only summed, but also what the other is
    made of: features, and no prediction.
    """
    if not read:
        return set()
    used: dict[Node, set[Node]] = defaultdict(set)
    for _, tensor in tensors_in(outputs):
        for node, sources in walk(tensor.grad_fn).items() if tensor.grad_fn is not None else ():
            for source in sources:
                used[source].add(node)
    predicted: set[Node] = set()
    stack = [(tensor.grad_fn, False) for tensor in read if tensor.grad_fn is not None]
    while stack:
        node, summed = stack.pop()
        if node in predicted or (summed and not used[node] <= predicted):  # it is met again from its last use
            continue
        predicted.add(node)
        sources = [source for source, _ in node.next_functions if source is not None]
        if _MAKES.search(node.name()) is None or _upsamples(node):
            summed = summed or (len(sources) > 1 and _JOINS.search(node.name()) is None)
            stack += [(source, summed) for source in sources]
    return predicted


def _upsamples(node: Any) -> bool:
    """Tell whether it is a transposed convolution from as many channels to as many, by which predictions are made larger."""
    if not getattr(node, "_saved_transposed", False):
        return False
    before, after = node._saved_weight.shape[:2]
    return bool(before == after * node._saved_groups)
