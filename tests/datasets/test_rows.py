"""Rows of batches: those of photos explained alone, and a sentence where there is none."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn

import relume
from relume.datasets.columns import schema_of
from relume.datasets.request import RunRequest
from relume.datasets.rows import explained_rows
from relume.datasets.sources import open_source
from relume.datasets.storage import storage_of
from relume.demo import draw_scene
from relume.errors import InputError
from relume.models import Opened
from relume.pictures import Photo, Preprocessing

CATS = [draw_scene(seed, ["cat", "dog"]) for seed in range(3)]


def item(number, **more):
    return {"id": str(number), "path": None, "label": None, "target": None, "mask": None} | more


def photos(count):
    return [(item(i), Photo.whole(scene.picture)) for i, scene in enumerate(CATS[:count])]


@pytest.fixture(scope="module")
def demo():
    return relume.open_model("demo", "cpu")


def picky(fails):
    """A network for any size that raises what ``fails`` returns of a batch."""

    class Picky(nn.Sequential):
        def forward(self, x):
            error = fails(x)
            if error is not None:
                raise error
            return super().forward(x)

    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return Opened("picky", Picky(*layers).eval(), Preprocessing(None, None))


def test_rows_are_in_order_and_those_of_photos_alone(demo):
    batch = [
        *photos(2),
        (item(2), ValueError("no picture\nat all")),
        (item(3, target="cat", label="a cat"), demo.input_of(CATS[2].picture)),  # prepared elsewhere
        (item(4, target="zebra"), Photo.whole(CATS[0].picture)),
        (item(5, target="99"), Photo.whole(CATS[0].picture)),
        (item(6, path="missing.jpg"), "missing.jpg"),
    ]
    request = RunRequest(methods=["guided_backprop", "gradcam"], store="maps", exact=True)
    table = explained_rows(demo, batch, request)
    assert table.schema.equals(schema_of(request), check_metadata=True)
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [str(i) for i in range(7)]
    errors = ["no picture", None, "no class is called 'zebra'", "class 99 is out of range", "there is no file 'missing.jpg'"]
    assert all((row["error"] or "").startswith(e or "") for row, e in zip(rows[2:], errors, strict=True))
    assert [row["error"] is None for row in rows] == [True, True, False, True, False, False, False]
    for i, target in ((0, None), (1, None), (3, "cat")):
        alone = demo.explain(CATS[min(i, 2)].picture, target, ["guided_backprop", "gradcam"])
        row = rows[i]
        assert (row["target"], row["class_name"]) == (int(alone.target[0]), alone.name(int(alone.target[0])))
        assert row["top_names"] == [name for _, name, _ in alone.top()]
        assert row["top_probabilities"] == pytest.approx([value for _, _, value in alone.top()], abs=1e-6)
        assert (row["guided"], row["unguided"], row["layer"]) == (alone.coverage.guided, 0, alone.layer)
        assert row["gradcam_class_similarity"] == pytest.approx(alone.evidence.coarse["gradcam"][0], abs=1e-3)
        assert row["guided_backprop_edge_similarity"] == pytest.approx(alone.evidence.edges["guided_backprop"][0], abs=1e-3)
        for key in alone.maps:
            values = np.frombuffer(row[f"{key}_map"], "<f4").reshape(row[f"{key}_shape"])
            np.testing.assert_allclose(values, alone[0, key], atol=1e-4 * float(alone[key].abs().max()))
    assert explained_rows(demo, [], request).num_rows == 0


def test_a_thumbnail_is_a_small_picture_of_the_map(demo):
    (row,) = explained_rows(demo, photos(1), RunRequest(methods=["gradcam"])).to_pylist()
    with Image.open(pa.BufferReader(row["gradcam_thumbnail"])) as thumbnail:
        wanted = demo.explain(CATS[0].picture, methods=["gradcam"]).picture("gradcam", kind="over", size=96)
        assert thumbnail.size == wanted.size == (96, 96)
        assert np.abs(np.asarray(thumbnail, int) - np.asarray(wanted, int)).mean() < 6


def test_an_image_that_fails_is_alone_in_it_and_sizes_may_differ():
    network = picky(lambda x: RuntimeError("too dark") if (x.mean((1, 2, 3)) < -1).any() else None)
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "black", "white")]
    pictures.append(Image.new("RGB", (20, 50), "red"))
    batch = [(item(i), Photo.whole(picture)) for i, picture in enumerate(pictures)]
    rows = explained_rows(network, batch, RunRequest(methods=["gradient"])).to_pylist()
    assert [bool(row["error"] and "too dark" in row["error"]) for row in rows] == [False, True, False, False]
    assert [row["gradient_shape"] for row in rows] == [[30, 40], None, [30, 40], [50, 20]]
    assert [len(row["gradient_saliency"] or b"") for row in rows] == [1200, 0, 1200, 1000]


def test_a_batch_that_memory_does_not_suffice_for_is_halved():
    network = picky(lambda x: MemoryError() if len(x) > 2 else None)
    batch = [(item(i), Photo.whole(scene.picture)) for i, scene in enumerate(CATS)]
    with pytest.warns(UserWarning, match="memory ran out on 3 images"):
        rows = explained_rows(network, batch, RunRequest(methods=["gradient"])).to_pylist()
    assert [row["error"] for row in rows] == [None] * 3


def test_the_same_batch_gives_the_same_rows(demo):
    generator = torch.Generator().manual_seed(0)
    smooth = relume.Smooth("gradient", samples=2, generator=generator)
    request, state = RunRequest(methods=[smooth]), generator.get_state()
    first, second = (explained_rows(demo, photos(2), request) for _ in range(2))
    assert first.equals(second)
    assert torch.equal(generator.get_state(), state)


def test_maps_are_measured_where_there_is_a_mask(demo, tmp_path):
    scene, names = CATS[0], ["whole.png", "small.png"]
    Image.fromarray(scene.mask(scene.classes[0])).save(tmp_path / names[0])
    Image.new("1", (3, 3), 1).save(tmp_path / names[1])
    batch = [(item(i, mask=str(tmp_path / name), target="cat"), Photo.whole(scene.picture)) for i, name in enumerate(names)]
    batch.append((item(2), batch[0][1]))
    rows = explained_rows(demo, batch, RunRequest(methods=["guided_backprop"], masks=True)).to_pylist()
    heat = demo.explain(scene.picture, "cat", ["guided_backprop"]).saliency("guided_backprop")[0].double().numpy()
    wanted = heat[scene.mask(scene.classes[0])].sum() / heat.sum()  # the network sees all of a scene
    assert rows[0]["guided_backprop_mass_accuracy"] == pytest.approx(wanted, rel=1e-3)
    assert rows[0]["guided_backprop_right_thing"] is None  # there is one thing only
    assert "the mask has 3×3 pixels" in rows[1]["error"]
    assert (rows[2]["guided_backprop_mass_accuracy"], rows[2]["error"]) == (None, None)


def test_masks_are_read_from_tars_and_urls(demo, tmp_path):
    scene, content = draw_scene(7, ["cat", "dog"]), io.BytesIO()
    scene.picture.save(tmp_path / "7.png")
    Image.fromarray(scene.mask(scene.classes[0])).save(mask := tmp_path / "7.seg.png")
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in ("7.png", "7.seg.png"):
            tar.add(tmp_path / name, name)
    storage_of("memory://masks").put("0.tar", content.getvalue())
    storage_of("memory://masks").put("7.png", mask.read_bytes())
    (in_tar,) = (source := open_source("memory://masks/0.tar")).manifest().to_pylist()
    photo = source.read(in_tar)
    masks = [str(mask), in_tar["mask"], "memory://masks/7.png", "memory://masks/8.png"]
    batch = [(item(i, mask=place), photo) for i, place in enumerate(masks)]
    rows = explained_rows(demo, batch, RunRequest(methods=["guided_backprop"], masks=True)).to_pylist()
    assert len({row["guided_backprop_mass_accuracy"] for row in rows[:3]}) == 1
    assert 0 < rows[0]["guided_backprop_mass_accuracy"] < 1
    assert rows[3]["error"].startswith("'memory://masks/8.png' cannot be read: ")


def test_requests_are_told_apart_and_refused():
    def of(method):
        return RunRequest(methods=[method]).as_dict()

    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    same, again, other = (of(relume.Smooth("gradient", generator=generator)) for generator in seeds)
    assert same == again != other
    assert RunRequest(methods=["gradcam"], target="cat").as_dict() == {
        "methods": ["gradcam"],
        "target": "cat",
        "layer": None,
        "store": "saliency",
        "exact": False,
        "masks": False,
        "options": {},
    }
    with pytest.raises(InputError, match="store is 'facts' or 'saliency' or 'maps'; got 'all'"):
        RunRequest(store="all")
