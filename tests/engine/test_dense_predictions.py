"""The layer chosen in networks that segment and detect: never the prediction's own, and one that matters; and why."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from benchmarks import layers
from torch import nn

import relume
from relume.checkup import check
from relume.engine.dense_predictions import predicting
from relume.errors import LayerError
from relume.models.libraries import import_torchvision
from relume.targets import Segmentation
from tests.helpers.networks import Scales, Small, UNet

PAGE = (Path(__file__).parents[2] / "docs" / "layers.md").read_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.endswith("resnet50") else ()) for name in layers.DENSE]
)
def test_the_table_of_dense_networks_is_true(name):
    """Measured again, and the guided map against the twin; `python -m benchmarks.layers` prints the table."""
    if name.startswith("transformers"):
        pytest.importorskip("transformers")
    assert layers.dense_row(name) in PAGE.splitlines()


def asked(model, x, target, **options):
    return relume.explain(model, x, target, ["gradcam"], evidence=None, **options)


def test_the_map_is_that_of_the_layer_named():
    net, x = UNet().double().eval(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    target = Segmentation(3, torch.ones(32, 32))
    e = asked(net, x, target)
    assert e.layer == "decoder1"
    assert e.layer_choice == "the last with spatial axes before the network's own prediction, 5×32×32"
    named = asked(net, x, target, layer="decoder1")
    torch.testing.assert_close(e["gradcam"], named["gradcam"])
    assert named.layer_choice is None
    assert e[0].layer_choice == e.layer_choice


class Ending(nn.Module):
    """The U-Net with something behind it."""

    def __init__(self, *after):
        super().__init__()
        self.net, self.after = UNet(), nn.Sequential(*after)

    def forward(self, x):
        return self.after(self.net(x))


class Upsampled(UNet):
    def forward(self, x):
        y = F.interpolate(super().forward(x), scale_factor=2, mode="bilinear")
        return {"out": F.log_softmax(y.permute(0, 2, 3, 1), 3).permute(0, 3, 1, 2)}


@pytest.mark.parametrize(
    "model",
    [
        Ending(nn.Upsample(scale_factor=2), nn.Softmax(1)),
        Ending(nn.Sigmoid(), nn.Identity(), nn.Dropout()),
        Ending(nn.ConvTranspose2d(5, 5, 4, 2, 1, groups=5)),
        Ending(nn.BatchNorm2d(5), nn.ReLU(inplace=True)),
        Ending(nn.Flatten(2)),
        Upsampled(),
    ],
    ids=["softmax", "sigmoid", "learnt upsampling", "rectified", "flattened", "functional"],
)
def test_what_only_rearranges_or_scales_a_prediction_is_it_still(model):
    def target(outputs):
        outputs = outputs["out"] if isinstance(outputs, dict) else outputs
        return outputs[:, 2].flatten(1).sum(1)

    e = asked(model.eval(), torch.randn(1, 3, 16, 16), target)
    assert e.layer.removeprefix("net.") == "decoder1"


class Skips(nn.Module):
    """Sums of class maps of two scales, as FCN-8s has them."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.of_fine, self.of_deep = nn.Conv2d(8, 4, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        fine = self.fine(x)
        deep = self.deep(fine)
        return F.interpolate(self.of_fine(fine) + F.interpolate(self.of_deep(deep), scale_factor=2), scale_factor=2)


def test_a_sum_of_predictions_is_a_prediction():
    assert asked(Skips(), torch.randn(1, 3, 16, 16), Segmentation(1, torch.ones(16, 16))).layer == "deep"


class Residual(nn.Module):
    """A stream of features to which each block adds, and which is what is returned."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)) for _ in range(3)])

    def forward(self, x):
        y = self.stem(x)
        for block in self.blocks:
            y = y + block(y)
        return y


def test_a_residual_stream_is_not_all_of_it_the_prediction():
    """Its last block's convolution is; the features that it was made of are not."""
    e = asked(Residual(), torch.randn(1, 3, 12, 12), lambda out: out[:, 2].mean((1, 2)))
    assert e.layer == "blocks.2.0"


@pytest.mark.parametrize(
    ("box", "layer"), [(3, "kinds.0.1"), (256 + 5, "kinds.1.1"), (256 + 64 + 2, "kinds.2.1"), (None, "kinds.2.1")]
)
def test_of_several_scales_that_of_the_box_is_read(box, layer):
    """A box of the finest scale is nothing to the coarsest branch, though all are joined."""
    model, x = Scales().double().eval(), torch.randn(2, 3, 128, 128, dtype=torch.float64)

    def target(outputs):
        return outputs[:, 6].sum(1) if box is None else outputs[:, 6, box]

    def side(outputs):
        return outputs[:, 1].sum(1) if box is None else outputs[:, 1, box]

    e = asked(model, x, target)
    assert e.layer == layer
    assert asked(model, x, side).layer == layer.replace("kinds", "boxes")
    torch.testing.assert_close(asked(model, x, target, layer=layer)["gradcam"], e["gradcam"])
    torch.testing.assert_close(asked(model, x, target, batch_size=1)["gradcam"], e["gradcam"])


