"""Empty and weak maps: said everywhere with their reason, by value, and no number is given for an empty one."""

import html
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relume
from relume.auditing import measures_of
from relume.demo import CLASSES, draw_scene
from relume.explanation.belief import nothing
from relume.explanation.remarks import WEAK, Advice, another_layer, overlap, positive_share, remarks
from relume.explanation.sheet import sheet
from relume.methods import METHODS, Gradients, Method
from relume.rules import gradient, guided
from relume.targets import Channel
from tests.helpers.commands import complaints, relume_command

ALL = list(METHODS)


class Net(nn.Module):
    """Two layers of maps, and a head of one weight for each channel and class."""

    def __init__(self, head, last=nn.Identity):
        super().__init__()
        torch.manual_seed(0)
        self.early = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(4, 2, 3, padding=1), nn.ReLU())
        self.head, self.last = nn.Linear(2, len(head), bias=False), last()
        with torch.no_grad():
            self.late[0].bias.fill_(0.5)
            self.head.weight.copy_(torch.tensor(head))

    def forward(self, x):
        return self.last(self.head(self.late(self.early(x)).mean((2, 3))))


class Aside(Net):
    """The first layer decides, and the second is multiplied by zero."""

    def __init__(self):
        super().__init__([[0.0, 0.0]] * 2)

    def forward(self, x):
        early = self.early(x)
        return self.head(self.late(early).mean((2, 3))) + early.mean((2, 3))[:, :2]


#: Every class is told by what is not there.
NEGATIVE = [[-1.0, -2.0], [-2.0, -1.0], [-3.0, -3.0]]


@pytest.fixture
def x():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


# --- Why a map is empty --------------------------------------------------------------------------------------------------


def test_a_negative_weighted_sum_is_told_from_a_gradient_of_zero(x):
    e = relume.explain(Net(NEGATIVE).eval(), x, 0, ALL)
    assert e.empty("gradcam") == [True] * 4
    assert e.empty("gradient") == [False] * 4
    advice = "name another layer, such as 'early', or ask for another class"
    assert e.remarks["gradcam"] == (f"its weighted sum is nowhere positive at layer 'late'; {advice}",) * 4
    why = "its Grad-CAM is empty (its weighted sum is nowhere positive at layer 'late')"
    assert e.remarks["guided_gradcam"] == (f"{why}; {advice}",) * 4
    unused = relume.explain(Aside().eval(), x, 0, ["gradient", "gradcam", "guided_gradcam"], "late")
    assert unused.empty("gradient") == [False] * 4
    assert unused.remarks["gradcam"] == (f"the gradient at layer 'late' is zero; {advice}",) * 4
    assert unused.remarks["guided_gradcam"][0].startswith("its Grad-CAM is empty (the gradient at layer 'late' is zero)")


def test_a_score_without_any_gradient_gets_no_advice_that_cannot_work(x):
    dead = Net([[0.0, 0.0], [0.0, 0.0]]).eval()
    said = "the score does not depend on the picture here (no gradient at all): check the weights and the target"
    for methods in (ALL, ["guided_backprop", "gradcam", "guided_gradcam"], ["gradcam"], ["gradient"]):
        e = relume.explain(dead, x, 0, methods)
        assert e.remarks == dict.fromkeys(methods, (said,) * 4)
        assert e.layer_trouble == ""  # no other layer would help
    (verdict,) = relume.audit(dead, x[:1], 0, "gradcam", checks=["edges"]).verdicts
    assert verdict.text.endswith(f" {said[0].upper()}{said[1:]}.")


def test_a_rule_that_passes_nothing_says_which(x):
    e = relume.explain(Net(NEGATIVE).eval(), x, 0, ["gradient", "deconvnet", "guided_backprop"])
    assert e.remarks["gradient"] == ("",) * 4
    other = "and none reaches the input; ask for another class, or by another method"
    assert e.remarks["deconvnet"][2] == f"its rule passes positive gradients only, {other}"
    assert e.remarks["guided_backprop"][2] == f"its rule passes positive gradients through active neurons only, {other}"


