"""The layer that is chosen, and its map: convolutional networks, transformers, mixers, of three libraries, small and random."""

import re
from pathlib import Path

import pytest
import torch
from benchmarks import layers
from torch import nn

import relume
from relume.errors import LayerError, TargetError
from relume.models.libraries import import_torchvision
from relume.targets import Channel
from tests.reference import twin

import_torchvision()
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

TIMM = {
    "resnet18": ("layer4", {}),
    "densenet121": ("features", {}),
    "efficientnet_b0": ("bn2", {}),
    "convnext_atto": ("norm_pre", {}),
    "regnetx_002": ("final_conv", {}),
    "mobilenetv3_small_050": ("blocks", {}),
    "vit_tiny_patch16_224": ("blocks.1", {"img_size": 64, "depth": 3}),
    "deit_tiny_distilled_patch16_224": ("blocks.1", {"img_size": 64, "depth": 3}),
    "vit_small_patch14_reg4_dinov2": ("blocks.1", {"img_size": 70, "depth": 3}),
    "vit_base_patch16_siglip_224": ("blocks", {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 4}),
    "swin_tiny_patch4_window7_224": ("norm", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}),
    "mixer_s32_224": ("blocks", {"img_size": 64}),
}

SMALL = {
    "image_size": 64,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
HUGGING_FACE = {
    "ViTForImageClassification": ("vit.layers.1", "ViTConfig", SMALL),
    "ViTForImageClassification, eager": ("vit.layers.1", "ViTConfig", {**SMALL, "attn_implementation": "eager"}),
    "DeiTForImageClassificationWithTeacher": ("deit.layers.1", "DeiTConfig", SMALL),
    "Dinov2WithRegistersForImageClassification": (
        "dinov2_with_registers.encoder.layer.2",
        "Dinov2WithRegistersConfig",
        {**SMALL, "num_register_tokens": 4},
    ),
    "SwinForImageClassification": (
        "swin.encoder.layers.2",
        "SwinConfig",
        {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 2], "num_heads": [2, 2, 2], "window_size": 4},
    ),
    "ResNetForImageClassification": (
        "resnet.encoder.stages.1",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    ),
    "ConvNextForImageClassification": (
        "convnext.encoder.stages.3",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]},
    ),
}


def wake(model):
    """Some networks begin with weights of zero, at which nothing depends on anything."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, 0, 0.02)
    return model.eval()


def explained(model, side, layer=None):
    x = torch.randn(1, 3, side, side).expand(4, -1, -1, -1)
    e = relume.explain(model, x, [0, 1, 2, 3], ["gradcam", "guided_gradcam"], layer)
    assert e.coverage.complete
    assert e["guided_gradcam"].shape == (4, 3, side, side)
    assert e["gradcam"].any()  # for one of the four classes
    named = relume.explain(model, x, [0, 1, 2, 3], ["gradcam"], e.layer)
    torch.testing.assert_close(named["gradcam"], e["gradcam"])  # chosen and named, it is the same map
    return e


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    layer, options = TIMM[name]
    e = explained(wake(timm.create_model(name, pretrained=False, num_classes=4, **options)), options.get("img_size", 96))
    assert e.layer == layer


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(name):
    layer, config, options = HUGGING_FACE[name]
    kind = getattr(transformers, name.partition(",")[0])
    e = explained(wake(kind(getattr(transformers, config)(num_labels=4, **options))), 64)
    assert e.layer == layer


def test_a_transformer_of_torchvision():
    model = wake(import_torchvision().models.get_model("swin_t", weights=None, num_classes=4))
    assert explained(model, 64).layer == "permute"


PAGE = (Path(__file__).parents[2] / "docs" / "layers.md").read_text()


def test_the_table_of_layers_names_every_network():
    assert re.findall(r"^\| ([a-z0-9_:]+) \| `", PAGE, flags=re.MULTILINE) == layers.networks()


LARGE = ("vgg11_bn", "swin_tiny_patch4_window7_224")


@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "googlenet",
        pytest.param("maxvit_t", marks=pytest.mark.slow),
        "mnasnet0_5",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "regnet_x_400mf",
        "resnet18",
        "shufflenet_v2_x0_5",
        "squeezenet1_0",
        "swin_t",
        "swin_v2_t",
        pytest.param("vit_b_32", marks=pytest.mark.slow),
        *(pytest.param(f"timm:{name}", marks=pytest.mark.slow if name in LARGE else ()) for name in layers.TIMM),
    ],
)
def test_the_table_of_layers_is_true(name):
    """One of each family, measured again, and against the twin; `python -m benchmarks.layers` measures them all."""
    assert layers.row(name) in PAGE.splitlines()


# --- Against the twin ----------------------------------------------------------------------------------------------------


class Logits(nn.Module):
    """A network of transformers as the twin wants it, which takes scores for outputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).logits


