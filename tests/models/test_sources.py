"""A network from a spec string: every source, and a sentence for what cannot be opened."""

import json
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import relume
from relume.demo import draw_bands, draw_signal, draw_volume
from relume.errors import ModelError
from relume.models import SOURCES, Opened, Source, open_model
from relume.models.libraries import import_library, import_torchvision
from relume.models.timm import timm_preprocessing
from relume.pictures.preprocessing import IMAGENET, Preprocessing
from tests.helpers.model_folders import NETWORKS, hugging_face_folder
from tests.helpers.networks import Small

SMALL = "tests.helpers.networks:Small"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(ROOT)  # where `tests` can be imported


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(3)
    return Small().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 24, 24)


def same(model, other, images):
    return torch.equal(model(images), other(images))


# --- Libraries ---------------------------------------------------------------------------------------------------------


def test_torchvision_with_another_number_of_classes(tmp_path):
    torch.manual_seed(0)
    model = import_torchvision().models.get_model("squeezenet1_1", weights=None, num_classes=10).eval()
    save_file(model.state_dict(), tmp_path / "ten.safetensors")
    opened = open_model(str(tmp_path / "ten.safetensors"), arch="torchvision:squeezenet1_1", model_args={"num_classes": 10})
    x = torch.randn(1, 3, 64, 64)
    assert same(opened.model, model, x)
    assert opened.labels is None
    with pytest.raises(ModelError, match="weights for 'squeezenet1_1' are of 1000 classes, not 10; bring others by --weights"):
        open_model("torchvision:squeezenet1_1", model_args={"num_classes": 10})
    with pytest.raises(ModelError, match="torchvision cannot build 'squeezenet1_1' with the arguments .*'depth'"):
        open_model("torchvision:squeezenet1_1", weights=tmp_path / "ten.safetensors", model_args={"depth": 3})


@pytest.fixture
def timm():
    return import_library("timm")


def test_timm_from_a_checkpoint(timm, tmp_path):
    model = timm.create_model("test_resnet").eval()
    torch.save({"state_dict": model.state_dict(), "arch": "test_resnet"}, tmp_path / "c.pth")
    opened = open_model(str(tmp_path / "c.pth"), arch="timm:test_resnet")
    assert same(opened.model, model, torch.randn(1, 3, 64, 64))
    config = timm.data.resolve_model_data_config(model)
    picture = Image.effect_noise((200, 180), 60).convert("RGB")
    ours = opened.preprocessing.tensor(opened.preprocessing.view(picture))
    assert torch.equal(ours, timm.data.create_transform(**config, is_training=False)(picture))
    assert len(opened.labels) == 1000
    assert opened.labels[281] == "tabby, tabby cat"
    assert opened.notes == ("read the weights under 'state_dict'",)
    ten = timm.create_model("test_resnet", num_classes=10)
    torch.save(ten.state_dict(), tmp_path / "ten.pth")
    assert open_model("timm:test_resnet", weights=tmp_path / "ten.pth", model_args={"num_classes": 10}).labels is None


def test_timm_with_the_weights_that_it_downloads(timm, monkeypatch):
    torch.manual_seed(5)
    model = timm.create_model("test_vit").eval()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_args, **_kwargs: model.state_dict())
    assert same(open_model("timm:test_vit.r160_in1k").model, model, torch.randn(1, 3, 160, 160))