def test_maps_that_do_not_overlap_are_told_from_one_that_is_empty():
    found = Gradients(
        {guided: torch.eye(4)[None, None]},
        {gradient: [torch.ones(1, 1, 4, 4)]},
        [torch.eye(4).flip(0)[None, None]],
        "mean",
        torch.zeros(1, 1, 4, 4),
    )
    product = METHODS["guided_gradcam"].compute(found)
    assert not product.any()
    assert overlap(found, product) == 0
    said = remarks(found, {"guided_gradcam": product}, [METHODS["guided_gradcam"]], Advice(["a", "b"], None, "target"))
    why = "its guided backpropagation and its Grad-CAM do not overlap; name another layer or ask for another target"
    assert said == {"guided_gradcam": (why,)}
    small = Gradients(
        {guided: found.inputs[guided] * 1e-30}, found.layers, [torch.eye(4)[None, None] * 1e-30], "mean", found.images
    )
    product = METHODS["guided_gradcam"].compute(small)
    said = remarks(small, {"guided_gradcam": product}, [METHODS["guided_gradcam"]], Advice(["a"], None, "class"))
    assert said["guided_gradcam"][0].startswith("its values are too small for torch.float32; explain")
    none = Gradients({guided: torch.zeros(1, 1, 4, 4)}, found.layers, found.activations, "mean", found.images)
    said = remarks(none, {"guided_gradcam": product}, [METHODS["guided_gradcam"]], Advice(["a"], None, "class"))
    assert said["guided_gradcam"][0].startswith("its guided backpropagation is empty (its rule passes positive gradients")


def test_a_method_of_ones_own_is_empty_without_a_reason(x):
    zero = Method("zero", frozenset({("layer", gradient)}), lambda found: torch.zeros(4, 2, 2))
    e = relume.explain(Net(NEGATIVE).eval(), x, 0, [zero, relume.Smooth("gradcam", 2)])
    assert (e.doubt("zero"), e.doubt("smooth_gradcam")) == ("empty (zero everywhere)",) * 2


def test_a_unit_has_no_other_class(x):
    net = Net(NEGATIVE).eval()
    with torch.no_grad():
        net.late[0].bias[1] = -100
    e = relume.explain(net, x, Channel("late", 1), ["gradient"])
    assert e.doubt("gradient").startswith("empty (zero everywhere): the score does not depend on the picture here")


# --- It is said wherever the map goes ------------------------------------------------------------------------------------


def test_an_empty_map_has_no_similarity_and_is_said_everywhere(x, tmp_path):
    e = relume.explain(Net(NEGATIVE).eval(), x, 0, ["gradcam", "gradient"])
    assert all(np.isnan(kind["gradcam"]).all() for kind in (e.evidence.coarse, e.evidence.edges))
    words = e.doubt("gradcam", 1)
    assert words == f"empty (zero everywhere): {e.remarks['gradcam'][1]}"
    assert f"gradcam ({words})" in str(e[1])
    assert "gradcam (empty for 4 of 4 images), gradient: 2 rectifiers" in str(e)
    assert words in html.unescape(e._repr_html_())
    texts = " ".join(text.get_text() for text in e.figure().texts)
    assert texts.count(words) == 4  # whole, on lines of its own
    assert texts.count("zero everywhere") == 4  # once under each
    back = relume.Explanation.load(e.save(tmp_path))
    assert (back.remarks, back.layer_trouble) == (e.remarks, e.layer_trouble)
    sample = json.loads((tmp_path / "explanation.json").read_text())["samples"][3]
    assert sample["empty"] == {"gradcam": True, "gradient": False}
    assert sample["remark"] == {"gradcam": e.remarks["gradcam"][3], "gradient": ""}


@pytest.mark.parametrize("evidence", ["quick", "full"])
def test_a_map_is_similar_to_nothing_where_the_runner_ups_is_empty(x, evidence):
    e = relume.explain(Net([[1.0, 1.0], [-1.0, -1.0]]).eval(), x, 0, ["gradcam"], "late", evidence=evidence)
    assert np.isnan((e.evidence.coarse or e.evidence.classes)["gradcam"]).all()
    assert np.isfinite(e.evidence.edges["gradcam"]).all()
    assert re.fullmatch(r"(almost the same as|similar to|different from) edges \(similarity −?0\.\d\d\)", e.doubt("gradcam"))