def off_the_twin(model, side):
    """The relative error of the guided map; scores and counts are the same."""
    model = model.double()
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    expected, scores, calls = twin.attribution(model, x, [1], twin.guided)
    e = relume.explain(model, x, [1], ["guided_backprop"])
    torch.testing.assert_close(e.scores, scores, rtol=1e-10, atol=1e-10)
    assert e.coverage.guided == calls.total() > 0
    return float((e["guided_backprop"] - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face_equals_the_twin(name):
    _, config, options = HUGGING_FACE[name]
    kind = getattr(transformers, name.partition(",")[0])
    assert off_the_twin(Logits(wake(kind(getattr(transformers, config)(num_labels=4, **options)))), 64) < 1e-9


# --- Tokens by value -----------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Patches of 8, a class token, one block of which the head reads the class token alone or the mean of the patches."""

    def __init__(self, *, pooled):
        super().__init__()
        self.pooled = pooled
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.first = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.mix = nn.Linear(17, 17)
        self.second = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.first(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        tokens = self.second(tokens + self.mix(tokens.transpose(1, 2)).transpose(1, 2))
        return self.head(tokens[:, 1:].mean(1) if self.pooled else tokens[:, 0])


@pytest.mark.parametrize(("pooled", "layer"), [(False, "first"), (True, "second")])
def test_the_map_of_tokens_is_gradcam_of_their_grid(pooled, layer):
    """By hand: mean gradient over the patches, weighted sum over channels, patches in their rows."""
    model = Tokens(pooled=pooled).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.append(out))
    scores = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), kept[0])
    expected = torch.zeros(2, 4, 4, dtype=torch.float64)
    for n in range(2):
        for k in range(6):
            alpha = gradient[n, 1:, k].sum() / 16
            for row in range(4):
                for column in range(4):
                    expected[n, row, column] += alpha * kept[0][n, 1 + 4 * row + column, k].detach()
    e = relume.explain(model, x, 1, ["gradcam"])
    assert e.layer == layer
    torch.testing.assert_close(e["gradcam"], expected.clamp(min=0), rtol=1e-12, atol=1e-15)


class Behind(Tokens):
    """The same with its class token after the patches."""

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.first(torch.cat([tokens, self.token.expand(len(x), -1, -1)], 1))
        tokens = self.second(tokens + self.mix(tokens.transpose(1, 2)).transpose(1, 2))
        return self.head(tokens[:, -1])


def test_tokens_after_the_patches_are_no_grid():
    model, x = Behind(pooled=False), torch.randn(1, 3, 32, 32)
    with pytest.raises(LayerError, match="which works on tokens"):
        relume.explain(model, x, 1, ["gradcam"])
    with pytest.raises(LayerError, match=r"'first' returned shape \(1, 17, 6\), not a map"):
        relume.explain(model, x, 1, ["gradcam"], "first")


