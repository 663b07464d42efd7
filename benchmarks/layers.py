"""The layer chosen, and how right the guided map is, network by network: `python -m benchmarks.layers [NAME...]`.

Random weights, one picture as small as the network takes, against the twin of the tests; in float64, and in float32 where there
are more than a hundred million weights. Without names, every classification network of torchvision and some families of timm,
and then networks that segment or detect, as the tables of docs/layers.md.
"""

import sys
from typing import Any

import torch
from tests.helpers.networks import Scales, UNet
from tests.reference import twin
from torch import Tensor, nn

import relume
from relume.models.libraries import import_torchvision

SIDES = {"inception_v3": 299, "maxvit_t": 224, "vit_": 224}

TIMM = (
    "convnext_atto",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "efficientnet_b0",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "regnetx_002",
    "resnet18",
    "swin_tiny_patch4_window7_224",
    "vgg11_bn",
    "vit_tiny_patch16_224",
)


#: Networks whose prediction is dense.
DENSE = (
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
    "transformers:segformer",
    "unet",
    "yolo",
)


def networks() -> list[str]:
    """Every network of the table."""
    models = import_torchvision().models
    return [*models.list_models(module=models), *(f"timm:{name}" for name in TIMM)]


def build(name: str) -> tuple[nn.Module, int]:
    """Return a network with random weights, none of them all zero, and the side of a picture for it."""
    torch.manual_seed(0)
    torchvision = import_torchvision()
    source, _, short = name.rpartition(":")
    model: nn.Module
    if source == "timm":
        import timm

        model, side = timm.create_model(short, pretrained=False), 224 if short.endswith("_224") else 96
    else:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        side = next((side for prefix, side in SIDES.items() if name.startswith(prefix)), 64)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, 0, 0.02)
    large = sum(p.numel() for p in model.parameters()) > 100e6
    return model.eval().to(torch.float32 if large else torch.float64), side


def row(name: str) -> str:
    """Return the line of the table for one network."""
    model, side = build(name)
    x = torch.randn(1, 3, side, side, dtype=next(model.parameters()).dtype)
    e = relume.explain(model, x, [0], ["guided_backprop", "gradcam"])
    expected, _, _ = twin.attribution(model, x, [0], twin.guided)
    error = float((e["guided_backprop"] - expected).norm() / expected.norm())
    assert e.coverage.complete, e.coverage
    kinds = ", ".join(f"{r.count} {r.kind}" for r in e.coverage.rows)
    return f"| {name} | `{e.layer}` | {kinds} | {'0' if error == 0 else 'below 1e-9' if error < 1e-9 else f'{error:.1g}'} |"


class Totals(nn.Module):
    """The network as one that classifies: the total of each class over the picture, or over the boxes."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap ``model``."""
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the totals, ``(N, classes)``."""
        return prediction(self.model(x)).flatten(2).sum(2)


def prediction(outputs: Any) -> Tensor:
    """Return the dense prediction ``(N, classes, ...)`` in what a network returned."""
    found: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits" if "logits" in outputs else "out"]
    return found


def build_dense(name: str) -> tuple[nn.Module, int]:
    """Return a network that segments or detects, with random weights, and the side of a picture for it."""
    torch.manual_seed(0)
    model: nn.Module
    if name == "transformers:segformer":
        import transformers

        sizes = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 1, 2, 2]}
        config = transformers.SegformerConfig(num_labels=5, decoder_hidden_size=16, **sizes)
        model = transformers.SegformerForSemanticSegmentation(config)
    elif name in ("unet", "yolo"):
        model = {"unet": UNet, "yolo": Scales}[name]()
    else:
        models = import_torchvision().models
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    return model.eval().double(), 128


def dense_row(name: str) -> str:
    """Return the line of the second table for one network."""
    model, side = build_dense(name)
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    last = Totals(model)(x).shape[1] - 1
    e = relume.explain(model, x, lambda outputs: prediction(outputs)[:, last].flatten(1).sum(1), ["guided_backprop", "gradcam"])
    expected, _, _ = twin.attribution(Totals(model), x, [last], twin.guided)
    error = float((e["guided_backprop"] - expected).norm() / expected.norm())
    assert e.coverage.complete, e.coverage
    size = "×".join(map(str, e["gradcam"].shape[1:]))
    returned = "×".join(map(str, prediction(model(x)).shape[1:]))
    return f"| {name} | {returned} | `{e.layer}` | {size} | {'below 1e-9' if error < 1e-9 else f'{error:.1g}'} |"


def main() -> None:
    """Print the tables."""
    given = sys.argv[1:]
    print("| network | layer | rectifiers, all guided | error |\n|---|---|---|---|")
    for name in networks() if not given else [name for name in given if name not in DENSE]:
        print(row(name), flush=True)
    print("\n| network | prediction | layer | its map | error |\n|---|---|---|---|---|")
    for name in DENSE if not given else [name for name in given if name in DENSE]:
        print(dense_row(name), flush=True)


if __name__ == "__main__":
    main()