def test_what_timm_cannot_give(timm, monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("We cannot find the requested files. Please check your connection.")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    for spec, args, says in (
        (
            "timm:test_resnet",
            {},
            r"could not be downloaded \(We cannot find the requested files\); bring model.safetensors of https://hugging.*in1k",
        ),
        ("timm:resnet1", {}, "timm has no network 'resnet1'; did you mean resnet18"),
        ("timm:resnet18.nope", {}, "timm has no weights 'resnet18.nope'; their tags are a1_in1k, "),
        ("timm:test_resnet", {"num_classes": 3}, "are of 1000 classes, not 3; bring others by --weights"),
        ("timm:test_resnet", {"nonsense": 3}, "timm cannot build 'test_resnet' with the arguments {'nonsense': 3}"),
        ("timm:convit_tiny.nope", {}, "timm has no weights 'convit_tiny.nope'; their tags are fb_in1k"),
    ):
        with pytest.raises(ModelError, match=says):
            open_model(spec, model_args=args)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_folder_of_transformers(kind, tmp_path):
    model = hugging_face_folder(kind, tmp_path)
    opened = open_model(f"hf:{tmp_path}")
    picture = Image.effect_noise((60, 50), 60).convert("RGB")
    x = opened.preprocessing.tensor(opened.preprocessing.view(picture))[None]
    # a processor on torchvision's arithmetic; tests/pictures/test_preprocessing.py compares pixel by pixel
    processor = import_library("transformers").AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    torch.testing.assert_close(x, torch.as_tensor(processor(picture, return_tensors="pt")["pixel_values"]), rtol=0, atol=1e-5)
    assert torch.equal(opened.model(x).logits, model(x).logits)
    assert (opened.labels, opened.activation, opened.notes) == (("cat", "dog", "espresso"), "softmax", ())
    e = relume.explain(opened.model, x, 1, ["guided_backprop"])
    assert e.coverage.guided > 0
    assert e["guided_backprop"].any()


def test_a_folder_of_timm_opened_by_transformers(timm, tmp_path):
    model = timm.create_model("test_resnet", num_classes=5).eval()
    timm.models.save_for_hf(model, tmp_path, model_config={"label_names": list("abcde")})
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("model_args", None)  # not every version of transformers takes those of every version of timm
    (tmp_path / "config.json").write_text(json.dumps(config))
    opened = open_model(f"hf:{tmp_path}")
    x = torch.randn(1, 3, 160, 160)
    assert torch.equal(opened.model(x).logits, model(x))
    assert opened.labels == tuple("abcde")
    assert opened.preprocessing == timm_preprocessing(timm.data.resolve_model_data_config(model), "it")


def test_a_network_for_bgr_is_given_rgb(tmp_path):
    transformers = import_library("transformers")
    sizes = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 16, 16, 16], "num_attention_heads": 2}
    torch.manual_seed(0)
    model = transformers.MobileViTForImageClassification(transformers.MobileViTConfig(image_size=64, **sizes)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:  # drawn anew: the library's are so small that nothing comes through
            torch.nn.init.kaiming_normal_(weight)
    model.save_pretrained(tmp_path)
    processor = transformers.MobileViTImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path)
    opened = open_model(f"hf:{tmp_path}")
    x = torch.rand(1, 3, 64, 64)
    e = relume.explain(opened.model, x, 1, ["gradient"])
    expected = relume.explain(model, x.flip(1), 1, ["gradient"])
    assert torch.equal(e.scores, expected.scores)
    assert torch.equal(e["gradient"], expected["gradient"].flip(1))
    assert expected["gradient"].any()


def test_transformers_with_weights_from_a_file(tmp_path):
    model = hugging_face_folder("resnet", tmp_path, problem_type="multi_label_classification")
    with torch.no_grad():
        model.classifier[1].bias.add_(1)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "c.pth")
    x = torch.randn(1, 3, 32, 32)
    for opened in (
        open_model(f"hf:{tmp_path}", weights=tmp_path / "c.pth"),
        open_model(str(tmp_path / "c.pth"), arch=f"hf:{tmp_path}"),
    ):
        assert torch.equal(opened.model(x).logits, model(x).logits)
        assert opened.notes == ("read the weights under 'state_dict'",)
        assert opened.activation == "sigmoid"