class WithFeatures(Tokens):
    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.first(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        tokens = self.second(tokens + self.mix(tokens.transpose(1, 2)).transpose(1, 2))
        return {"features": tokens[:, 1:].mean(1), "logits": self.head(tokens[:, 0])}


def test_the_layer_is_one_that_matters_to_what_is_asked():
    """Of two outputs, the one explained decides: the patches of the second block reach the features alone."""
    model, x = WithFeatures(pooled=False), torch.randn(1, 3, 32, 32)
    assert relume.explain(model, x, 1, ["gradcam"]).layer == "first"
    assert relume.explain(model, x, 1, ["gradcam"], output="features").layer == "second"
    assert relume.explain(model, x, lambda o: o["features"][:, 0], ["gradcam"]).layer == "second"


class Cut(nn.Module):
    def forward(self, x):
        return x[:, :4]


class Overwritten(nn.Module):
    """A layer that returns a view, into which an in-place rectifier writes what others read."""

    def __init__(self):
        super().__init__()
        self.conv, self.cut, self.relu = nn.Conv2d(3, 8, 3), Cut(), nn.ReLU(inplace=True)
        self.last, self.head = nn.Conv2d(8, 5, 3), nn.Linear(5, 3)

    def forward(self, x):
        h = self.conv(x)
        self.relu(self.cut(h))
        return self.head(self.last(h).mean((2, 3)))


@pytest.mark.parametrize("form", ["module", "traced", "exported"])
@pytest.mark.filterwarnings("ignore:.*torch.export:UserWarning")
def test_watching_changes_nothing_where_a_view_is_overwritten(form):
    torch.manual_seed(0)
    net, x = Overwritten().double().eval(), torch.randn(2, 3, 10, 10, dtype=torch.float64)
    model = {
        "module": lambda: net,
        "traced": lambda: torch.fx.symbolic_trace(net),
        "exported": lambda: torch.export.export(net, (x,)).module(),
    }[form]()
    leaf = x.clone().requires_grad_()
    scores = net(leaf)
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), leaf)
    e = relume.explain(model, x, 1, ["gradient", "gradcam"])
    torch.testing.assert_close(e.scores, scores)
    torch.testing.assert_close(e["gradient"], gradient)
    if form == "module":
        with pytest.raises(LayerError, match="layer 'cut' returned a view, which was overwritten in place"):
            relume.explain(model, x, 1, ["gradcam"], "cut")


def test_hooks_of_a_graph_module_run():
    net = torch.fx.symbolic_trace(network().double())
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    net.register_forward_pre_hook(lambda _m, args: (args[0].flip(1) * 3,))
    net.register_forward_hook(lambda _m, _a, out: -out)
    e = relume.explain(net, x, 1, ["gradcam", "gradient"])
    torch.testing.assert_close(e.scores, net(x))
    torch.testing.assert_close(e["gradient"], relume.explain(net, x, 1, ["gradient"])["gradient"])


def test_a_graph_module_by_keyword_is_the_same():
    net, x = torch.fx.symbolic_trace(network()), torch.randn(1, 3, 16, 16)
    one, other = (relume.explain(net, given, 1, ["gradcam"]) for given in (x, {"input": x}))
    assert one.layer == other.layer
    torch.testing.assert_close(one["gradcam"], other["gradcam"])


class Custom(nn.Module):
    """Overwrites its input without saying so, and others read that."""

    def forward(self, x):
        return x.relu_()


def test_a_module_that_overwrites_its_input_is_found_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), Custom(), nn.Linear(4, 2)

        def forward(self, x):
            h = self.conv(x)
            r = self.act(h)
            return self.head((r * 2 + h).mean((2, 3)))

    net, x = Net().double(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    rectified = net.conv(x).relu()
    alpha = 3 * net.head.weight[1] / 36  # both readers count
    expected = torch.einsum("k,nkhw->nhw", alpha, rectified).relu()
    torch.testing.assert_close(relume.GradCAM(net, "act").attribute(x, 1), expected.detach())


def test_pooling_is_seen_behind_layers_that_hand_on():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Identity(), nn.Flatten(), nn.Linear(36, 2)
    )
    assert relume.explain(net, torch.randn(1, 3, 8, 8), 1, ["gradcam"]).layer == "1"


