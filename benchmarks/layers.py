"""The layer chosen, and how right the guided map is, in classification networks: `python -m benchmarks.layers [NAME...]`.

Random weights, one picture as small as the network takes, against the twin of the tests; in float64, and in float32 where there
are more than a hundred million weights. Without names, every network of torchvision and some families of timm, as the table
of docs/layers.md.
"""

import sys

import torch
from tests.reference import twin
from torch import nn

import relume
from relume.models.vision import import_torchvision

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


def networks() -> list[str]:
    """Every network of the table."""
    models = import_torchvision().models
    return [*models.list_models(module=models), *(f"timm:{name}" for name in TIMM)]


def build(name: str) -> tuple[nn.Module, int]:
    """A network with random weights, none of them all zero, and the side of a picture for it."""
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
    """The line of the table for one network."""
    model, side = build(name)
    x = torch.randn(1, 3, side, side, dtype=next(model.parameters()).dtype)
    e = relume.explain(model, x, [0], ["guided_backprop", "gradcam"])
    expected, _, _ = twin.attribution(model, x, [0], twin.guided)
    error = float((e["guided_backprop"] - expected).norm() / expected.norm())
    assert e.coverage.complete, e.coverage
    kinds = ", ".join(f"{r.count} {r.kind}" for r in e.coverage.rows)
    return f"| {name} | `{e.layer}` | {kinds} | {'0' if error == 0 else 'below 1e-9' if error < 1e-9 else f'{error:.1g}'} |"


def main() -> None:
    """Print the table."""
    print("| network | layer | rectifiers, all guided | error |\n|---|---|---|---|")
    for name in sys.argv[1:] or networks():
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
