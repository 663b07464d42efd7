"""Activations: what a network's scores are, decided by what is known of it or by its graph, and never by values."""

import json
import math
import re

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import relume
from relume import errors
from relume.checkup import check
from relume.explanation import storage as stored
from relume.models.libraries import import_library, import_torchvision
from relume.models.sources import open_model
from relume.targets import Channel
from relume.targets.activation import activated, last_activation, resolve_activation
from tests.helpers.commands import relume_command, sentence
from tests.helpers.model_folders import hugging_face_folder
from tests.helpers.networks import Small
from tests.reference import audit as twin

HEADS = "tests.targets.test_activation:"
LOGITS = [math.log(0.993 / 0.007), math.log(0.982 / 0.018), -2.0]

NAMED = "activation='softmax' (one class is true) or activation='sigmoid' (each may be) says what they are"


class Head(nn.Module):
    """A network whose scores are ``logits`` and a little of what it sees, through ``end``."""

    def __init__(self, end=None, logits=LOGITS):
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 2, 3), nn.Identity() if end is None else end
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.end(self.logits + 1e-6 * self.conv(x).relu().mean((1, 2, 3))[:, None])


def sigmoid():
    """What ``package.module:factory`` names."""
    return Head(nn.Sigmoid())


def softmax():
    return Head(nn.Softmax(1))


def bare():
    return Head()


def regression():
    return Head(logits=[5.234])


def images(count=2, size=12):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def explained(model, count=2, **options):
    return relume.explain(model, images(count), 0, ["gradient"], **options)


# --- What the graph shows ------------------------------------------------------------------------------------------------


ENDS = {
    "softmax": lambda x: x.softmax(1),
    "softmax, from the end": lambda x: x.softmax(-1),
    "softmax in another dtype": lambda x: F.softmax(x, 1, dtype=torch.float64).half(),
    "softmax of a map": lambda x: x[:, :, None, None].softmax(1).flatten(1),
    "softmax, indexed": lambda x: x.softmax(1)[torch.arange(len(x))][:, :],
    "softmax of the first of several": lambda x: torch.stack([x, -x], 1).softmax(2)[:, 0],
    "softmax, written as views": lambda x: x.softmax(1).clone().reshape(-1).view(x.shape).unsqueeze(2).squeeze(2),
    "log-softmax": lambda x: F.log_softmax(x, 1),
    "log-softmax in half precision": lambda x: F.log_softmax(x, -1).half(),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid in place": lambda x: x.clone().sigmoid_(),
    "sigmoid of what is transposed": lambda x: x.t().sigmoid().t(),
    "sigmoid of more, some left out": lambda x: torch.cat([x, x], 1).sigmoid()[:, : x.shape[1]],
}


@pytest.mark.parametrize("rows", [3, 5])
@pytest.mark.parametrize("name", ENDS)
def test_the_last_activation_is_found_behind_what_only_moves_values(name, rows):
    scores = ENDS[name](torch.randn(rows, 5, requires_grad=True))
    assert last_activation(scores) == name.split(",")[0].split()[0]


OTHER = {
    "nothing": lambda x: x * 1,
    "softmax over images": lambda x: x.softmax(0),
    "softmax over images, from the end": lambda x: x.softmax(-2),
    "softmax over images, transposed": lambda x: x.t().softmax(1).t(),
    "softmax, a class left out": lambda x: torch.cat([x, x[:, :1]], 1).softmax(1)[:, :-1],
    "softmax, then something else": lambda x: x.softmax(1) * 5,
    "softmax inside": lambda x: x @ (x.t() @ x).softmax(1),
    "sigmoid as a gate": lambda x: x * x.sigmoid(),
    "relu": lambda x: x.relu(),
}


@pytest.mark.parametrize("rows", [3, 5])  # as many images as classes, too
@pytest.mark.parametrize("name", OTHER)
def test_nothing_else_is_taken_for_one(name, rows):
    assert last_activation(OTHER[name](torch.randn(rows, 5, requires_grad=True))) is None


def test_scores_without_a_graph_or_a_softmax_of_a_single_one_show_nothing():
    assert last_activation(torch.randn(2, 5).softmax(1)) is None
    assert last_activation(torch.randn(2, 1, requires_grad=True).softmax(1)) is None


