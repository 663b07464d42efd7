"""Grad-CAM, Guided Grad-CAM and the layer they read: the number of passes, the original recipe."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume import errors
from relume.methods import cam
from relume.models.libraries import import_torchvision
from tests.helpers.networks import Small, torchvision_network
from tests.reference import twin
from tests.reference.twin import CAMS, by_twin, slow_grad_cam

ALL = list(relume.METHODS)


@pytest.fixture
def net():
    return Small().double().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("layer", ["conv1", "bn2", "body.0", "body.1", "body"])
def test_equals_the_twin(net, x, layer):
    """bn2 and conv1 are overwritten in place downstream: the map is that of the layer's own output all the same."""
    e = relume.explain(net, x, [1, 4], ["gradcam", "guided_gradcam", "guided_backprop"], layer)
    heat = slow_grad_cam(net, net.get_submodule(layer), x, [1, 4])
    assert e.layer == layer
    torch.testing.assert_close(e["gradcam"], heat, rtol=1e-12, atol=1e-15)
    guided, _, _ = twin.attribution(net, x, [1, 4], twin.guided)
    torch.testing.assert_close(e["guided_gradcam"], twin.guided_gradcam(guided, heat), rtol=1e-12, atol=1e-15)
    saliency = e.saliency("gradcam")
    torch.testing.assert_close(saliency[1], twin.linear(heat[1], (8, 8)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("layer", ["bn2", "body.1", "body"])
def test_every_method_equals_its_twin(net, x, layer):
    """Activations of bn2 are negative too, where the divisor of Grad-CAM++ and the sum of XGrad-CAM can be of any sign."""
    e = relume.explain(net, x, [1, 4], ALL, layer)
    for method in ALL:
        torch.testing.assert_close(e[method], by_twin(net, method, [1, 4], layer)(x), rtol=1e-10, atol=1e-14)
        assert e.infos[method].signed or (e[method] >= 0).all()
    assert len({float(e[method].norm()) for method in CAMS}) == len(CAMS)


def test_gradcam_plusplus_where_its_divisor_is_not_positive_and_xgradcam_where_a_channel_is_zero():
    """Both channels have one value of each sign: the weights that would be negative or infinite are none."""
    activation = torch.tensor([[[[3.0, -9.0]], [[0.0, 0.0]]]], dtype=torch.float64)
    gradient = torch.tensor([[[[1.0, 0.25]], [[2.0, 1.0]]]], dtype=torch.float64)
    weight = 0.25 / (2 - 6 * 0.25)
    expected = (weight * activation[:, 0]).relu()
    torch.testing.assert_close(cam.gradcam_plusplus(activation, gradient).relu(), expected)
    torch.testing.assert_close(twin.grad_cam_plusplus(activation, gradient), expected)
    torch.testing.assert_close(cam.xgradcam(activation, gradient), (3 - 9 * 0.25) / -6 * activation[:, 0])


@pytest.mark.parametrize(
    ("method", "name"),
    [("gradcam", "GradCAM"), ("hirescam", "HiResCAM"), ("layercam", "LayerCAM"), ("xgradcam", "XGradCAM")],
)
def test_equals_pytorch_grad_cam_before_it_scales(method, name):
    import_torchvision()  # which it imports, and which needs help beside a CPU-only torch
    tool = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, x = Small().eval(), torch.randn(2, 3, 8, 8)
    with getattr(tool, name)(net, [net.body]) as other:
        targets = [ClassifierOutputTarget(index) for index in (1, 4)]
        other(x, targets)
        held = other.activations_and_grads
        activations, gradients = (values[-1].detach().numpy() for values in (held.activations, held.gradients))
        weighted = other.get_cam_image(x, net.body, targets, activations, gradients, eigen_smooth=False)
    heat = relume.explain(net, x, [1, 4], [method], "body", evidence=None)[method]
    assert (heat - torch.from_numpy(weighted).clamp(min=0)).abs().max() <= 1e-6 * heat.max()


def test_on_global_pooling_with_a_linear_head_three_are_one():
    """The gradient of a channel is the same at every place, so that its mean, it itself and any weighted mean are one."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3)))

    e = relume.explain(Pooled().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64), [1, 3], ALL, "body")
    for prefix in ("", "guided_"):
        for method in ("hirescam", "xgradcam"):
            torch.testing.assert_close(e[prefix + method], e[f"{prefix}gradcam"], rtol=1e-12, atol=1e-15)
        for method in ("layercam", "gradcam_plusplus"):
            assert not torch.allclose(e[prefix + method], e[f"{prefix}gradcam"])


def test_rectifiers_above_the_layer_stay_unguided(net, x):
    """Guiding the classifier's ReLU would change α: the two differ, and Grad-CAM is the plain one."""
    plain = slow_grad_cam(net, net.body, x, [1, 4])
    with twin.Twin(twin.guided):
        guided = slow_grad_cam(net, net.body, x, [1, 4])
    assert not torch.allclose(plain, guided)
    torch.testing.assert_close(relume.GradCAM(net, net.body).attribute(x, [1, 4]), plain, rtol=1e-12, atol=1e-15)


def test_the_product_stays_signed_and_coloured(net, x):
    gg = relume.GuidedGradCAM(net, net.body).attribute(x, 1)
    assert gg.shape == x.shape
    assert (gg > 0).any()
    assert (gg < 0).any()
    assert not torch.equal(gg[:, 0], gg[:, 1])


def test_a_layer_by_module_by_name_and_within_wrappers(net, x):
    by_name = relume.GradCAM(net, "body.0").attribute(x, 1)
    assert torch.equal(relume.GradCAM(net, net.body[0]).attribute(x, 1), by_name)
    assert torch.equal(relume.GradCAM(nn.DataParallel(net), net.body[0]).attribute(x, 1), by_name)
    assert torch.equal(relume.GradCAM(nn.DataParallel(net), "body.0").attribute(x, 1), by_name)


# --- Layers that do not fit ---


class Awkward(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.twice, self.pair = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), Pair()
        self.last = nn.Conv2d(4, 4, 1)
        self.unused, self.off = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 3)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x):
        self.off(x)
        y = self.twice(self.twice(F.relu(self.conv(x))))
        y = self.last(self.pair(y)[0])
        return self.head(self.pool(y).flatten(1))