def test_one_that_was_let_go_is_made_again():
    """The finest branch ran long before the end, and its maps are not held until then."""
    runs = []
    model = Scales().eval()
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    assert asked(model, torch.randn(1, 3, 64, 64), lambda outputs: outputs[:, 6, 3]).layer == "kinds.0.1"
    assert len(runs) == 2
    runs.clear()
    assert asked(model, torch.randn(1, 3, 64, 64), lambda outputs: outputs[:, 6, 3], layer="kinds.0.1")["gradcam"].any()
    assert len(runs) == 1


def test_a_map_of_two_by_two_is_passed_over():
    """Of a picture of 64 pixels the coarsest scale has four cells, which show no place."""
    assert asked(Scales().eval(), torch.randn(1, 3, 64, 64), lambda outputs: outputs[:, 6].sum(1)).layer == "kinds.1.1"


class Both(nn.Module):
    """Classes of the picture, and beside them a map of classes, or the features that they are made of."""

    def __init__(self, *, features):
        super().__init__()
        self.features = features
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.head, self.pixels = nn.Linear(8, 5), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.body(x)
        return {"logits": self.head(y.mean((2, 3))), "map": y if self.features else self.pixels(y)}


@pytest.mark.parametrize("features", [True, False])
def test_what_is_returned_beside_the_scores_is_not_what_they_predict(features):
    e = asked(Both(features=features), torch.randn(1, 3, 8, 8), 2)
    assert (e.layer, e.layer_choice) == ("body", "the last with spatial axes before pooling")


def test_of_several_predictions_the_one_asked_for_counts():
    model, x, every = Both(features=False), torch.randn(1, 3, 8, 8), torch.ones(8, 8)
    e = asked(model, x, Segmentation(1, every))
    assert (e.layer, e.layer_choice.split(", ")[1]) == ("body", "4×8×8")


class Only(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).softmax(1)


def test_a_network_that_is_nothing_but_its_prediction_has_no_layer_to_choose():
    with pytest.raises(LayerError, match="no layer with spatial axes ran before the network's own prediction; name"):
        asked(Only(), torch.randn(1, 3, 8, 8), lambda outputs: outputs[:, 1].sum((1, 2)))


@pytest.mark.parametrize("form", ["traced", "exported", "prepared"])
@pytest.mark.filterwarnings("ignore:.*torch.export:UserWarning")
def test_every_form_of_a_network_has_the_same_map(form):
    net, x = UNet().double().eval(), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    model = {
        "traced": lambda: torch.fx.symbolic_trace(net),
        "exported": lambda: torch.export.export(net, (x,)).module(),
        "prepared": lambda: relume.prepare(net, x),
    }[form]()
    target = Segmentation(1, torch.ones(16, 16))
    torch.testing.assert_close(asked(model, x, target)["gradcam"], asked(net, x, target)["gradcam"])


def test_a_score_whose_gradient_is_zero_still_has_a_layer():
    e = asked(UNet().eval(), torch.randn(1, 3, 16, 16), lambda outputs: (outputs * 0).sum((1, 2, 3)))
    assert e.layer == "decoder1"
    assert not e["gradcam"].any()


def test_the_doctor_names_the_layer_and_why():
    found = check(UNet().eval(), torch.randn(1, 3, 16, 16))
    assert (found.layer, found.layer_choice.rpartition(", ")[2]) == ("decoder1", "5×16×16")
    assert found.as_dict()["layer_choice"] == found.layer_choice
    assert check(Small(), torch.randn(1, 3, 8, 8)).layer_choice == "the last with spatial axes before pooling"
    assert check(Small(), torch.randn(1, 3, 8, 8), "conv2").layer_choice == ""


def test_why_a_block_of_tokens_was_chosen_is_said():
    model = import_torchvision().models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=4).eval()
    nn.init.normal_(model.heads.head.weight)
    e = asked(model, torch.randn(1, 3, 32, 32), 1)
    assert e.layer == "encoder.layers.encoder_layer_1"
    assert e.layer_choice == "the last block whose tokens matter to the score"


def test_the_nodes_of_a_prediction_by_hand():
    """From the result to the convolution that made it, this one included, and nothing before it."""
    conv, head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
    features = conv(torch.randn(1, 3, 6, 6)).relu()
    scores = head(features)
    returned = F.interpolate(scores, scale_factor=2).softmax(1)
    nodes = predicting([returned], [returned])
    assert {scores.grad_fn, returned.grad_fn} < nodes
    assert features.grad_fn not in nodes
    assert len(nodes) == 3


def test_a_target_that_writes_into_what_it_is_given_is_asked_once_about_it():
    net, x = Both(features=False), torch.randn(1, 3, 8, 8)
    writing = relume.explain(net, x, lambda outputs: outputs["logits"].add_(1)[:, 2], ["gradient", "gradcam"])
    plain = relume.explain(net, x, lambda outputs: outputs["logits"][:, 2] + 1, ["gradient", "gradcam"])
    assert torch.equal(writing.score, plain.score)
    assert torch.equal(writing["gradcam"], plain["gradcam"])
