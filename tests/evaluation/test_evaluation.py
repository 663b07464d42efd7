"""The comparison as a whole: what it averages, on what, beside what, and from which files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relume
from relume.errors import ImageError, InputError, ModelError
from relume.evaluation import COLUMNS, Sample, evaluate, open_samples
from relume.measures import Truth, measure
from relume.measures.localisation import rank_correlation
from relume.methods.base import METHODS, Method
from relume.models import Opened, open_model
from relume.models.labels import read_labels
from relume.pictures.preprocessing import Preprocessing

BASELINES = ["sobel_edges", "centred_gaussian", "uniform", "random"]


class Small(nn.Module):
    """Two classes, and a count of forward passes that a copy of the network counts in too."""

    forwards = []

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        Small.forwards.append(len(x))
        return self.fc(self.conv(x).relu().mean((2, 3)))


def sample(name="a", seed=0, side=32):
    rng = np.random.default_rng(seed)
    first, second = np.zeros((2, side, side), dtype=bool)
    top, left = rng.integers(1, side // 2 - 8, 2)
    first[top : top + 8, left : left + 8] = True
    second[side // 2 + 2 : side - 2, side // 2 : side - 4] = True
    return Sample(name, torch.from_numpy(rng.standard_normal((3, side, side))).float(), {0: first, 1: second}, first | second)


def mean(e):
    return {key: estimate.mean for key, estimate in e.items()}


def test_it_is_the_mean_over_pictures_of_the_mean_over_classes_of_each_measure():
    model, samples = Small(), [sample(seed=i) for i in range(3)]
    got = evaluate(model, samples, ["gradient", "guided_gradcam"])
    assert list(got.rows) == ["gradient", "guided_gradcam", *BASELINES, "blurred_target_mask"]
    assert (got.samples, got.targets, got.methods) == (3, 6, ("gradient", "guided_gradcam"))
    for name, key in (("gradient", "gradient"), ("guided_gradcam", "guided_gradcam")):
        expected = {column: [] for column in COLUMNS}
        for s in samples:
            maps = [relume.explain(model, s.image[None], c, [key]).saliency(key)[0].numpy() for c in s.targets]
            measured = [measure(m, Truth(s.targets[c], s.things)) for c, m in enumerate(maps)]
            for column in COLUMNS:
                two = rank_correlation(*maps) if column == "class_correlation" else np.mean([m[column] for m in measured])
                expected[column].append(two)
        for column, values in expected.items():
            assert len(values) == 3
            e = got.rows[name][column]
            assert e.mean == pytest.approx(np.mean(values), rel=1e-5), (name, column)
            assert e.low <= e.mean <= e.high
            assert (e.low < e.high) == (len(set(values)) > 1)


def test_one_forward_pass_for_a_picture():
    Small.forwards.clear()
    evaluate(Small(), [sample(), sample(seed=1)])
    assert Small.forwards == [1, 1]


def test_the_same_arguments_give_the_same_measures():
    model = Small()
    one, two, other = (evaluate(model, [sample(), sample(seed=1)], ["gradient"], seed=seed).as_dict() for seed in (0, 0, 1))
    assert one == two
    assert one["measures"]["random"] != other["measures"]["random"]
    assert {k: v["mean"] for k, v in one["measures"]["gradient"].items()} == {
        k: v["mean"] for k, v in other["measures"]["gradient"].items()
    }


def test_the_truth_comes_out_best_and_ignorance_by_chance():
    samples = [sample(seed=i) for i in range(8)]
    rows = evaluate(Small(), samples, ["gradient"]).rows
    chance = np.mean([np.mean([mask.mean() for mask in s.targets.values()]) for s in samples])
    assert rows["uniform"]["mass_accuracy"].mean == pytest.approx(chance)
    assert rows["uniform"]["rank_accuracy"].mean == pytest.approx(chance)
    assert rows["random"]["mass_accuracy"].mean == pytest.approx(chance, abs=0.02)
    assert rows["uniform"]["class_correlation"].count == rows["uniform"]["correlation_length"].count == 0
    assert rows["sobel_edges"]["class_correlation"].mean == pytest.approx(1)
    best = rows["blurred_target_mask"]
    for column in ("mass_accuracy", "rank_accuracy", "right_thing", "pointing"):
        assert best[column].mean > 0.5 + 0.3 * rows["uniform"][column].mean
    assert best["correlation_length"].mean > 3 * rows["random"]["correlation_length"].mean


def test_maps_of_zeros_are_counted_and_left_out():
    class Blind(Small):
        def forward(self, x):
            return super().forward(x) * torch.tensor([1.0, 0.0])

    got = evaluate(Blind(), [sample(), sample(seed=1)], ["gradient"])
    assert got.empty["gradient"] == 2
    assert got.rows["gradient"]["mass_accuracy"].count == 2
    assert got.rows["gradient"]["class_correlation"].count == 0
    assert "Zero everywhere and left out: 2 of 4 maps by gradient." in got.notes
    assert got.as_dict()["measures"]["gradient"]["class_correlation"]["mean"] is None


def test_a_method_is_not_called_like_a_baseline():
    with pytest.raises(InputError, match="'uniform' is the key of a baseline that methods are compared with"):
        evaluate(Small(), [sample()], [Method("uniform", METHODS["gradient"].needs, METHODS["gradient"].compute)])


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(InputError, match="no image to evaluate on"):
        evaluate(Small(), [])


def test_what_is_saved(tmp_path):
    got = evaluate(Small(), [sample(), sample(seed=1)], ["gradient", "gradcam"], provenance={"model": "small"})
    assert got.save(tmp_path / "e") == tmp_path / "e"
    assert {p.name for p in (tmp_path / "e").iterdir()} == {"evaluation.json", "evaluation.md", "evaluation.png"}
    written = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert written == {"format": 1} | json.loads(json.dumps(got.as_dict()))
    assert written["provenance"]["model"] == "small"
    assert written["provenance"].keys() >= {"seed", "layer", "versions"}
    assert written["titles"]["gradcam"] == "Grad-CAM"
    assert written["measures"].keys() == written["titles"].keys() == {"gradient", "gradcam", *BASELINES, "blurred_target_mask"}
    assert written["empty_maps"].keys() == written["titles"].keys()
    for name, row in got.rows.items():
        for key, e in row.items():
            if e.count > 1:
                assert written["measures"][name][key] == {"mean": e.mean, "low": e.low, "high": e.high, "count": e.count}
    text = (tmp_path / "e" / "evaluation.md").read_text()
    for name, row in got.rows.items():
        for estimate in row.values():
            assert str(estimate) in next(
                line for line in text.splitlines() if line.startswith(f"| {got.titles[name]} |") and str(estimate) in line
            )
    with Image.open(tmp_path / "e" / "evaluation.png") as picture:
        assert min(picture.size) > 500


def test_the_figure_draws_every_estimate_in_its_panel():
    got = evaluate(Small(), [sample(), sample(seed=1)], ["gradient"])
    figure = got.figure()
    figure.canvas.draw()
    panels = {panel.get_title().split("  ")[0]: panel for panel in figure.get_axes() if panel.get_title()}
    assert panels.keys() == {column.title for column in COLUMNS.values()}
    for key, column in COLUMNS.items():
        panel = panels[column.title]
        assert [panel.yaxis.get_major_formatter()(place, place) for place in range(len(got.rows))] == [
            *(got.titles[key] for key in got.rows)
        ]
        dots = [line.get_xdata()[0] for line in panel.get_lines() if line.get_marker() == "o"]
        bars = [tuple(line.get_xdata()) for line in panel.get_lines() if line.get_linewidth() == 2.5]
        drawn = [row[key] for row in got.rows.values() if row[key].count]
        assert dots == [e.mean for e in drawn]
        assert bars == [(e.low, e.high) for e in drawn]


def test_a_picture_that_overflows_is_skipped_and_said():
    broken = sample("broken")
    broken.image[0, 0, 0] = float("nan")
    got = evaluate(Small(), [sample(), broken], ["gradient"])
    assert got.samples == 1
    assert got.skipped == ("'broken': the input holds 1 NaN; clean it before explaining it",)
    with pytest.raises(InputError, match="'broken': the input holds 1 NaN"):
        evaluate(Small(), [broken], ["gradient"])


def test_every_map_of_a_wrapper_is_a_row():
    smooth = relume.Smooth("gradient", samples=3)
    got = evaluate(Small(), [sample()], ["gradient", smooth, relume.Augmented("gradcam")])
    assert got.methods == (
        "gradient",
        "smooth_gradient",
        "vargrad_gradient",
        *[m.key for m in relume.Augmented("gradcam").maps],
    )
    assert [got.titles[key] for key in got.methods[1:3]] == ["SmoothGrad, gradient", "VarGrad, gradient"]
    model, s = Small(), sample()
    maps = [relume.explain(model, s.image[None], c, [smooth]).saliency("vargrad_gradient")[0].numpy() for c in s.targets]
    shares = [measure(m, Truth(s.targets[c], s.things))["mass_accuracy"] for c, m in enumerate(maps)]
    row = evaluate(model, [s], [smooth]).rows["vargrad_gradient"]
    assert row["mass_accuracy"].mean == pytest.approx(np.mean(shares), rel=1e-5)


def test_a_sample_that_cannot_be_loaded_stops_no_other():
    def broken():
        raise ImageError("'b.png' is not a picture")

    got = evaluate(Small(), [sample, broken, sample("c")], ["gradient"])
    assert (got.samples, got.skipped) == (2, ("'b.png' is not a picture",))
    with pytest.raises(ZeroDivisionError):
        evaluate(Small(), [sample, lambda: 1 / 0], ["gradient"])


def test_without_other_things_the_targets_are_all_there_is():
    s = sample()
    np.testing.assert_array_equal(Sample("a", s.image, s.targets).things, s.things)


def test_an_opened_network_brings_samples_labels_and_provenance(folder, small):
    got = relume.evaluate(small, folder, ["gradient"])
    assert (got.samples, got.provenance["data"], got.provenance["model"]) == (2, str(folder), "small")
    assert relume.evaluate(small, f"masks:{folder}", ["gradient"]).rows == got.rows
    with pytest.raises(InputError, match="are prepared for a network; give what relume.open_model returns"):
        relume.evaluate(small.model, folder, ["gradient"])
    with pytest.raises(
        InputError, match="'nowhere' is no folder, and no source of samples; write one of scenes, masks, mosaics"
    ):
        relume.evaluate(small, "nowhere")
    with pytest.raises(InputError, match="write scenes:NUMBER, such as scenes:100; got 'scenes:few'"):
        relume.evaluate(relume.open_model("demo"), "scenes:few")
    with pytest.raises(ModelError, match="3 labels were given for a network of 2 classes"):
        relume.evaluate(dataclasses.replace(small, labels=("scarlet", "blue thing", "more")), folder, ["gradient"])


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ({}, "'x' has no class to explain"),
        ({0: np.ones((3, 3), bool)}, r"a mask of the sample 'x' has shape \(3, 3\), and the image is \(32, 32\)"),
        ({0: np.zeros((32, 32), bool)}, "has no pixel"),
    ],
)
def test_samples_that_do_not_fit(targets, says):
    with pytest.raises(InputError, match=says):
        Sample("x", torch.zeros(3, 32, 32), targets, np.ones((32, 32), bool))


def test_masks_of_integers_are_masks():
    s = sample()
    numbers = Sample("a", s.image, {c: m.astype(np.uint8) * 255 for c, m in s.targets.items()}, s.things.astype(int))
    model = Small()
    assert evaluate(model, [numbers], ["gradient"]).as_dict() == evaluate(model, [s], ["gradient"]).as_dict()


def test_few_pictures_make_no_interval():
    warned = [any("fewer than 10" in n for n in evaluate(Small(), [sample()] * k, ["gradient"]).notes) for k in (9, 10)]
    assert warned == [True, False]


# --- Scenes --------------------------------------------------------------------------------------------------------------


def test_scenes_are_held_out_and_hold_two_classes():
    opened = open_model("demo")
    samples = [load() for load in open_samples("scenes:12", opened, 3)]
    assert len(samples) == 12
    for s in samples:
        assert len(s.targets) >= 2
        assert int(s.name.split()[1]) in range(3_000_000, 3_000_100)
        np.testing.assert_array_equal(np.any(list(s.targets.values()), axis=0), s.things)
    with pytest.raises(InputError, match="from 0 to 4293; got 4294"):
        open_samples("scenes:1", opened, 4294)


def test_a_network_of_other_classes_needs_other_pictures():
    opened = Opened("other", Small(), Preprocessing(), ("red", "blue"))
    with pytest.raises(InputError, match="other does not know what is in the scenes .*give a folder of photos with masks"):
        open_samples("scenes:1", opened)


# --- A folder ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small():
    return Opened("small", Small(), Preprocessing(32, 32), ("red thing, scarlet", "blue thing"))


@pytest.fixture
def folder(tmp_path):
    """A wide picture, two things on one mask, one cut off by the crop; and a square one."""
    Image.effect_noise((64, 32), 40).convert("RGB").save(tmp_path / "wide.png")
    mask = np.zeros((32, 64), dtype=np.uint8)
    mask[4:12, 20:28], mask[20:28, 36:44], mask[:, :6] = 1, 2, 3
    Image.fromarray(mask).save(tmp_path / "wide-mask.png")
    Image.effect_noise((32, 32), 40).convert("RGB").save(tmp_path / "square.png")
    plain = np.zeros((32, 32), dtype=np.uint8)
    plain[:16] = 255
    Image.fromarray(plain).save(tmp_path / "square-mask.png")
    (tmp_path / "masks.csv").write_text(
        "picture,mask,class,value\n"
        "wide.png,wide-mask.png,scarlet,1\n"
        "wide.png,wide-mask.png,1,2\n"
        "wide.png,wide-mask.png,,2 3\n"
        "square.png,square-mask.png,blue thing,\n"
    )
    return tmp_path


def test_a_folder_of_pictures_with_masks(folder, small):
    wide, square = (load() for load in open_samples(folder, small))
    assert (wide.name, square.name) == ("wide.png", "square.png")
    assert wide.image.shape == (3, 32, 32)
    expected = np.zeros((32, 32), dtype=bool)
    expected[4:12, 4:12] = True  # the crop takes 16 columns from each side
    np.testing.assert_array_equal(wide.targets[0], expected)
    assert wide.targets[1].sum() == 64
    np.testing.assert_array_equal(wide.things, wide.targets[0] | wide.targets[1])
    assert list(square.targets) == [1]
    assert square.targets[1][:16].all()
    assert not square.targets[1][16:].any()
    got = evaluate(small.model, [wide, square], ["gradient"])
    assert (got.samples, got.targets) == (2, 3)
    assert got.rows["gradient"]["right_thing"].count == 1  # nothing else is in the square picture


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("picture,mask\na,b\n", "has no column class; its first line is to be picture,mask,class and is 'picture,mask'"),
        ("picture;mask;class\na;b;0\n", "and is 'picture;mask;class'"),
        ("", "has no column class or mask or picture"),
        ('picture,mask,class\n"wide.png,wide-mask.png,0\n', "line 2 of .* is no CSV: unexpected end of data"),
        ("picture,mask,class\n", "lists no picture"),
        ("picture,mask,class\nno.png,wide-mask.png,0\n", "line 2 of .* names 'no.png', and there is no such file"),
        ("picture,mask,class\nwide.png,,0\n", "line 2 of .* has no mask; name a file"),
        ("picture,mask,class\n,wide-mask.png,0\n", "line 2 of .* has no picture; name a file"),
        (f"picture,mask,class\n{'x' * 5000},wide-mask.png,0\n", "line 2 of .* names 'xxx"),
        ("picture,mask,class\nwide.png,wide-mask.png,green\n", "line 2 of .*no class is called 'green'"),
        ("picture,mask,class\nwide.png,wide-mask.png,2\n", "line 2 of .*there is no class 2; small has 0 to 1"),
        ("picture,mask,class,value\nwide.png,wide-mask.png,0,x\n", "line 2 of .*'x' is no list of pixel values"),
        ("picture,mask,class\nwide.png\n", "line 2 of .* has no mask"),
    ],
)
def test_a_list_that_is_wrong_is_said_before_anything_runs(folder, small, text, says):
    (folder / "masks.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        open_samples(folder, small)


def test_a_missing_list_is_said(tmp_path, small):
    with pytest.raises(InputError, match="masks.csv' cannot be read: No such file.*columns picture, mask, class"):
        open_samples(tmp_path, small)
    (tmp_path / "masks.csv").touch()
    with pytest.raises(InputError, match="cannot be read: Not a directory; give a folder with masks.csv in it"):
        open_samples(tmp_path / "masks.csv", small)


def test_a_list_as_spreadsheets_write_it(folder, small):
    """A byte order mark, Windows line ends, capitals, spaces, an empty row, short rows and a column of the user's own."""
    lines = [
        "Picture , MASK, Class,value,note",
        "wide.png, wide-mask.png, scarlet, 1, hi",
        ",,,,",
        "square.png,square-mask.png,1",
    ]
    (folder / "masks.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    wide, square = (load() for load in open_samples(folder, small))
    assert wide.targets.keys() == {0}
    assert wide.targets[0].sum() == 64
    assert square.targets.keys() == {1}


def test_what_a_value_of_a_mask_is(folder, small):
    """White of one bit is 255, as viewers show it; of a palette it is the index; a value that is nowhere is said."""

    def first(picture, value):
        picture.save(folder / "wide-mask.png")
        (folder / "masks.csv").write_text(f"picture,mask,class,value\nwide.png,wide-mask.png,0,{value}\n")
        return open_samples(folder, small)[0]().targets[0]

    shape = np.zeros((32, 64), dtype=np.uint8)
    shape[4:12, 20:28] = 1
    expected = shape[:, 16:48].astype(bool)
    np.testing.assert_array_equal(first(Image.fromarray(shape.astype(bool)), 255), expected)
    palette = Image.fromarray(shape)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(first(palette, 1), expected)
    with pytest.raises(ImageError, match="no pixel of value 7 or 9; it has 0, 1"):
        first(Image.fromarray(shape), "7 9")
    with pytest.raises(ImageError, match="no pixel other than 0; it has 0"):
        first(Image.fromarray(shape * 0), "")


def test_masks_that_would_not_lie_where_they_should_are_refused(folder, small):
    square = (folder / "masks.csv").read_text().splitlines()
    (folder / "masks.csv").write_text(f"{square[0]}\nsquare.jpg,square-mask.jpg,0,\n")
    exif = Image.Exif()
    exif[274] = 3
    with Image.open(folder / "square.png") as picture, Image.open(folder / "square-mask.png") as mask:
        picture.save(folder / "square.jpg", exif=exif)
        mask.save(folder / "square-mask.jpg")
        with pytest.raises(ImageError, match=r"square.jpg': it is to be turned \(EXIF orientation 3\).*save it upright"):
            open_samples(folder, small)[0]()
        picture.save(folder / "square.jpg")
    with pytest.raises(ImageError, match="square-mask.jpg': a mask in JPEG does not keep its values"):
        open_samples(folder, small)[0]()


def test_a_turned_tiff_is_refused_although_pillow_turns_it(folder, small):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "wide.png") as picture:
        picture.save(folder / "wide.tiff", exif=exif)
    listed = (folder / "masks.csv").read_text().replace("wide.png", "wide.tiff")
    (folder / "masks.csv").write_text(listed)
    with pytest.raises(ImageError, match=r"wide.tiff': it is to be turned \(EXIF orientation 6\)"):
        [load() for load in open_samples(folder, small)]