class Pair(nn.Module):
    def forward(self, x):
        return x * 1, x * 2


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("twice", r"layer 'twice' ran 2 times in this forward pass, and must run once; candidates: off, conv, pair, last"),
        ("unused", r"layer 'unused' did not run"),
        ("pool", r"layer 'pool' returned shape \(1, 4, 1, 1\), not a map"),
        ("head", r"layer 'head' returned shape \(1, 3\)"),
        ("off", r"the score does not depend on layer 'off'"),
        ("lost", r"no layer 'lost'; candidates: last"),
        ("nowhere.at.all", r"no layer 'nowhere.at.all'"),
        ("", r"the model has no layer ''; candidates: conv"),
        (3, r"a layer is a module of the model, its dotted name or None; got 3"),
        (nn.Conv2d(3, 4, 3), r"the layer Conv2d is not a module inside this model; candidates: .*conv"),
    ],
)
def test_layers_that_do_not_fit(layer, says):
    with pytest.raises(errors.LayerError, match=says):
        relume.GradCAM(Awkward(), layer).attribute(torch.randn(1, 3, 6, 6), 0)


def test_a_callable_has_no_layers(net, x):
    def function(y):
        return net(y)

    assert torch.equal(
        relume.GuidedBackpropagation(function).attribute(x, 1), relume.GuidedBackpropagation(net).attribute(x, 1)
    )
    with pytest.raises(errors.LayerError, match=r"a function has none; pass the torch.nn.Module itself"):
        relume.GradCAM(function, "body").attribute(x, 1)