def test_units_without_a_grid_are_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = nn.Linear(12, 16), nn.Linear(16, 2)

        def forward(self, x):
            return self.head(self.block(x.flatten(2)[:, :, :12]).relu().mean(1))

    with pytest.raises(
        LayerError, match=r"'block' returned shape \(1, 3, 16\), and nothing tells which axis of it are channels"
    ):
        relume.explain(Net(), torch.randn(1, 3, 4, 4), Channel("block", 1), ["gradient"])


def test_inputs_inside_a_list_are_not_written_to():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x, others):
            return self.fc((x + others[0].add_(1)).relu())

    other = torch.zeros(3)
    relume.explain(Net(), [torch.randn(1, 3), [other]], 0, ["gradient"])
    assert not other.any()


def test_fusing_in_half_precision_is_fusing():
    net, x = network().to(torch.bfloat16), torch.randn(1, 3, 16, 16)
    nn.init.uniform_(net[4].weight, 1e-4, 2e-4)
    assert float(relume.GradCAM(net, ["0", "1"], fuse="max").attribute(x.bfloat16(), 1).max()) == pytest.approx(1, abs=0.02)


def test_reshape_overrides():
    model = Tokens(pooled=False)
    x = torch.randn(1, 3, 32, 32)
    plain = relume.explain(model, x, 1, ["gradcam"], "first")["gradcam"]
    turned = relume.explain(
        model, x, 1, ["gradcam"], "first", reshape=lambda t: t[:, 1:].reshape(len(t), 4, 4, -1).permute(0, 3, 2, 1)
    )["gradcam"]
    torch.testing.assert_close(turned, plain.transpose(1, 2))
    torch.testing.assert_close(
        relume.GradCAM(model, "first", reshape=lambda t: t[:, 1:].unflatten(1, (4, 4)).movedim(3, 1)).attribute(x, 1), plain
    )
    with pytest.raises(LayerError, match=r"reshape made shape \(1, 102\) of layer 'first', of shape \(1, 17, 6\)"):
        relume.explain(model, x, 1, ["gradcam"], "first", reshape=lambda t: t.flatten(1))


def test_a_layer_whose_tokens_have_no_grid_is_an_error():
    class Odd(Tokens):
        def forward(self, x):
            tokens = self.first(torch.randn(1, 23, 6) * x.mean())
            return self.head(tokens.mean(1))

    with pytest.raises(LayerError, match=r"'first' returned shape \(1, 23, 6\), not a map"):
        relume.explain(Odd(pooled=True), torch.randn(1, 3, 32, 32), 1, ["gradcam"], "first")


# --- Several layers ------------------------------------------------------------------------------------------------------


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


@pytest.mark.parametrize("fuse", ["mean", "max", "product"])
def test_several_layers_are_fused(fuse):
    net, x = network(), torch.randn(2, 3, 16, 16)
    nn.init.uniform_(net[4].weight, 0.5, 1)  # no heat map is zero
    fine, coarse = (relume.GradCAM(net, layer).attribute(x, [0, 2]) for layer in ("0", "1"))
    up = torch.nn.functional.interpolate((coarse / coarse.amax((1, 2), keepdim=True))[:, None], (8, 8), mode="bilinear")[:, 0]
    pair = torch.stack([fine / fine.amax((1, 2), keepdim=True), up])
    expected = {"mean": pair.mean(0), "max": pair.amax(0), "product": pair.prod(0)}[fuse]
    e = relume.explain(net, x, [0, 2], ["gradcam", "guided_gradcam", "guided_backprop"], ["0", net[1]], fuse=fuse)
    assert e.layer == "0, 1"
    torch.testing.assert_close(e["gradcam"], expected)
    heat = torch.nn.functional.interpolate(expected[:, None], (16, 16), mode="bilinear")
    torch.testing.assert_close(e["guided_gradcam"], e["guided_backprop"] * heat)
    torch.testing.assert_close(relume.GradCAM(net, ["0", "1"], fuse=fuse).attribute(x, [0, 2]), expected)