def test_an_activation_is_its_twin():
    scores = torch.randn(4, 5, dtype=torch.float64)
    for row, shares in zip(scores.tolist(), activated(scores, "softmax").tolist(), strict=True):
        assert shares == pytest.approx([twin.softmax(row, k) for k in range(5)])
    assert activated(scores, "sigmoid").flatten().tolist() == pytest.approx(
        [1 / (1 + math.exp(-s)) for s in scores.flatten().tolist()]
    )
    assert activated(scores, "none") is scores


# --- What is said of a class ---------------------------------------------------------------------------------------------


def test_what_a_sigmoid_gave_is_shown_as_it_is():
    e = explained(Head(nn.Sigmoid()))
    assert (e.activation, e.are_probabilities, e.quantity) == ("none", True, "probability")
    assert [e[i].title() for i in range(2)] == ["0, 99.3%"] * 2
    assert [f"{p:.1%}" for _, _, p in e.top()] == ["99.3%", "98.2%", "11.9%"]
    torch.testing.assert_close(e.probabilities(1), e.scores[1])
    assert "not probabilities" not in str(e)


def test_what_a_softmax_gave_is_shown_as_it_is():
    e = explained(Head(nn.Softmax(1)))
    assert (e.activation, e.are_probabilities, e.title()) == ("none", True, f"0, {float(e.scores[0, 0]):.1%}")
    assert sum(p for _, _, p in e.top()) == pytest.approx(1)


def test_what_a_log_softmax_gave_is_made_probabilities():
    e = explained(Head(nn.LogSoftmax(1)))
    assert (e.activation, e.are_probabilities) == ("softmax", False)
    torch.testing.assert_close(e.probabilities(), e.scores[0].exp())


def test_a_bare_network_has_scores_and_one_line_says_how_to_name_them():
    e = explained(Head())
    assert (e.activation, e.are_probabilities, e.probabilities()) == ("none", None, None)
    assert (e.title(), e.top(count=1)) == ("0, score 4.95", [(0, "0", pytest.approx(LOGITS[0], abs=1e-4))])
    assert str(e).splitlines()[-1] == f"scores, not probabilities: {NAMED}"
    assert str(e).count("not probabilities") == 1
    assert e._repr_html_().count("not probabilities") == 1
    assert not [t for t in e.figure().texts if re.search(r"\d%", t.get_text())]


@pytest.mark.parametrize("logits", [[0.2, 0.7, 0.1], [1.0, 0.0, 0.0]])
def test_values_never_decide(logits):
    """Scores that happen to be positive and add up to 1 are scores like any others."""
    e = explained(Head(logits=logits))
    assert (e.title(), e.quantity) == (f"0, score {logits[0]:.3g}", "score")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_what_the_caller_says_is_taken(activation):
    e = explained(Head(), activation=activation)
    assert (e.activation, e.are_probabilities) == (activation, False)
    assert "not probabilities" not in str(e)
    expected = {"softmax": e.scores[0].softmax(0), "sigmoid": e.scores[0].sigmoid(), "none": None}[activation]
    assert e.probabilities() is None if expected is None else torch.equal(e.probabilities(), expected)


@pytest.mark.parametrize(("classes", "activation"), [(1, "auto"), (1, "none"), (1, "softmax"), (3, "auto"), (3, "none")])
def test_a_regression_never_gets_a_percentage(classes, activation):
    e = explained(Head(logits=[5.234, 1.0, -2.0][:classes]), activation=activation)
    assert (e.title(), e.probabilities(), e.activation) == ("0, score 5.23", None, "none")
    assert "%" not in str(e)
    facts = e.as_dict()
    assert facts["samples"][0]["top"][0] == {"class": 0, "name": "0", "score": pytest.approx(5.234), "probability": None}


def test_a_yes_or_no_is_the_sigmoid_of_its_score_if_somebody_says_so():
    net = Head(logits=[1.5])
    assert explained(net).title() == "0, score 1.5"
    assert str(explained(net)).endswith(
        "a score, not a probability: activation='sigmoid' makes it one, if the network answers yes or no"
    )
    assert explained(net, activation="sigmoid").title() == "0, 81.8%"
    assert explained(Head(nn.Sigmoid(), [1.5])).title() == "0, 81.8%"
    assert explained(Head(nn.Softmax(1), [1.5])).title() == "0, score 1"


