"""Questions in words, as the command's ``--ask`` has them."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import torch

from relume.demo import draw_scene
from relume.errors import ImageError, TargetError
from relume.models.opened import Opened
from relume.models.questions import QUESTIONS, parse_question
from relume.pictures.preprocessing import Preprocessing
from relume.targets import (
    Binary,
    Channel,
    Contrast,
    Detection,
    Embedding,
    Nearest,
    Neuron,
    Probability,
    Regression,
    Segmentation,
)
from tests.helpers.commands import relume_command, sentence
from tests.helpers.heads import headed

OPENED = Opened("a network", headed("classes").float(), Preprocessing(8, 8), ("cat", "dog, hound", "mouse", "owl"))

READ = {
    "probability:dog": Probability(1),
    "probability": Probability(),
    "binary:no": Binary(False),
    "regression:down": Regression("down"),
    "regression:-2.5": Regression(-2.5),
    "contrast:cat:dog": Contrast(0, 1),
    "contrast:cat:2,owl:0.5": Contrast(0, [2, 3], 0.5),
    "contrast::nearest3": Contrast(None, Nearest(3)),
    "segmentation:15": Segmentation(15),
    "detection:17": Detection(17),
    "detection:": Detection(),
    "detection:owl:index=4": Detection(3, index=4),
    "detection:3:box=1,2,30,40.5": Detection(3, box=(1.0, 2.0, 30.0, 40.5)),
    "detection:3:sum": Detection(3, reduce="sum"),
    "channel:layer4.0:7": Channel("layer4.0", 7),
    "channel:stem:0-8": Channel("stem", slice(0, 8)),
    "neuron:stem:7:3,5": Neuron("stem", 7, (3, 5)),
    "neuron:stem:0-2:1-4,5": Neuron("stem", slice(0, 2), (slice(1, 4), 5)),
    "neuron:stem:7": Neuron("stem", 7),
}


@pytest.mark.parametrize("text", READ)
def test_a_question_is_the_target_that_it_says(text):
    got, expected = parse_question(text, OPENED), READ[text]
    assert type(got) is type(expected)
    for field in dataclasses.fields(expected):
        assert getattr(got, field.name) == getattr(expected, field.name)


def test_an_embedding_is_that_of_the_photo(tmp_path):
    photo = draw_scene(0).picture
    photo.save(tmp_path / "a:b.png")
    expected = OPENED.model(OPENED.preprocessing.tensor(OPENED.preprocessing.view(photo))[None])[0]
    for text, kind in (("", "cosine"), (":dot", "dot"), (":cosine", "cosine")):
        got = parse_question(f"embedding:{tmp_path / 'a:b.png'}{text}", OPENED)
        assert isinstance(got, Embedding)
        assert got.kind == kind
        torch.testing.assert_close(got.vector, expected)
    with pytest.raises(ImageError, match="there is no file"):
        parse_question("embedding:none.png", OPENED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dog", "--ask is KIND:ARGS, with a kind of probability, binary, .*; got 'dog'"),
        ("segmentation:zebra", "no class is called 'zebra'"),
        *((f"{kind}:{wrong}", f"--ask {kind} is written {kind}:") for kind, wrong in (
            ("binary", "maybe"), ("regression", "sideways"), ("contrast", "1"), ("contrast", "1:2:3:4"), ("embedding", ""),
            ("segmentation", ""), ("detection", "1:box=1,x"), ("detection", "1:most"), ("channel", "7"), ("channel", "a:b"),
            ("neuron", "stem"), ("neuron", "stem:1:2:3"),
        )),
    ],
)  # fmt: skip
def test_what_is_no_question_gets_one_sentence(text, says):
    with pytest.raises(TargetError, match=says):
        parse_question(text, OPENED)


def test_the_kinds_are_those_that_are_written():
    assert all(form.startswith(kind) for kind, (form, _) in QUESTIONS.items())
    assert {text.partition(":")[0] for text in READ} | {"embedding"} == set(QUESTIONS)


def test_the_command_asks(tmp_path):
    photo = tmp_path / "scene.png"
    draw_scene(0, ["cat"]).picture.save(photo)
    asked = ["--ask", "contrast:cat:nearest2", "--ask", f"embedding:{photo}", "--target", "dog"]
    for command in ("explain", "compare"):
        output = ["--output", str(tmp_path / command), "--method", "gradient", "--evidence", "none"]
        result = relume_command(command, str(photo), *asked, *output)
        assert result.exit_code == 0, result.output
        assert "cat (4) rather than" in result.output
        assert "cosine with the reference, score 1" in result.output
    names = {path.name.partition("-rather")[0] for path in (tmp_path / "explain" / "scene").iterdir()}
    assert names == {"6-dog", "cat-4", "cosine-with-the-reference", "overview.png"}
    options = ["--checks", "edges", "--method", "gradient", "--output", str(tmp_path / "audit")]
    result = relume_command("audit", str(photo), "--ask", "probability:cat", *options)
    assert result.exit_code == 0, result.output
    assert "cat (4)" in result.output
    for args, says in (
        (
            ["explain", "--ask", "segmentation:1"],
            "returns (N, 12): relume.targets.Class(11) (--target 11 in the command)",
        ),
        (["explain", "--ask", "binary:yes", "--versus", "dog"], "--versus contrasts classes"),
        (["audit", "--ask", "binary:yes", "--target", "dog"], "give --target or --ask"),
    ):
        result = relume_command(args[0], str(photo), *args[1:], "--output", str(tmp_path / "none"))
        assert says in sentence(result, 2)


HEADS = """
from tests.helpers.heads import Headed
def multilabel(): return Headed("classes").eval()
def regression(): return Headed("one").eval()
def detector(): return Headed("yolo8").eval()
def embedder(): return Headed("embedding").eval()
def segmenter(): return Headed("pixels").eval()
"""


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "targets.md"
    commands = re.findall(r"^\$ relume (explain .*)$", page.read_text(), flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("heads.py").write_text(HEADS)
    Path("labels.txt").write_text("cat\ndog\nmouse\nowl\n")
    Path("names.txt").write_text("person\ndog\ncar\n")
    for seed, name in enumerate(("photo", "other")):
        draw_scene(seed).picture.save(f"{name}.png")
    shown = ["dog (1)", "the value up", "dog (1) in the box", "cosine with the reference", "class 2 in"]
    for command, words in zip(commands, shown, strict=True):
        result = relume_command(*shlex.split(command), "--method", "gradient", "--evidence", "none")
        assert result.exit_code == 0, result.output
        assert f"{words}" in result.output