def test_names_that_were_never_given_are_no_labels(tmp_path):
    hugging_face_folder("resnet", tmp_path, id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert open_model(f"hf:{tmp_path}").labels is None


def test_half_precision_is_opened_in_float32(tmp_path):
    hugging_face_folder("vit", tmp_path).half().save_pretrained(tmp_path)
    assert {p.dtype for p in open_model(f"hf:{tmp_path}").model.parameters()} == {torch.float32}


def test_what_transformers_cannot_give(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hugging_face_folder("vit", tmp_path / "vit")
    (tmp_path / "empty").mkdir()
    capfd.readouterr()
    for spec, args, says in (
        (
            "hf:google/vit-base-patch16-224",
            {},
            "is no folder here, and could not be had from the hub .*; bring its config.json",
        ),
        ("hf:./nowhere", {}, "there is no folder './nowhere'"),
        (f"hf:{tmp_path / 'empty'}", {}, "it needs config.json, model.safetensors and preprocessor_config.json"),
        (
            f"hf:{tmp_path / 'vit'}",
            {"num_labels": 7},
            r"lack classifier.bias, classifier.weight, or hold them in another shape",
        ),
        (f"hf:{tmp_path / 'vit'}", {"nonsense": 7}, "the configuration of '.*vit' has no 'nonsense'"),
    ):
        with pytest.raises(ModelError, match=says) as caught:
            open_model(spec, model_args=args)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="cannot be opened as a network for image classification: .*preprocessor_config.json"):
        open_model(f"hf:{tmp_path / 'vit'}")


def test_a_network_that_was_not_trained_to_classify_is_refused(tmp_path):
    hugging_face_folder("vit", tmp_path).vit.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lack .*classifier.bias, classifier.weight"):
        open_model(f"hf:{tmp_path}")


@pytest.mark.parametrize(("spec", "name"), [("timm:resnet18", "timm"), ("hf:some/vit", "transformers")])
def test_a_library_that_is_not_installed(spec, name, monkeypatch):
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("relume.models.libraries.find_spec", lambda library: None if library == name else object())
    with pytest.raises(ModelError, match=re.escape(f"{name} is not installed; run: pip install 'relume[{name}]'")):
        open_model(spec)


# --- Programs ----------------------------------------------------------------------------------------------------------


def test_torchscript(small, images, tmp_path):
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):  # the second from torch 2.14 on
        torch.jit.script(small).save(tmp_path / "s.pt")
    opened = open_model(str(tmp_path / "s.pt"))
    assert opened.notes[0] == "s.pt is TorchScript: code, which is run as you gave it; open only files that you trust"
    assert opened.preprocessing == IMAGENET
    for _ in range(4):  # TorchScript optimises what has run some times
        e = relume.explain(opened.model, images, 2, ["guided_backprop", "gradient"])
    expected = relume.explain(small, images, 2, ["guided_backprop", "gradient"])
    for method in ("guided_backprop", "gradient"):
        torch.testing.assert_close(e[method], expected[method], rtol=1e-5, atol=1e-7)
    assert e.coverage.guided == expected.coverage.guided == 4


def test_an_exported_program_has_its_layers(small, images, tmp_path):
    open_batch = {"x": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(small, (images,), dynamic_shapes=open_batch), tmp_path / "e.pt2")
    opened = open_model(str(tmp_path / "e.pt2"))
    assert opened.preprocessing == Preprocessing(resize=24, crop=24)
    assert opened.notes[0].startswith("e.pt2 is an exported program: code, which is run")
    methods = list(relume.METHODS)
    for layer in (None, "body.0"):
        e, expected = (relume.explain(model, images, [1, 2], methods, layer) for model in (opened.model, small))
        assert e.layer == expected.layer
        assert e.coverage.guided == expected.coverage.guided == 4
        for method in methods:
            torch.testing.assert_close(e[method], expected[method], rtol=1e-5, atol=1e-7)