@pytest.mark.parametrize("end", ["softmax", "sigmoid", "log-softmax"])
def test_an_activation_is_never_applied_to_another(end):
    net = Head({"softmax": nn.Softmax(1), "sigmoid": nn.Sigmoid(), "log-softmax": nn.LogSoftmax(1)}[end])
    right = end.removeprefix("log-")
    wrong = "softmax" if right == "sigmoid" else "sigmoid"
    says = f"activation='{wrong}' was given, and the network ends in a {end}; give '{right}', or leave it out"
    with pytest.raises(errors.InputError, match=re.escape(says)):
        explained(net, activation=wrong)
    expected = explained(net)
    for same in (right, "auto") if end == "log-softmax" else (right, "auto", "none"):
        assert torch.equal(explained(net, activation=same).probabilities(), expected.probabilities())
    if end == "log-softmax":
        assert explained(net, activation="none").probabilities() is None


@pytest.mark.parametrize("activation", ["relu", None, 3, "Softmax"])
def test_what_is_no_activation_is_refused(activation):
    says = "activation is 'auto', 'softmax', 'sigmoid' or 'none'; got "
    with pytest.raises(errors.InputError, match=f"{says}{activation!r}"):
        explained(Head(), activation=activation)
    with pytest.raises(errors.InputError, match=f"{says}{activation!r}"):
        open_model("demo", activation=activation)
    with pytest.raises(errors.InputError, match=f"{says}{activation!r}"):
        check(Head(), images(1), activation=activation)


def test_what_is_no_class_score_has_no_activation():
    assert resolve_activation("softmax", torch.randn(5, 5, requires_grad=True)[:, 0]) == ("none", None)
    e = relume.explain(nn.Conv2d(3, 2, 3), images(), lambda y: y.softmax(1).mean((1, 2, 3)), ["gradient"], activation="softmax")
    assert (e.quantity, e.top(), e.title()) == ("score", [], "score 0.5")
    assert "not probabilities" not in str(e)


def test_what_is_no_class_is_not_to_be_named():
    for target in (Channel("conv", 1), lambda y: y[:, 0] - y[:, 1]):
        assert "not probabilities" not in str(relume.explain(Head(), images(), target, ["gradient"]))


# --- It stays with the result --------------------------------------------------------------------------------------------


def test_parts_and_what_was_saved_say_the_same(tmp_path):
    for net, options in ((Head(nn.Sigmoid()), {}), (Head(), {}), (Head(), {"activation": "sigmoid"})):
        e = explained(net, **options)
        folder = e.save(tmp_path / "out")
        back = relume.Explanation.load(folder)
        for one in (back, e[0:1], e[1], *e):
            assert (one.activation, one.are_probabilities, one.title()) == (e.activation, e.are_probabilities, e.title())
        assert str(back) == str(e)
        facts = json.loads((folder / "explanation.json").read_text())
        assert (facts["activation"], facts["are_probabilities"]) == (e.activation, e.are_probabilities)
        for (index, name, value), told in zip(e.top(), facts["samples"][0]["top"], strict=True):
            probability = value if e.quantity == "probability" else None
            score = pytest.approx(float(e.scores[0, index]))
            assert told == {"class": index, "name": name, "score": score, "probability": probability}


def test_a_stored_activation_that_is_none_is_refused(tmp_path):
    folder = explained(Head()).save(tmp_path)
    facts = json.loads((folder / "explanation.json").read_text())
    for wrong in ("relu", "auto", None):
        (folder / "explanation.json").write_bytes(stored._sealed(facts | {"activation": wrong}))
        with pytest.raises(errors.InputError, match="cannot be read"):
            relume.Explanation.load(folder)


def test_the_first_part_decides_for_all():
    class Changing(Head):
        """Ends otherwise for each image."""

        def forward(self, x):
            scores = super().forward(x)
            return scores.softmax(1) if x.mean() > 0 else scores

    x = torch.cat([images(1).abs(), -images(1).abs()])
    for order, expected in ((x, ("none", True)), (x.flip(0), ("none", None))):
        e = relume.explain(Changing(), order, 0, ["gradient"], batch_size=1)
        assert (e.activation, e.are_probabilities) == expected
    e = relume.explain(Changing(), x.flip(0), 0, ["gradient"], batch_size=1, activation="sigmoid")  # not refused half-way
    assert (e.activation, e.are_probabilities) == ("sigmoid", False)