def test_parts_run_one_after_the_other_say_the_same(x):
    net = Net(NEGATIVE).eval()
    whole, parts = relume.explain(net, x, 0, ALL), relume.explain(net, x, 0, ALL, batch_size=3)
    assert parts.remarks == whole.remarks
    assert parts.layer_trouble == whole.layer_trouble != ""


# --- The layer that was chosen -------------------------------------------------------------------------------------------


def test_a_chosen_layer_that_gives_most_images_nothing_is_said(x):
    net = Net(NEGATIVE).eval()
    said = "4 of 4 Grad-CAMs are empty at layer late, which was chosen; name another, such as layer='early'"
    for methods in (["gradcam"], ["guided_gradcam"]):
        e = relume.explain(net, x, 0, methods)
        assert e.layer_trouble == said
        assert str(e).endswith(f"\n{said}")
        assert said in " ".join(e.figure().texts[-1].get_text().split())
    for title, *methods in (
        ("HiResCAM", "hirescam"),
        ("XGrad-CAM", "guided_xgradcam", "gradient"),
        ("LayerCAM", "layercam", "gradcam"),
    ):
        assert relume.explain(net, x, 0, methods).layer_trouble == said.replace("Grad-CAM", title)
    assert relume.explain(net, x, 0, ["gradcam"], "late").layer_trouble == ""  # nobody chose it but the caller
    assert relume.explain(net, x[:2], 0, ["gradcam"]).layer_trouble == said.replace("4 of 4", "2 of 2")
    assert relume.explain(net, x[:1], 0, ["gradcam"]).layer_trouble == said.replace("4 of 4 Grad-CAMs are", "the Grad-CAM is")
    one = relume.explain(Net([[1.0, 1.0], [-1.0, -1.0]]).eval(), x[:2], [0, 1], ["gradcam"])
    assert (one.empty("gradcam"), one.layer_trouble) == ([False, True], "")  # one of two tells nothing of the layer
    half = relume.explain(Net([[1.0, 1.0], [-1.0, -1.0]]).eval(), x, [0, 0, 1, 1], ["gradcam"])
    assert half.empty("gradcam") == [False, False, True, True]
    assert half.layer_trouble == ""
    most = relume.explain(Net([[1.0, 1.0], [-1.0, -1.0]]).eval(), x, [0, 1, 1, 1], ["gradcam"])
    assert most.layer_trouble.startswith("3 of 4 Grad-CAMs are empty at layer late")


@pytest.mark.parametrize(
    ("candidates", "layer", "another"),
    [
        (["layer4", "layer4.1", "layer4.1.conv2", "layer4.0", "layer3", "layer3.1"], "layer4", "layer3"),
        (["classifier.2", "classifier.1", "features", "features.12"], "classifier.2", "features"),
        (["avgpool", "features", "features.28", "features.27", "features.26"], "features.27", "features.26"),
        (["features", "features.18", "features.18.2", "features.17", "features.17.conv"], "features", "features.17"),
        (["layer"], "layer", None),
        ([], "layer", None),
    ],
)
def test_the_layer_to_try_next(candidates, layer, another):
    assert another_layer(candidates, layer) == another


# --- Weak maps -----------------------------------------------------------------------------------------------------------


def of(heat, fine, alpha=1.0):
    """What a layer of one channel with a weighted sum of ``heat``, and a guided gradient ``fine``, give."""
    values = torch.tensor(heat)[None, None]
    gradients = torch.full_like(values, alpha)
    return Gradients(
        {guided: torch.tensor(fine)[None, None]}, {gradient: [gradients]}, [values], "mean", torch.zeros(1, 1, 2, 2)
    )


def test_how_much_is_left_by_value():
    found = of([[-2.0, 0.5], [0.0, 0.1]], [[4.0, 0.2], [0.0, -1.0]])
    assert positive_share(found) == pytest.approx(0.25)
    product = METHODS["guided_gradcam"].compute(found)
    assert overlap(found, product) == pytest.approx(0.1 / (4 * 0.5))
    assert positive_share(of([[1.0, 2.0], [0.0, -0.1]], [[1.0, 0.0], [0.0, 0.0]])) == 1
    assert positive_share(of([[-1.0, 0.0], [0.0, -0.1]], [[1.0, 0.0], [0.0, 0.0]])) == 0
    assert positive_share(of([[-2.0, 0.5], [0.0, 0.1]], [[1.0, 0.0], [0.0, 0.0]], alpha=1e-20)) == pytest.approx(0.25)