class PassedOn(nn.Module):
    """Layers that hand their input on, which other operations read too, or overwrite afterwards."""

    def __init__(self, overwrite):
        super().__init__()
        self.conv, self.ident, self.drop, self.head = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Dropout(0.9), nn.Linear(4, 3)
        self.overwrite = overwrite

    def forward(self, x):
        a = self.conv(x)
        y = self.drop(self.ident(a)) * 1
        z = a.relu_() if self.overwrite else a.tanh()
        return self.head((y + 3 * z).mean((2, 3)))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("layer", ["ident", "drop"])
def test_a_layer_that_hands_its_input_on(layer, overwrite):
    """The map is of what the layer gave and of what was made of that, not of its input's other readers."""
    net = PassedOn(overwrite).double().eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    activation = net.conv(x).detach()
    gradient = net.head.weight[[1, 2]].detach()[:, :, None, None].expand_as(activation) / activation[0, 0].numel()
    expected = twin.grad_cam(activation, gradient)
    torch.testing.assert_close(relume.GradCAM(net, layer).attribute(x, [1, 2]), expected, rtol=1e-12, atol=1e-15)


def test_an_in_place_layer_whose_result_is_not_used_by_name():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 3)

        def forward(self, x):
            y = self.conv(x)
            self.relu(y)
            return self.head(y.mean((2, 3)))

    net, x = Silent().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    e = relume.explain(net, x, 1, ["gradcam"])
    assert e.layer == "relu"
    activation = F.relu(net.conv(x)).detach()
    gradient = net.head.weight[1].detach()[None, :, None, None].expand_as(activation) / 16
    torch.testing.assert_close(e["gradcam"], twin.grad_cam(activation, gradient), rtol=1e-12, atol=1e-15)


def test_layers_inside_wrapped_parts():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
            self.conv = torch.compile(nn.Conv2d(4, 4, 1), backend="eager")
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.conv(self.body.module(x)).mean((2, 3)))

    net, x = Wrapped().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    by_name = relume.GradCAM(net, "body.module.1").attribute(x, 1)
    assert torch.equal(relume.GradCAM(net, net.body.module[1]).attribute(x, 1), by_name)
    compiled = relume.explain(net, x, 1, ["gradcam"])
    assert compiled.layer == "conv"
    for layer in ("conv", "conv._orig_mod", net.conv, net.conv._orig_mod):
        assert torch.equal(relume.GradCAM(net, layer).attribute(x, 1), compiled["gradcam"])


def test_a_layer_over_memory_that_is_not_torchs(net, x):
    class Foreign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return torch.from_numpy(y.detach().numpy().copy())

        @staticmethod
        def backward(ctx, g):
            return g

    expected = relume.GradCAM(net).attribute(x, 1)
    net.conv1.register_forward_hook(lambda _m, _a, out: Foreign.apply(out))
    torch.testing.assert_close(relume.GradCAM(net).attribute(x, 1), expected)


def test_the_map_is_made_in_the_precision_of_the_layer():
    net, x = Small().eval(), torch.randn(2, 3, 8, 8)
    net.body.register_forward_hook(lambda _m, _a, out: out.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relume.GradCAM(net, "body").attribute(x, 1).dtype == torch.float32


# --- The chosen layer ---


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("alexnet", "features.11"),
        ("vgg11_bn", "features.27"),
        ("resnet18", "layer4"),
        ("squeezenet1_1", "classifier.2"),
        ("densenet121", "features"),
        ("googlenet", "inception5b"),
        ("inception_v3", "Mixed_7c"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("mobilenet_v2", "features"),
        ("mnasnet0_5", "layers"),
        ("efficientnet_b0", "features"),
        ("regnet_y_400mf", "trunk_output"),
        ("convnext_tiny", "features"),
    ],
)
def test_the_layer_chosen_is_the_last_with_spatial_axes_before_pooling(name, layer):
    model, x = torchvision_network(name), torch.randn(1, 3, 139, 139)
    chosen = relume.explain(model, x, 1, ["gradcam"])
    named = relume.explain(model, x, 1, ["gradcam"], chosen.layer)
    assert chosen.layer == layer
    # chosen and named must be the same map, also where the network overwrites that layer's output in place (densenet)
    assert torch.equal(chosen["gradcam"], named["gradcam"])