def test_a_prepared_network_says_the_same():
    for end in (nn.Sigmoid(), nn.Softmax(1), nn.LogSoftmax(1), None):
        net = Head(end).eval()
        fast = explained(relume.prepare(net, images(1)))
        expected = explained(net)
        assert (fast.activation, fast.are_probabilities) == (expected.activation, expected.are_probabilities)


# --- What is known of a network ------------------------------------------------------------------------------------------


@pytest.fixture
def _here(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)  # where `tests` can be imported


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_noise((40, 40), 60).convert("RGB").save(path)
    return path


@pytest.fixture
def other(photo):
    """Another photo of the same name."""
    path = photo.parent / "other" / photo.name
    path.parent.mkdir()
    path.write_bytes(photo.read_bytes())
    return path


def test_classifiers_of_torchvision_are_softmax(tmp_path, photo):
    torch.manual_seed(0)
    model = import_torchvision().models.get_model("squeezenet1_1", weights=None, num_classes=3).eval()
    save_file(model.state_dict(), tmp_path / "three.safetensors")
    opened = open_model("torchvision:squeezenet1_1", weights=tmp_path / "three.safetensors", model_args={"num_classes": 3})
    again = open_model(tmp_path / "three.safetensors", arch="torchvision:squeezenet1_1", model_args={"num_classes": 3})
    assert (opened.activation, again.activation) == ("softmax", "softmax")
    e = opened.explain(photo, methods=["gradient"])
    assert torch.equal(e.probabilities(), e.scores[0].softmax(0))
    assert relume.explain(opened.model, e.images, methods=["gradient"]).quantity == "score"  # a bare module
    for activation in ("sigmoid", "none"):
        said = open_model(
            "torchvision:squeezenet1_1",
            weights=tmp_path / "three.safetensors",
            model_args={"num_classes": 3},
            activation=activation,
        )
        assert said.activation == said.explain(photo, methods=["gradient"]).activation == activation
        assert opened.explain(photo, methods=["gradient"], activation=activation).activation == activation
    assert opened.explain(photo, methods=["gradient"], activation="auto").activation == "softmax"


def test_classifiers_of_timm_are_softmax_and_features_are_not(tmp_path):
    timm = import_library("timm")
    for classes, expected in ((5, "softmax"), (0, "none")):
        torch.save(timm.create_model("test_resnet", num_classes=classes).state_dict(), tmp_path / "c.pth")
        opened = open_model("timm:test_resnet", weights=tmp_path / "c.pth", model_args={"num_classes": classes})
        assert opened.activation == expected


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (None, "softmax"),
        ("single_label_classification", "softmax"),
        ("multi_label_classification", "sigmoid"),
        ("regression", "none"),
    ],
)
def test_networks_of_transformers_say_what_their_problem_is(problem, expected, tmp_path, photo):
    hugging_face_folder("vit", tmp_path, problem_type=problem)
    opened = open_model(f"hf:{tmp_path}")
    e = opened.explain(photo, methods=["gradient"])
    assert opened.activation == e.activation == expected
    assert ("%" in e.title()) is (problem != "regression")
    assert "not probabilities" not in str(e)  # it said so
    assert torch.allclose(e.scores, opened.model(e.images).logits)


def test_a_single_output_of_transformers_is_a_score(tmp_path, photo):
    hugging_face_folder("vit", tmp_path, id2label={0: "age"})
    e = open_model(f"hf:{tmp_path}").explain(photo, methods=["gradient"])
    assert re.fullmatch(r"age \(0\), score -?[\d.e-]+", e.title())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_files_say_what_their_graph_shows(tmp_path, photo):
    for end, expected in ((nn.Sigmoid(), ("none", True)), (nn.LogSoftmax(1), ("softmax", False)), (None, ("none", None))):
        net, x = Head(end).eval(), images(1, 224)
        torch.jit.trace(net, x).save(tmp_path / "net.pt")
        torch.export.save(torch.export.export(net, (x,)), tmp_path / "net.pt2")
        for name in ("net.pt", "net.pt2"):
            opened = open_model(tmp_path / name)
            e = opened.explain(photo, 0, methods=["gradient"])
            assert (opened.activation, e.activation, e.are_probabilities) == ("auto", *expected)