def test_a_layer_without_a_heat_map_does_not_spoil_the_others():
    net, x = network(), torch.randn(1, 3, 16, 16)
    nn.init.uniform_(
        net[4].weight, -1, -0.5
    )  # nothing of the second layer speaks for the class; the first, which it inverts, does
    nn.init.uniform_(net[1][0].weight, -0.1, -0.05)
    nn.init.constant_(net[1][0].bias, 5)
    fine, coarse = (relume.GradCAM(net, layer).attribute(x, 0) for layer in ("0", "1"))
    assert fine.any()
    assert not coarse.any()
    torch.testing.assert_close(relume.GradCAM(net, ["0", "1"]).attribute(x, 0), fine / fine.max() / 2)
    product = relume.explain(net, x, 0, ["gradcam", "guided_gradcam"], ["0", "1"], fuse="product")  # one of them empties it
    assert product.empty("gradcam") == product.empty("guided_gradcam") == [True]
    assert product.remarks["gradcam"][0].startswith("its weighted sum is nowhere positive at one of layers '0' and '1'")


def test_what_cannot_be_fused_is_said():
    net, x = network(), torch.randn(1, 3, 16, 16)
    with pytest.raises(LayerError, match="empty list"):
        relume.explain(net, x, 0, ["gradcam"], [])
    with pytest.raises(LayerError, match="no layer '9'"):
        relume.explain(net, x, 0, ["gradcam"], ["0", "9"])
    with pytest.raises(ValueError, match="fuse is 'mean' or 'max' or 'product'; got 'sum'"):
        relume.explain(net, x, 0, ["gradcam"], fuse="sum")


# --- Which output --------------------------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 4, 3)
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 5)

    def forward(self, x):
        features = self.conv(x).relu().mean((2, 3))
        return self.kind(self.one(features), self.other(features))


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        (lambda a, b: (a, b), 1),
        (lambda a, b: {"one": a, "other": b}, "other"),
        (lambda a, b: {"heads": [a, b]}, lambda o: o["heads"][1]),
        (lambda a, b: transformers.modeling_outputs.ImageClassifierOutput(loss=a, logits=b), "logits"),
    ],
)
def test_the_output_meant_is_picked(kind, output):
    net, x = Two(kind), torch.randn(2, 3, 8, 8)
    expected = relume.explain(net, x, lambda o: (output(o) if callable(output) else o[output])[:, 4], ["gradient"])["gradient"]
    e = relume.explain(net, x, 4, ["gradient"], output=output)
    assert e.scores.shape == (2, 5)
    torch.testing.assert_close(e["gradient"], expected)
    torch.testing.assert_close(relume.Gradient(net).attribute(x, 4, output=output), expected)
    assert relume.coverage(net, x, 4, output=output).guided == 1


def test_a_key_is_a_key_and_a_tensor_has_none():
    net, x = Two(lambda a, b: {"values": a, "items": b}), torch.randn(1, 3, 8, 8)
    assert relume.explain(net, x, 0, ["gradient"], output="items").scores.shape == (1, 5)
    with pytest.raises(TargetError, match="returned one tensor and no output 0; leave output away"):
        relume.explain(Two(lambda a, _: a), x, 0, ["gradient"], output=0)


@pytest.mark.parametrize(
    ("output", "says"), [("third", "no output 'third', but a dict of one, other; name one"), (7, "no output 7, but a dict")]
)
def test_an_output_that_is_not_there_is_said(output, says):
    net = Two(lambda a, b: {"one": a, "other": b})
    with pytest.raises(TargetError, match=says):
        relume.explain(net, torch.randn(1, 3, 8, 8), 0, ["gradient"], output=output)