def test_masks_that_do_not_fit_are_said(folder, small):
    def first():
        return open_samples(folder, small)[0]()

    Image.new("L", (10, 10)).save(folder / "wide-mask.png")
    with pytest.raises(ImageError, match="wide-mask.png': the mask has 10×10 pixels and its picture 64×32"):
        first()
    Image.new("RGB", (64, 32)).save(folder / "wide-mask.png")
    with pytest.raises(ImageError, match="a mask has one channel, and this has 3; save it in grey"):
        first()
    aside = Image.new("L", (64, 32))
    aside.paste(1, (0, 0, 5, 5))
    aside.save(folder / "wide-mask.png")
    (folder / "masks.csv").write_text("picture,mask,class\nwide.png,wide-mask.png,0\n")
    with pytest.raises(ImageError, match="'wide.png': nothing of what its masks show"):
        first()
    (folder / "wide-mask.png").write_text("no picture")
    with pytest.raises(ImageError, match="wide-mask.png' is not a picture"):
        first()


def test_the_bird_and_the_samoyed(realdata, tmp_path):
    """A real network on real photographs with masks: its maps are on the animals, more than edges are."""
    images = realdata / "images"
    (tmp_path / "masks.csv").write_text(
        "picture,mask,class,value\n"
        f"{images}/coral_bird_segmentation.png,{images}/coral_bird_segmentation_mask.png,kite,3\n"
        f"{images}/coral_dog_segmentation_256.png,{images}/coral_dog_segmentation_mask_256.png,Samoyed,0\n"
    )
    opened = open_model("torchvision:squeezenet1_0", weights=realdata / "weights" / "squeezenet1_0.safetensors")
    opened = dataclasses.replace(opened, labels=read_labels(realdata / "imagenet_classes.txt"))
    got = evaluate(opened.model, [load() for load in open_samples(tmp_path, opened)], layer="features.12")
    assert (got.samples, got.targets) == (2, 2)
    for name in ("guided_backprop", "gradcam", "guided_gradcam"):
        assert got.rows[name]["mass_accuracy"].mean > got.rows["sobel_edges"]["mass_accuracy"].mean + 0.05, name
        assert got.rows[name]["noise"].mean < got.rows["sobel_edges"]["noise"].mean - 0.05, name
    assert got.rows["gradient"]["right_thing"].count == 0