# --- Checks --------------------------------------------------------------------------------------------------------------


def test_a_checkup_says_the_activation():
    for net, activation, expected in (
        (Head(nn.Sigmoid()), "auto", ("none", True)),
        (Head(nn.LogSoftmax(1)), "auto", ("softmax", False)),
        (Head(), "auto", ("none", None)),
        (Head(), "sigmoid", ("sigmoid", False)),
    ):
        found = check(net, images(1), activation=activation)
        assert (found.activation, found.are_probabilities) == expected
        assert (found.as_dict()["activation"], found.as_dict()["are_probabilities"]) == expected
    dense = check(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), images(1))
    assert (dense.activation, dense.are_probabilities) == (None, None)


CHECKS = ["faithfulness"]


@pytest.mark.parametrize(
    ("end", "activation", "shown"),
    [
        (nn.Sigmoid(), "auto", "0, 99.3%"),
        (nn.Softmax(1), "auto", "0, 72.2%"),
        (nn.LogSoftmax(1), "auto", "0, 72.2%"),
        (None, "sigmoid", "0, 99.3%"),
        (None, "softmax", "0, 72.2%"),
        (None, "none", "0, score 4.95"),
        (None, "auto", "0, score 4.95"),
    ],
)
def test_an_audit_watches_the_probability_where_there_is_one(end, activation, shown):
    net = Head(end)
    report = relume.audit(net, images(1), 0, "gradient", checks=CHECKS, activation=activation)
    quantity = "score" if "score" in shown else "probability"
    found = report.checks["faithfulness"]
    assert (found.quantity, report.view().subject) == (quantity, shown)
    scores = net(images(1)).detach().double()
    start = found.curves["deletion"]["method"][0, 0]
    expected = explained(net, 1, activation=activation).probabilities()
    assert start == pytest.approx(float(scores[0, 0] if expected is None else expected[0]), abs=1e-4)
    (stored,) = report.as_dict()["pictures"]
    assert stored["score"] == pytest.approx(float(scores[0, 0]), abs=1e-5)
    assert stored["probability"] == (None if expected is None else pytest.approx(float(expected[0]), abs=1e-5))
    assert report.as_dict()["checks"]["faithfulness"]["quantity"] == quantity
    assert [chart.y for chart in report.view().sections["faithfulness"].charts] == [quantity] * 3
    assert ("not probabilities" in str(report)) is ((end, activation) == (None, "auto"))


def test_curves_of_scores_lie_within_their_charts():
    torch.manual_seed(0)
    net = nn.Sequential(Small(1), nn.Linear(1, 3)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[900.0], [-300], [5]]))
    report = relume.audit(net, images(1, 24), 0, "gradient", checks=CHECKS)
    charts = report.view().sections["faithfulness"].charts
    low, high = {chart.low for chart in charts}, {chart.high for chart in charts}
    assert len(low) == len(high) == 1  # one scale for all three
    values = [y for chart in charts for curve in chart.curves for y in curve.y]
    assert min(low) <= min(values) < max(values) <= max(high)
    assert max(high) - min(low) <= 2.5 * (max(values) - min(values))
    (axes,) = [axes for axes in report.figure().axes if axes.get_ylabel() == "score"]
    assert axes.get_ylim() == pytest.approx((min(low), max(high)))
    assert [*axes.get_yticks()] == pytest.approx([min(low), (min(low) + max(high)) / 2, max(high)])
    dots = [line for axes in report.figure().axes for line in axes.lines if line.get_marker() == "o"]
    assert all(-1 <= x <= 1 for line in dots for x in line.get_xdata())  # gains of hundreds too


# --- The command ---------------------------------------------------------------------------------------------------------


OPTION = "--activation softmax (one class is true) or --activation sigmoid (each may be) says what they are"
SIZE = ["--resize", "24", "--crop", "24"]


