"""Slips that a network stumbles over are said in a sentence, with what to write; what is legal is left alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume.errors import InputError, ModelError
from tests.helpers.networks import Small, torchvision_network


def ask(model, images, methods=("guided_backprop", "gradcam")):
    return relume.explain(model, images, None, list(methods))


def dense(channels=192):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels, 5), nn.ReLU(), nn.Linear(5, 2))


# --- A batch axis forgotten ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "vgg11"])
def test_images_without_a_batch_axis(name, training):
    model, image = torchvision_network(name).train(training), torch.randn(3, 64, 64)
    for methods in (["guided_backprop"], ["gradcam"]):
        with pytest.raises(InputError, match=r"have shape \(3, 64, 64\), without a batch axis; write images\[None\]$"):
            ask(model, image, methods)
    assert ask(model, image[None])["gradcam"].shape[0] == 1


def test_a_network_that_takes_the_channels_for_a_batch_is_found_by_its_rows():
    """Nothing is raised: convolutions take unbatched images, and flattening leaves a score for each of 8 channels."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity())
    with pytest.raises(InputError, match=r"without a batch axis; write images\[None\]$"):
        ask(model, torch.randn(3, 8, 8))


@pytest.mark.parametrize(
    ("model", "image", "written"),
    [
        (dense(), torch.randn(3, 8, 8), "images[None]"),
        (dense(64), torch.randn(8, 8), "images[None]"),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)),
            torch.randn(8, 8),
            "images[None, None]",
        ),
        (
            nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)),
            torch.randn(2, 6, 6, 6),
            "images[None]",
        ),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)), torch.randn(2, 8), "images[None]"),
        (dense(), torch.randn(3, 8, 8, dtype=torch.float64), "images[None].float()"),
    ],
    ids=["dense", "dense without channels", "grey", "volume", "signal", "of another dtype too"],
)
def test_what_to_write_is_what_works(model, image, written):
    with pytest.raises(InputError) as caught:
        ask(model, image, ["guided_backprop"])
    assert str(caught.value).endswith(f"; write {written}")
    corrected = eval(written, {"images": image})
    assert torch.equal(ask(model, corrected, ["guided_backprop"]).scores, model(corrected))


def test_a_picture_without_channels_is_said():
    with pytest.raises(InputError, match=r"shape \(8, 8\), without batch and channel axes; .* takes \(N, 3, H, W\)"):
        ask(Small(), torch.randn(8, 8))


@pytest.mark.parametrize(
    ("model", "shape", "says"),
    [
        (nn.Conv3d(1, 2, 3), (1, 1, 40), r"signals, and the network is for volumes or video: .* takes \(N, 1, D, H, W\)"),
        (nn.Conv2d(3, 2, 3), (2, 3, 8, 8, 8), r"volumes or video, and the network is for pictures: .* takes \(N, 3, H, W\)"),
        (nn.Conv1d(1, 2, 3), (1, 1, 8, 8), r"pictures, and the network is for signals: .* takes \(N, 1, L\)"),
    ],
)
def test_images_of_other_axes_than_the_network_is_for_are_said(model, shape, says):
    with pytest.raises(InputError, match=r"have shape .*, that of " + says):
        ask(nn.Sequential(model, nn.ReLU()), torch.randn(shape))


class Spectrogram(nn.Module):
    """Takes ``(N, F, T)`` and convolves in two dimensions."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(F.relu(self.conv(x.unsqueeze(1))).mean((2, 3)))


def test_signals_and_spectrograms_are_legal_with_three_axes():
    signal = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
    for model, images in ((signal, torch.randn(2, 3, 8)), (Spectrogram(), torch.randn(3, 8, 8))):
        assert len(ask(model, images, ["guided_backprop"])["guided_backprop"]) == len(images)
    with pytest.raises(InputError, match=r"shape \(8, 8\), without a batch axis; write images\[None\]$"):
        ask(Spectrogram(), torch.randn(8, 8), ["guided_backprop"])


@pytest.mark.parametrize(
    ("model", "images"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)), torch.randn(2, 4, 8)),
        (Spectrogram(), torch.randn(3, 2, 2)),
        (Small(), torch.randn(2, 4, 8, 8)),
        (dense(), torch.randn(1, 4, 8, 8)),
    ],
    ids=["signal", "spectrogram", "image", "dense"],
)
def test_other_faults_are_the_networks_own(model, images):
    """Of the wrong size or number of channels: no axis helps, and the network's error stays."""
    with pytest.raises(RuntimeError) as caught:
        ask(model, images, ["guided_backprop"])
    assert not isinstance(caught.value, relume.errors.RelumeError)
    assert f"an input of shape {tuple(images.shape)}" in caught.value.__notes__[0]