def test_where_no_tokens_matter_no_layer_is_chosen():
    """A head of zeros: nothing depends on anything, and the patches before the tokens are not taken instead."""
    model = import_torchvision().models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4)
    with pytest.raises(
        errors.LayerError, match=r"'conv_proj', is followed by .* tokens of shape \(1, 17, 16\); name the target"
    ):
        relume.explain(model, torch.randn(1, 3, 32, 32), 1, ["gradcam"])
    nn.init.normal_(model.heads.head.weight)
    assert relume.explain(model, torch.randn(1, 3, 32, 32), 1, ["gradcam"]).layer == "encoder.layers.encoder_layer_0"


def test_no_layer_to_choose():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU())
    with pytest.raises(errors.LayerError, match="no layer with spatial axes ran before pooling; name .* layer=, and --layer"):
        relume.explain(net, torch.randn(1, 3, 2, 2), 1, ["gradcam"])


# --- Passes ---


class Passes:
    """Counts forward passes of a network and backward passes of the engine, with what each was asked for."""

    def __init__(self, monkeypatch):
        self.forwards, self.backwards = 0, []
        grad = torch.autograd.grad

        def counted(outputs, inputs, *args, **kwargs):
            self.backwards.append(len(inputs))
            return grad(outputs, inputs, *args, **kwargs)

        monkeypatch.setattr(torch.autograd, "grad", counted)

    def network(self, layer=None):
        passes = self

        class Counting(Small):
            def forward(self, x):
                passes.forwards += 1
                return super().forward(x)

        return Counting()


@pytest.mark.parametrize(
    ("methods", "backwards"),
    [
        (["gradient"], [1]),
        (["gradcam"], [1]),
        (["gradient", "gradcam"], [2]),
        (["gradcam", "gradient"], [2]),
        (["guided_backprop"], [1]),
        (["deconvnet"], [1]),
        (["guided_gradcam"], [1, 1]),
        (["guided_gradcam", "guided_backprop", "gradcam"], [1, 1]),
        (ALL, [2, 1, 1]),
    ],
)
@pytest.mark.parametrize("layer", [None, "body"])
def test_passes(monkeypatch, methods, backwards, layer):
    passes = Passes(monkeypatch)
    net, x = passes.network(), torch.randn(2, 3, 8, 8)
    relume.explain(net, x, None, methods, layer, evidence=None)
    assert passes.forwards == 1
    assert sorted(passes.backwards) == sorted(backwards)
    passes.backwards.clear()
    relume.explain(net, x, None, methods, layer, evidence="full")  # the same again, for the runner-up
    assert passes.forwards == 2
    assert sorted(passes.backwards) == sorted(2 * backwards)
    passes.backwards.clear()
    relume.explain(net, x, None, methods, layer)  # to the layer alone, for the runner-up
    assert passes.forwards == 3
    assert sorted(passes.backwards) == sorted(backwards + [1] * ("gradcam" in methods))


def test_targets_share_the_forward(monkeypatch):
    passes = Passes(monkeypatch)
    net, x = passes.network(), torch.randn(2, 3, 8, 8)
    several = relume.compare(net, x, [None, 0, [1, 2]], ALL, evidence=None)
    assert passes.forwards == 1
    assert len(passes.backwards) == 3 * 3
    for e, target in zip(several, [None, 0, [1, 2]], strict=True):
        for method, values in relume.explain(net, x, target, ALL).maps.items():
            assert torch.equal(e[method], values)