@pytest.mark.usefixtures("_here")
def test_the_command_shows_what_the_network_gave(photo, other, tmp_path):
    out = tmp_path / "out"
    args = ["explain", photo, other, "--method", "gradient", "--output", out, *SIZE]
    text = relume_command(*args, "--model", HEADS + "sigmoid").stdout
    assert text.count("   99.3%  0\n   98.2%  1\n   11.9%  2\n  explained: 0, 99.3%") == 2
    text = relume_command(*args, "--model", HEADS + "bare").stdout
    assert text.count("  score 4.95  0\n  score 4  1\n  score −2  2\n  explained: 0, score 4.95") == 2
    assert text.count(OPTION) == 1  # once, and not for each photo
    assert "%" not in text
    text = relume_command(*args, "--model", HEADS + "bare", "--activation", "sigmoid").stdout
    assert text.count("   99.3%  0\n   98.2%  1\n") == 2
    assert "not probabilities" not in text
    text = relume_command(*args, "--model", HEADS + "regression").stdout
    assert (text.count("explained: 0, score 5.23"), "%" in text) == (2, False)
    says = "activation is 'auto', 'softmax', 'sigmoid' or 'none'; got 'relu'"
    assert says in sentence(relume_command(*args, "--model", HEADS + "bare", "--activation", "relu"), 2)
    result = relume_command(*args, "--model", HEADS + "softmax", "--activation", "sigmoid")
    assert (result.exit_code, result.stdout) == (2, "")
    says = "relume: activation='sigmoid' was given, and the network ends in a softmax; give 'softmax', or leave it out"
    assert says in result.stderr.splitlines()


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["demo"], "sigmoid, by what is known of the network"),
        (["demo", "--activation", "softmax"], "softmax, by --activation"),
        ([HEADS + "sigmoid", *SIZE], "none: the network ends in a softmax or sigmoid, and its scores are probabilities"),
        ([HEADS + "bare", *SIZE], "none: nothing tells what the scores are; --activation softmax or sigmoid does"),
    ],
)
def test_check_says_the_activation_and_where_it_is_known_from(args, says):
    result = relume_command("check", *args)
    assert says in " ".join(result.stdout.split())
    facts = json.loads(relume_command("check", *args, "--json").stdout)
    assert (facts["activation"], facts["are_probabilities"]) == (
        says.split(",")[0].split(":")[0],
        {"sigmoid": False, "softmax": False, "none": True}[says.split(",")[0].split(":")[0]] if "tells" not in says else None,
    )


@pytest.mark.usefixtures("_here")
def test_pages_say_scores_where_there_are_scores(photo, tmp_path):
    for spec, values, scores in (
        ("sigmoid", ["99.3%", "98.2%", "11.9%"], "probabilities, the scores themselves"),
        ("bare", ["score 4.95", "score 4", "score -2"], "scores, not probabilities"),
    ):
        args = ["compare", photo, "--model", HEADS + spec, "--method", "gradient", "--output", tmp_path / spec, *SIZE]
        result = relume_command(*args)
        assert result.exit_code == 0, result.output
        assert result.stdout.count(OPTION) == (spec == "bare")
        page = (tmp_path / spec / "compare.html").read_text()
        top = page[page.index("The network says") :]
        assert re.findall(r'<span class="number">([^<]+)</span>', top)[:3] == values
        assert ("<rect width" in top[: top.index("</ol>")]) is (spec == "sigmoid")
        assert f"<dt>scores</dt><dd>{scores}</dd>" in page


@pytest.mark.usefixtures("_here")
def test_the_audit_command_says_scores_where_there_are_scores(photo, other, tmp_path):
    args = ["audit", photo, other, "--model", HEADS + "bare", "--method", "gradient", "--checks", "faithfulness", *SIZE]
    result = relume_command(*args, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("photo.png  0, score 4.95") == 2
    assert result.stdout.count(OPTION) == 1
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("over random order: score over share of pixels") == 6
    assert "probability" not in page
    facts = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [audited["provenance"]["activation"] for audited in facts["audits"]] == ["none"] * 2
    result = relume_command(*args, "--activation", "sigmoid", "--output", tmp_path / "out")
    assert result.stdout.count("photo.png  0, 99.3%") == 2
    assert "over random order: probability over share of pixels" in (tmp_path / "out" / "index.html").read_text()