# --- Another dtype -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_dtype_of_the_network_is_said(weights, images):
    for model, shape in ((Small(), (2, 3, 8, 8)), (dense(), (2, 3, 8, 8))):
        given = torch.randn(shape).to(images)
        if weights == images:
            assert ask(model.to(weights), given, ["guided_backprop"])["guided_backprop"].dtype == weights
            continue
        written = "images.float()" if weights == torch.float32 else f"images.to({weights})"
        with pytest.raises(InputError) as caught:
            ask(model.to(weights), given, ["guided_backprop"])
        assert str(caught.value) == f"the images are {images} and the network's weights {weights}; write {written}"
        assert ask(model, eval(written, {"images": given, "torch": torch}), ["guided_backprop"])


def test_the_dtype_is_said_where_there_are_other_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.embed = Small(), nn.Embedding(3, 5)

        def forward(self, image, kind):
            return self.net(image) + self.embed(kind)

    with pytest.raises(InputError, match=r"write images.float\(\)$"):
        ask(Two(), [torch.randn(2, 3, 8, 8).half(), torch.tensor([0, 2])])


def test_a_network_that_casts_its_images_or_runs_under_autocast_is_left_alone():
    class Casting(Small):
        def forward(self, x):
            return super().forward(x.float())

    x = torch.randn(2, 3, 8, 8)
    assert ask(Casting(), x.half())["guided_backprop"].any()
    with torch.autocast("cpu", torch.bfloat16):
        assert ask(Small(), x.bfloat16())["guided_backprop"].any()


def test_a_network_that_runs_is_not_told_of_its_images():
    """One that puts the axes in front by itself returns no row for each row of its image: nothing is wrong with that."""

    class Alone(Small):
        def forward(self, x):
            return super().forward(x.expand(1, 3, *x.shape))

    e = relume.explain(Alone(), torch.randn(8, 8), lambda rows: rows[0, 1].expand(8), ["gradient"])
    assert e["gradient"].any()


# --- Tensors out of the ordinary -----------------------------------------------------------------------------------------

IMAGES = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (IMAGES.to_sparse, r"a sparse_coo tensor; give an ordinary one, such as images.to_dense\(\)"),
        (IMAGES[0, 0].to_sparse_csr, "a sparse_csr tensor"),
        (lambda: IMAGES.to("meta"), "on the meta device and hold no values"),
        (
            lambda: IMAGES.to(torch.float8_e4m3fn),
            r"torch.float8_e4m3fn, in which nothing can be computed; write images.float\(\)",
        ),
    ],
    ids=["sparse", "rows", "meta", "float8"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_images_out_of_the_ordinary(images, says):
    for asked in ({}, {"batch_size": 1}):
        with pytest.raises(InputError, match=says):
            relume.explain(Small(), images(), **asked)
    with pytest.raises(InputError, match=says):
        relume.coverage(Small(), images())


def test_nested_images_are_said():
    with pytest.raises(InputError, match=r"the images are a nested tensor; give one of shape \(N, C, H, W\)"):
        ask(Small(), torch.nested.nested_tensor([IMAGES[0], IMAGES[1]], layout=torch.jagged))


def test_weights_without_values():
    with pytest.raises(ModelError, match="the network is on the meta device and its weights hold no values"):
        ask(Small().to("meta"), IMAGES)
    partly = Small()
    partly.head.to("meta")
    with pytest.raises(ModelError, match=r"'head.0.weight' is on the meta device and holds no values; load the weights first"):
        ask(partly, IMAGES)


def test_weights_out_of_the_ordinary_are_named_where_the_network_fails():
    sparse = Small()
    sparse.head[0].weight = nn.Parameter(sparse.head[0].weight.detach().to_sparse())
    with pytest.raises(ModelError, match=r"'head.0.weight' is sparse \(torch.sparse_coo\); make it dense with .to_dense\(\)$"):
        ask(sparse, IMAGES)
    works = Small()
    works.register_buffer("unused", torch.eye(3).to_sparse())
    assert ask(works, IMAGES)["guided_backprop"].any()


@pytest.mark.filterwarnings("ignore:.*quantize:")
def test_quantised_weights_are_named():
    class Quantised(Small):
        def __init__(self):
            super().__init__()
            self.narrow = nn.Parameter(torch.quantize_per_tensor(torch.eye(5), 0.1, 0, torch.qint8), requires_grad=False)

        def forward(self, x):
            return super().forward(x) @ self.narrow

    with pytest.raises(ModelError, match=r"'narrow' is quantised \(torch.qint8\), which has no gradients"):
        ask(Quantised(), IMAGES)