class Planned(nn.Module):
    """A class whose weighted sum is a millionth of the first channel; its guided gradient is that of the second, doubled."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return torch.stack(
            [self.layer(x[:, :1]).sum((1, 2, 3)) * 1e-6 + x[:, 1:].relu().square().sum((1, 2, 3)), x.sum((1, 2, 3))], 1
        )


@pytest.mark.parametrize(
    ("heat", "fine", "gradcam", "product"),
    [
        ([[-300.0, 1.0], [0, 0]], [[0.0, 2], [0, 0]], "1/300 of the size of the lowest", "hardly anything of Grad-CAM's"),
        ([[1e-3, 4.0], [0, 0]], [[5.0, 1e-4], [0, 0]], "", "weak: 1/4,000 of what its two maps could give, since they hardly"),
        ([[-20.0, 1.0], [0, 0]], [[1.0, 3], [0, 0]], "", ""),
    ],
)
def test_a_map_that_is_hardly_there_is_weak(heat, fine, gradcam, product):
    x = torch.tensor([heat, fine])[None]
    e = relume.explain(Planned(), x, 0, ["gradcam", "guided_gradcam"], "layer")
    torch.testing.assert_close(e["gradcam"][0], x[0, 0].relu() * 1e-6)
    for method, words in (("gradcam", gradcam), ("guided_gradcam", product)):
        assert e.remarks[method][0].startswith("weak: ") == bool(words)
        assert words in e.remarks[method][0]
        assert e.doubt(method).startswith(e.remarks[method][0])
    assert e.empty("gradcam") == e.empty("guided_gradcam") == [False]


def test_strength_does_not_count_but_what_is_left_does():
    x = torch.tensor([[[1.0, 0.3], [0, 0]], [[2.0, 1.0], [0, 0]]])[None]
    assert relume.explain(Planned(), x * 1e-6, 0, ["guided_gradcam"], "layer").remarks["guided_gradcam"] == ("",)
    assert WEAK == 0.01


class Strengths(nn.Module):
    """A class whose map is the picture, and one whose map is a 64th, or a 500th, of it."""

    def forward(self, x):
        total = x.sum((1, 2, 3))
        return torch.stack([total, total / 64, total / 500], 1)


def test_a_map_far_weaker_than_others_of_its_method_says_so(tmp_path):
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    by_target = relume.compare(Strengths(), x[:1], [0, 1, 2], ["gradient"], evidence=None)
    said = "weak here: 500 times weaker than the strongest gradient of these"
    assert [e.doubt("gradient") for e in by_target] == ["", "", said]
    by_image = relume.explain(Strengths(), x, [2, 0], ["gradient"], evidence=None)
    assert by_image.weaker("gradient") == [pytest.approx(500), None]
    assert [one.doubt("gradient") for one in by_image] == [said, ""]  # one image of them still knows
    assert "gradient (over 100 times weaker than the strongest for 1 of 2 images)" in str(by_image)
    assert f"gradient ({said})" in str(by_image[0])
    words = " ".join(text.get_text() for text in by_image.figure().texts)
    assert words.count("weak here: 500 times") == 1
    assert "weak here" not in " ".join(text.get_text() for text in by_image.figure(scale="shared").texts)  # drawn faint
    back = relume.Explanation.load(by_image.save(tmp_path))
    assert [one.doubt("gradient") for one in back] == [said, ""]
    samples = json.loads((tmp_path / "explanation.json").read_text())["samples"]
    assert [sample["weaker"]["gradient"] for sample in samples] == [pytest.approx(500), None]
    alone = [relume.explain(Strengths(), x[:1], target, ["gradient"], evidence=None) for target in (0, 2)]
    assert [e.doubt("gradient") for e in alone] == ["", ""]  # each was all there was
    assert "weak here: 500" in " ".join(text.get_text() for text in sheet(alone).texts)


def test_the_command_compares_the_strength_of_the_maps_of_a_run(tmp_path):
    for name, level in (("a", 255), ("b", 100)):
        Image.new("RGB", (32, 32), (level, level, level)).save(tmp_path / f"{name}.png")
    (tmp_path / "strengths_of_a_run.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        s = x.sum((1, 2, 3))\n"
        "        return torch.stack([torch.where(s > 0, s, s / 300), s / 2], 1)\n"
    )
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    args = ["--model", "strengths_of_a_run:Net", "--target", "0", "--method", "gradient", "--evidence", "none"]
    said = "weak here: 300 times weaker than the strongest gradient of these"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        explained = relume_command("explain", *photos, *args, "--output", tmp_path / "one")
        compared = relume_command("compare", *reversed(photos), *args, "--output", tmp_path / "two")
    assert (explained.exit_code, compared.exit_code) == (0, 0), explained.output + compared.output
    assert explained.stdout.count(said) == 1
    assert said in explained.stdout.partition("b.png")[2]
    (line,) = [line for line in compared.stdout.splitlines() if "b.png" in line]
    assert line.endswith("weak here: gradient")
    assert said in (tmp_path / "two" / "compare.html").read_text()


# --- The audit -----------------------------------------------------------------------------------------------------------


def test_an_empty_map_is_audited_as_such(x, tmp_path):
    report = relume.audit(Net(NEGATIVE).eval(), x[:2], 0, "gradcam")
    assert report.empty == [True, True]
    assert report.measures.keys() == measures_of().keys()
    assert all(np.isnan(values).all() for values in report.measures.values())
    why = "Its weighted sum is nowhere positive at layer 'late'; name another layer, such as 'early', or ask for another class."
    said = f"This map is empty: there is nothing to believe or doubt. {why}"
    assert [(v.level, v.text) for v in (report.verdict, *report.verdicts)] == [("nothing", said)] * 3
    report.save(tmp_path)
    (audit,) = json.loads((tmp_path / "audit.json").read_text())["audits"]
    for picture in audit["pictures"]:
        assert (picture["empty"], picture["remark"]) == (True, report.remarks[0])
        assert set(picture["measures"].values()) == {None}
    assert audit["checks"]["edges"]["similarity"]["sobel"]["absolute"] == [None, None]
    assert audit["checks"]["faithfulness"]["gain"]["road"] == {"random": [None, None], "edges": [None, None]}
    assert audit["checks"]["coverage"]["blank"] == [1, 1]
    assert said in html.unescape(report._repr_html_())
    view = report.view(0)
    assert [tile.note for tile in view.sections["classes"].strips[0].tiles] == [
        "the class explained",
        "runner-up: empty",
        "random other: empty",
        "least likely: empty",
    ]
    assert np.isnan(view.sections["randomisation"].charts[0].curves[0].y).all()
    assert [chart.title for chart in view.sections["faithfulness"].charts] == [
        f"{k}: the map has no order" for k in ("Deletion", "Insertion", "ROAD")
    ]


def test_one_empty_map_of_several_counts_in_no_average(x):
    report = relume.audit(Net([[1.0, 1.0], [-1.0, -1.0]]).eval(), x[:3], [0, 1, 0], "gradcam", "late", checks=["edges"])
    assert report.empty == [False, True, False]
    assert [v.level for v in report.verdicts] == ["uncalibrated", "nothing", "uncalibrated"]
    assert "1 of 3 maps are empty, and count in no average" in str(report)
    assert np.isnan(report.measures["edges"]).tolist() == [False, True, False]


def test_a_score_that_does_not_respond_is_an_empty_map(x):
    report = relume.audit(Net(NEGATIVE, nn.ReLU).eval(), x[:1], 0, "gradient", checks=["stability"])
    assert report.empty == [True]
    assert "Its" not in report.verdict.text.partition(".")[0]
    assert "The score does not depend on the picture here (no gradient at all): check the weights" in report.verdict.text


def test_a_weak_map_says_so_in_its_audit():
    x = torch.zeros(1, 2, 32, 32)
    x[0, 0, 0, :2], x[0, 1, 1, :2] = torch.tensor([-300.0, 1.0]), 1.0
    report = relume.audit(Planned(), x, 0, "gradcam", "layer", checks=["edges"])
    note = "the map is weak: at layer 'layer' the highest value of its weighted sum is 1/300 of the size of the lowest"
    assert report.view().notes == [note]
    assert note in str(report)


def test_a_map_that_is_the_same_everywhere_is_not_called_empty():
    assert nothing(zero=False).text.startswith("The map is the same everywhere")
    assert nothing(zero=True).text == "This map is empty: there is nothing to believe or doubt."


# --- The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def scenes(tmp_path):
    files = [tmp_path / f"{seed}.png" for seed in range(5)]
    for seed, file in enumerate(files):
        draw_scene(7 + seed, ["cat", "dog"]).picture.save(file)
    return files


def test_explain_and_compare_say_what_is_empty_and_which_layer_to_name(scenes, tmp_path):
    def run(command, *args):
        args = ["--target", "boat", "--method", "gradcam,guided_gradcam", "--output", tmp_path / "out", *args]
        result = relume_command(command, *scenes, *args)
        assert result.exit_code == 0, result.output
        return result.stdout

    for command in ("explain", "compare"):
        text = run(command)
        closing = re.search(
            r"^(\d) of 5 Grad-CAMs are empty at layer layer3, which was chosen; name another, such as (.*)$", text, re.MULTILINE
        )
        assert closing[2] == "--layer layer2"
        short = "its weighted sum is nowhere positive at layer 'layer3'), Guided Grad-CAM (its Grad-CAM is empty)"
        assert text.count(f"  empty: Grad-CAM ({short}") == int(closing[1]) >= 3
    assert "which was chosen" not in run("explain", "--layer", "layer3")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "its weighted sum is nowhere positive at layer &#39;layer3&#39;" in page
    one = relume_command("explain", scenes[0], "--target", "boat", "--output", tmp_path / "one").stdout
    why = "its weighted sum is nowhere positive at layer 'layer3'; name another layer, such as 'layer2'"
    assert f"Grad-CAM: empty (zero everywhere): {why}" in one


def test_a_condition_on_an_empty_map_does_not_pass_in_silence(scenes, tmp_path):
    args = ["--target", str(CLASSES.index("boat")), "--method", "gradcam", "--checks", "edges"]
    result = relume_command("audit", scenes[0], *args, "--fail-if", "edges>0.9", "--output", tmp_path)
    assert result.exit_code == 3, result.output
    assert complaints(result) == [f"relume: {scenes[0]}, gradcam: the map is empty, so that edges>0.9 could not be judged"]
    assert "This map is empty: there is nothing to believe or doubt." in result.stdout
    assert re.search(r"^edges .* empty *$", result.stdout, flags=re.MULTILINE)
    assert "undefin" not in result.stdout
    assert '<span class="level">empty</span>' in (tmp_path / "index.html").read_text()


def test_a_measure_names_its_check(scenes, tmp_path, request, monkeypatch):
    """`cascade` and all others: what the table prints is what --checks and --fail-if take."""
    monkeypatch.chdir(request.config.rootpath)  # where `tests` can be imported
    args = [
        "--model",
        "tests.helpers.networks:Small",
        "--crop",
        "32",
        "--method",
        "gradient",
        "--checks",
        "cascade,shift",
        "--fail-if",
        "cascade>0.99",
        "--output",
        tmp_path,
    ]
    result = relume_command("audit", scenes[0], *args)
    assert result.exit_code == 0, result.output
    (picture,) = json.loads((tmp_path / "audit.json").read_text())["audits"][0]["pictures"]
    assert list(picture["measures"]) == ["randomisation", "cascade", "untrained", "stability", "shift"]
    for key in picture["measures"]:
        assert re.search(rf"^{key}  +.*similarity", result.stdout, flags=re.MULTILINE)
    wrong = relume_command("audit", scenes[0], "--fail-if", "faithfulness<0", "--output", tmp_path / "no")
    assert wrong.exit_code == 2
    assert "a check of several measures; set a condition for one of deletion, insertion, road, road_edges" in wrong.stderr