def test_gradcam_alone_goes_back_to_the_layer_only():
    """The score to the layer, and not a node further."""
    seen = []

    class Mark(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            seen.append(g)
            return g

    net = Small()
    net.conv1.register_forward_hook(lambda _m, _a, out: Mark.apply(out))
    relume.explain(net, torch.randn(2, 3, 8, 8), 0, ["gradcam"], "body")  # and no further for the runner-up
    assert seen == []
    relume.explain(net, torch.randn(2, 3, 8, 8), 0, ["gradcam", "gradient"], "body")
    assert len(seen) == 1


# --- The classes and the original recipe ---


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("Gradient", "gradient"),
        ("Deconvolution", "deconvnet"),
        ("GuidedBackpropagation", "guided_backprop"),
        ("GradCAM", "gradcam"),
        ("GuidedGradCAM", "guided_gradcam"),
    ],
)
def test_each_class_is_its_method(net, x, name, method):
    layer = [net.body] if "CAM" in name else []
    bound = getattr(relume, name)(net, *layer)
    e = relume.explain(net, x, [1, 0], [method], "body")
    assert torch.equal(bound.attribute(x, target=[1, 0]), e[method])
    called = bound(x, [1, 0], "cpu")
    assert torch.equal(called, e["gradcam"] if method == "gradcam" else e.saliency(method))
    assert called.shape == ((2, 6, 6) if method == "gradcam" else (2, 8, 8))
    assert (called >= 0).all()
    alone = bound(x[:1], 1)
    assert alone.shape == (called.shape[1:] if method == "gradcam" else (1, 8, 8))
    bound.remove_hooks()
    with pytest.raises(errors.InputError, match=f"{name} was released"):
        bound.attribute(x)


def test_the_recipe_runs_as_written(tmp_path):
    from PIL import Image

    from relume import GradCAM, GuidedBackpropagation, compute_guided_gradcam, preprocess_image

    Image.effect_noise((300, 260), 80).convert("RGB").save(tmp_path / "dog.jpg")
    model = import_torchvision().models.resnet18(weights=None).eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)

    guided_bp = GuidedBackpropagation(model)
    image_tensor = preprocess_image(tmp_path / "dog.jpg").unsqueeze(0)
    pred_class = model(image_tensor.to(device)).argmax(dim=1).item()
    saliency = guided_bp(image_tensor, pred_class, device)
    guided_bp.remove_hooks()
    guided_gradcam, guided, cam = compute_guided_gradcam(model, model.layer4, image_tensor, pred_class, device)

    # or step by step
    coarse = GradCAM(model, model.layer4)(image_tensor, pred_class, device)
    upsampled = F.interpolate(
        coarse.unsqueeze(0).unsqueeze(0), size=image_tensor.shape[2:], mode="bilinear", align_corners=False
    ).squeeze()
    product = GuidedBackpropagation(model)(image_tensor, pred_class, device).squeeze() * upsampled

    assert torch.equal(coarse, cam)
    torch.testing.assert_close(product, guided_gradcam)
    assert product.any()
    assert torch.equal(
        F.interpolate(coarse.unsqueeze(0).unsqueeze(0), size=image_tensor.shape[2:], mode="bilinear").squeeze(), upsampled
    )
    assert saliency.shape == (1, 224, 224)
    assert saliency.min() >= 0
    assert torch.equal(guided, saliency[0])
    assert (guided_gradcam.shape, cam.shape) == ((224, 224), (7, 7))
    e = relume.explain(model, image_tensor.to(device), pred_class, ["guided_gradcam", "gradcam"], "layer4")
    assert torch.equal(guided_gradcam, e.saliency("guided_gradcam")[0])
    assert torch.equal(cam, e["gradcam"][0])
    assert torch.equal(compute_guided_gradcam(model, "layer4", image_tensor[0], pred_class, device)[2], cam)
    with pytest.raises(errors.InputError, match="takes one image, and got 2"):
        compute_guided_gradcam(model, "layer4", image_tensor.repeat(2, 1, 1, 1), pred_class, device)


class Again(nn.Module):
    """Its only layers with a map run twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.conv(self.conv(x)).relu().mean((2, 3)))


class Words(Again):
    """Returns no tensor."""

    def forward(self, x):
        super().forward(x)
        return "cat"


def test_why_no_layer_can_be_chosen():
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(
        errors.LayerError, match="every layer with spatial axes before pooling ran more than once, such as 'conv'; "
    ):
        relume.explain(Again(), x, 0, ["gradcam"])
    with pytest.raises(errors.LayerError, match="the network returned a str, in which no tensor is seen"):
        relume.explain(Words(), x, 0, ["gradcam"])