def test_programs_that_cannot_be_explained_are_refused(images, tmp_path):
    x = images[:1]
    for name, program in (
        ("training.pt2", torch.export.export(Small().train(), (x,))),
        ("two.pt2", torch.export.export(Small().eval(), (images,))),
        ("grey.pt2", torch.export.export(Small(channels=1).eval(), (x[:, :1],))),
    ):
        torch.export.save(program, tmp_path / name)
    whole = (tmp_path / "two.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    for name, says in (
        ("training.pt2", "was exported in training mode .*call model.eval"),
        ("two.pt2", r"exported for inputs of shape \(2, 3, 24, 24\); relume gives one picture"),
        ("grey.pt2", r"exported for inputs of shape \(1, 1, 24, 24\)"),
        ("cut.pt2", "is no exported program, or is damaged"),
        ("empty.pt", "the file .*empty.pt. is empty; it may have been cut short"),
        ("nowhere.pt", "there is no file"),
    ):
        with pytest.raises(ModelError, match=says):
            open_model(str(tmp_path / name))
    torch.export.save(torch.export.export(Small().eval(), (x,)), tmp_path / "e.pt2")
    with pytest.raises(ModelError, match="is an exported program, a network with its weights, and takes no weights"):
        open_model(str(tmp_path / "e.pt2"), weights=tmp_path / "c.pth")
    with pytest.raises(ModelError, match="is an exported program, a network with its weights; give it as the model itself"):
        open_model(SMALL, weights=tmp_path / "e.pt2")
    with pytest.raises(ModelError, match="neither with other weights nor with another file"):
        torch.save(Small().state_dict(), tmp_path / "c.pth")
        open_model(str(tmp_path / "c.pth"), arch=str(tmp_path / "e.pt2"))


# --- Factories ---------------------------------------------------------------------------------------------------------

MINE = """
from torch import nn

ran = []

def make(width=2, *, classes):
    ran.append((width, classes))
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

def broken():
    raise ValueError("mine")

def described():
    from relume.models import Opened
    from relume.pictures.preprocessing import Preprocessing
    return Opened("other", make(classes=2).train(), Preprocessing(resize=9, crop=9), ("a", "b"), "sigmoid", ("said",))

number = 3

class Zoo:
    make = staticmethod(make)
"""


def test_factories_of_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    (tmp_path / "my_networks.py").write_text(MINE)
    (tmp_path / "my_broken.py").write_text("import nothing_of_that_name")
    before = list(sys.path)
    opened = open_model("my_networks:make", model_args={"width": 4, "classes": 7})
    assert opened.model(torch.zeros(1, 3, 9, 9)).shape == (1, 7)
    assert opened.notes[0] == "my_networks:make was imported and run"
    assert not opened.model.training
    assert open_model("my_networks:Zoo.make", model_args={"classes": 2}).model[0].out_channels == 2
    for spec, args, says in (
        ("my_networks:make", {}, "takes .*, and cannot be called with --model-args: missing a required argument: 'classes'"),
        ("my_networks:make", {"classes": 2, "depth": 1}, "got an unexpected keyword argument 'depth'"),
        ("my_networks:nothing", {}, "the module 'my_networks' has no 'nothing'"),
        ("my_networks:number", {}, "my_networks:number is a int, and cannot be called"),
        (
            "collections:OrderedDict",
            {},
            "returned a OrderedDict; a factory returns a torch.nn.Module or a relume.models.Opened",
        ),
        ("no.such.module:make", {}, "there is no module 'no.such.module', here or installed"),
    ):
        with pytest.raises(ModelError, match=says):
            open_model(spec, model_args=args)
    opened = open_model("my_networks:described")
    assert (opened.name, opened.labels, opened.activation) == ("my_networks:described", ("a", "b"), "sigmoid")
    assert opened.preprocessing.crop == 9
    assert opened.notes == ("my_networks:described was imported and run", "said")
    assert not opened.model.training
    with pytest.raises(ModelError, match="there is no weights file"):
        open_model("my_networks:make", weights="nowhere.pth", model_args={"classes": 1})
    assert sys.modules["my_networks"].ran == [(4, 7), (2, 2), (2, 2)]
    with pytest.raises(ValueError, match=r"^mine\n\(raised by the code of my_networks:broken\)$"):
        open_model("my_networks:broken")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        open_model("my_broken:make")
    assert sys.path == before


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        ("resnet50", {}, "is of no known source; write demo, torchvision:NAME, timm:NAME"),
        ("timm:", {}, "is of no known source"),
        ("torchvison:resnet18", {}, r"no module 'torchvison', here or installed; did you mean torchvision:resnet18\?$"),
        ("nowhere_at_all:make", {}, "no module 'nowhere_at_all', here or installed; check the name, or go to where it lies$"),
        ("demo", {"arch": "demo"}, "an architecture is for a checkpoint, and 'demo' is none"),
        ("demo", {"model_args": {"a": 1}}, "the demo network takes no arguments; got a"),
        ("demo:x", {}, "no network 'demo:x' in the package; write demo, or demo: and signals, bands, volumes"),
    ],
)
def test_specs_that_mean_nothing(spec, options, says):
    with pytest.raises(ModelError, match=says):
        open_model(spec, **options)


