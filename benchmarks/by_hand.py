"""What recognising rectifiers written by hand costs: `python -m benchmarks.by_hand [NETWORK...]`.

One image of 224 × 224, random weights, one thread. Each round runs every variant once, in turn, and each ratio is the median
over rounds of two times of one round:

* recognition: the gradient and Grad-CAM, which need no rectifier, with the search for rectifiers written by hand over
  without it. Where the network holds one, its pass is on a tape from the start, as in every explanation after the first;
* first: the first explanation of a network that holds one, whose forward pass runs twice, over a later one;
* guiding: guided backpropagation over the gradient, both with the search.
"""

import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from unittest.mock import patch

import torch
from torch import Tensor, nn

import relume
from relume.engine.by_hand.suspects import _KNOWN, is_known
from relume.models.libraries import import_library

ROUNDS = 9


class _Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images).logits
        return logits


def _vit(activation: str) -> nn.Module:
    transformers = import_library("transformers")
    config = transformers.ViTConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, hidden_act=activation
    )
    return _Logits(transformers.ViTForImageClassification(config))


def _torchvision(name: str) -> nn.Module:
    network: nn.Module = getattr(import_library("torchvision").models, name)(weights=None)
    return network


def _evonorm() -> nn.Module:
    network: nn.Module = import_library("timm").create_model("regnetz_b16_evos")
    for name, parameter in network.named_parameters():
        if name.endswith(".v"):  # of each channel its own, as trained
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "resnet50": (lambda: _torchvision("resnet50"), "layer4"),
    "densenet121": (lambda: _torchvision("densenet121"), "features.denseblock4"),
    "convnext_tiny": (lambda: _torchvision("convnext_tiny"), "features.7"),
    "ViT-small, GELU of torch": (lambda: _vit("gelu"), ""),
    "ViT-small, gelu_new": (lambda: _vit("gelu_new"), ""),
    "ViT-small, quick_gelu": (lambda: _vit("quick_gelu"), ""),
    "regnetz_b16_evos": (_evonorm, "stages.2"),
}


@contextmanager
def _without_search() -> Iterator[None]:
    with patch("relume.engine.trace.is_known", lambda _: False), patch("relume.engine.trace._has_suspects", lambda *_: False):
        yield


def main() -> None:
    """Time the networks, and print the ratios."""
    torch.set_num_threads(1)
    print(f"{'network':<26} {'recognition':>11} {'first':>6} {'guiding':>8}")
    for name in sys.argv[1:] or NETWORKS:
        build, layer = NETWORKS[name]
        torch.manual_seed(0)
        model, images = build().eval(), torch.randn(1, 3, 224, 224)
        methods = ["gradient", "gradcam"] if layer else ["gradient"]

        def seconds(methods: list[str], model: nn.Module = model, images: Tensor = images, layer: str = layer) -> float:
            started = perf_counter()
            relume.explain(model, images, 1, methods, layer or None, evidence=None)
            return perf_counter() - started

        rounds: dict[str, list[float]] = {"recognition": [], "first": [], "guiding": []}
        seconds(["guided_backprop"])
        holds_one = is_known(model)
        for _ in range(ROUNDS):
            with _without_search():
                without = seconds(methods)
            _KNOWN.pop(id(model), None)
            first = seconds(methods)
            later, plain, guided = seconds(methods), seconds(["gradient"]), seconds(["guided_backprop"])
            for key, ratio in (("recognition", later / without), ("first", first / later), ("guiding", guided / plain)):
                rounds[key].append(ratio)
        ratios = {key: statistics.median(values) for key, values in rounds.items()}
        first_ratio = f"{ratios['first']:6.2f}" if holds_one else "     —"
        print(f"{name:<26} {ratios['recognition']:11.3f} {first_ratio} {ratios['guiding']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