# --- Other packages ----------------------------------------------------------------------------------------------------


def test_a_source_from_outside(monkeypatch):
    def open_tiny(request):
        return Opened(request.spec, Small(classes=int(request.name)).eval(), IMAGENET, notes=("tiny",))

    monkeypatch.setitem(SOURCES, "tiny", Source("tiny:CLASSES", "a tiny network", open_tiny))
    assert open_model("tiny:4").model(torch.zeros(1, 3, 9, 9)).shape == (1, 4)
    with pytest.raises(ModelError, match="write demo, .*, tiny:CLASSES"):
        open_model("nothing")


def test_a_source_from_outside_loads_checkpoints_and_moves(small, tmp_path, monkeypatch):
    def open_tiny(request):
        assert (request.weights, request.args) == (tmp_path / "c.pth", {"classes": 5})
        return Opened(request.spec, Small(**request.args).eval(), IMAGENET)

    monkeypatch.setitem(SOURCES, "tiny", Source("tiny:NAME", "a tiny network", open_tiny))
    torch.save({"model": small.state_dict()}, tmp_path / "c.pth")
    opened = open_model(tmp_path / "c.pth", "cpu", arch="tiny:a", model_args={"classes": 5}, activation="sigmoid")
    assert same(opened.model, small, torch.randn(1, 3, 24, 24))
    assert (opened.notes, opened.weights) == (("read the weights under 'model'",), tmp_path / "c.pth")
    assert opened.activation == "sigmoid"


def test_a_source_of_another_package_is_found_by_its_entry_point(monkeypatch):
    point = EntryPoint("tiny", "tests.models.test_sources:TINY", "relume.sources")
    monkeypatch.setattr("relume.registry._points", lambda group, *_: [point] if group == "relume.sources" else [])
    try:
        assert open_model("tiny:anything").name == "tiny:anything"
    finally:
        SOURCES.pop("tiny", None)


TINY = Source("tiny:NAME", "a tiny network", lambda request: Opened(request.spec, Small().eval(), IMAGENET))


@pytest.mark.parametrize(("name", "draw"), [("signals", draw_signal), ("bands", draw_bands), ("volumes", draw_volume)])
def test_the_networks_of_recordings_know_their_worlds(name, draw, tmp_path):
    scene = draw(3)
    np.save(tmp_path / "scene.npy", scene.values)
    e = open_model(f"demo:{name}", "cpu").explain(tmp_path / "scene.npy", methods=["gradcam"])
    assert e.labels == scene.labels
    assert {index for index, _, probability in e.top() if probability > 0.5} == set(scene.classes)
