"""What goes wrong with one photo, with every photo, inside the user's network and inside relume: a sentence and a code."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import relume.cli
from relume.cli.failures import uninterrupted
from relume.errors import OutputError
from relume.models.opened import ASSUMED
from relume.pages.folder import write_folder
from relume.pictures.photo import Photo, load_photo
from tests.helpers.commands import complaints, relume_command, sentence

NETWORK = """
import logging, os, signal, warnings
import torch
from torch import nn

class Moody(nn.Module):
    calls = 0

    def __init__(self, fails="never", after=0):
        super().__init__()
        channels = 1 if fails == "grey" else 3
        self.conv, self.fc, self.fails, self.after = nn.Conv2d(channels, 4, 3), nn.Linear(4, 3), fails, after
        with torch.no_grad():
            self.conv.weight.copy_(torch.linspace(-1, 1, self.conv.weight.numel()).view_as(self.conv.weight))
            self.fc.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 0, 0, 0]]))
            self.fc.bias.zero_()

    def forward(self, x):
        Moody.calls += 1
        if self.fails == "dark" and x.mean((1, 2, 3)).min() < -1.8:
            raise KeyError("dark")
        if self.fails == "exits" and x.mean((1, 2, 3)).min() < -1.8:
            raise SystemExit(3)
        if self.fails == "always exits":
            raise SystemExit(0)
        if self.fails == "always":
            raise IndexError("list index out of range")
        if self.fails == "memory" and x.mean((1, 2, 3)).min() < -1.8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if self.fails == "interrupted" and Moody.calls > self.after:
            os.kill(os.getpid(), signal.SIGINT)
        if self.fails == "warns":
            warnings.warn("the axis is odd", stacklevel=1)
            logging.getLogger("moody").error("the axis is odd")
        if self.fails == "features":
            return self.conv(x).relu()
        return self.fc(self.conv(x).relu().mean((2, 3)))

def typed(dtype):
    return Moody().to(getattr(torch, dtype))

def broken(kind):
    if kind == "division":
        return 1 / 0
    raise SystemExit(3)
"""

SMALL = ["--resize", "32", "--crop", "32"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A light, a dark and a striped photo, and the module of the network beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "moody", raising=False)
    (tmp_path / "moody.py").write_text(NETWORK)
    (tmp_path / "photos").mkdir()
    for name, shade in (("light", 250), ("dark", 0), ("grey", 128)):
        Image.new("RGB", (40, 40), (shade,) * 3).save(tmp_path / "photos" / f"{name}.png")
    return [Path("photos") / f"{name}.png" for name in ("light", "dark", "grey")]


def moody(command, *args, fails="never", **more):
    model = ["--model", "moody:Moody", "--model-args", json.dumps({"fails": fails, **more}), *SMALL]
    return relume_command(command, *args, *model)


def line_of(text):
    return next(number for number, line in enumerate(NETWORK.splitlines(), 1) if text in line)


CHEAP = {
    "explain": ["--method", "gradient"],
    "compare": ["--method", "gradient"],
    "audit": ["--method", "gradient", "--checks", "edges"],
}


# --- One photo -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", CHEAP)
def test_a_photo_that_the_network_fails_on_is_a_line_and_all_others_are_done(photos, command):
    result = moody(command, photos[1], *photos, *CHEAP[command], fails="dark")
    assert result.exit_code == 1, result.output
    done = "audited" if command == "audit" else "explained"
    executed, _, *said = complaints(result)
    assert executed == "moody:Moody was imported and run"
    place = f"moody.py:{line_of('raise KeyError')}"
    ran = "(raised by the network, which relume ran on an input of shape (1, 3, 32, 32))"
    assert said == [
        f"relume: 'photos/dark.png': the network failed: KeyError: 'dark' at {place} {ran}; --traceback shows the way there",
        f"relume: 1 of 3 photos could not be {done}",
    ]
    for name in ("light", "grey"):
        assert f"{name}.png" in result.stdout
    assert "dark.png" not in result.stdout


@pytest.mark.parametrize("command", CHEAP)
def test_a_network_that_ends_the_program_for_one_photo_is_a_line(photos, command):
    result = moody(command, photos[1], *photos, *CHEAP[command], fails="exits")
    assert result.exit_code == 1, result.output
    ran = "(raised by the network, which relume ran on an input of shape (1, 3, 32, 32))"
    assert complaints(result)[-2] == (
        f"relume: 'photos/dark.png': the network failed: it ended the program (SystemExit: 3) at "
        f"moody.py:{line_of('raise SystemExit(3)')} {ran}; --traceback shows the way there"
    )
    for name in ("light", "grey"):
        assert f"{name}.png" in result.stdout


@pytest.mark.parametrize("command", [["explain", "photos"], ["compare", "photos"], ["audit", "photos"]])
def test_a_network_that_always_ends_the_program_is_a_failure(photos, command):
    result = moody(*command, fails="always exits")
    assert result.exit_code == 2
    assert "the network failed: it ended the program (SystemExit: 0) at moody.py:" in complaints(result)[2]
    assert complaints(result)[-1].startswith("relume: 3 of 3 photos could not be")


def test_a_photo_of_the_class_that_is_contrasted_is_a_line(photos):
    """Photos are of one class here and of another there; also where the first of them fails."""
    classes = {}
    for photo in photos:
        moody("explain", photo, *CHEAP["explain"])
        classes[photo] = json.loads(next(Path("out", photo.stem).rglob("explanation.json")).read_text())["samples"][0]["target"]
    versus = classes[photos[0]]
    alike = [photo for photo in photos if classes[photo] == versus]
    assert 0 < len(alike) < 3
    result = moody("explain", *photos, "--versus", versus, *CHEAP["explain"], "--output", "versus")
    assert result.exit_code == 1
    said = [line for line in complaints(result) if line.startswith("relume: ")]
    assert len(said) == len(alike) + 1
    assert said[0].startswith(f"relume: 'photos/light.png': class {versus} is contrasted with itself")
    assert said[-1] == f"relume: {len(alike)} of 3 photos could not be explained"
    Path("labels.txt").write_text("a\nb\nc")
    result = moody("explain", *photos, "--versus", versus, *CHEAP["explain"], "--labels", "labels.txt", "--output", "versus")
    assert f"class {versus} ({'abc'[versus]}) is contrasted with itself, which explains nothing" in result.stderr
    assert {folder.name for folder in Path("versus").iterdir()} == {photo.stem for photo in photos} - {p.stem for p in alike}


def test_memory_that_runs_out_for_a_photo_is_a_line(photos, monkeypatch):
    def load(path):
        if path.name == "light.png":
            raise MemoryError
        return load_photo(path)

    monkeypatch.setattr("relume.pictures.formats.table.load_photo", load)
    result = moody("explain", *photos, *CHEAP["explain"], fails="memory")
    assert result.exit_code == 1
    said = complaints(result)[-3:]
    less = "a smaller --crop needs less, and so do fewer methods or targets"
    assert said[0] == f"relume: 'photos/light.png': memory ran out (MemoryError); {less}"
    assert said[1].startswith(
        "relume: 'photos/dark.png': memory ran out (RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried"
    )
    assert [folder.name for folder in Path("out").iterdir()] == ["grey"]


def test_a_picture_with_masks_that_the_network_fails_on_is_left_out(photos):
    Image.new("L", (40, 40), 255).save("photos/mask.png")
    lines = [f"{photo.name},mask.png,1" for photo in photos]
    Path("photos/masks.csv").write_text("\n".join(["picture,mask,class", *lines]))
    result = moody("evaluate", "--data", "photos", "--method", "gradient", "--output", "out", fails="dark")
    assert result.exit_code == 1, result.output
    assert complaints(result)[-2].startswith("relume: 'dark.png': the network failed: KeyError: 'dark' at moody.py:")
    assert complaints(result)[-1] == "relume: 1 of 3 photos could not be used"
    facts = json.loads(Path("out/evaluation.json").read_text())
    assert facts["samples"] == 2
    assert [reason.partition(":")[0] for reason in facts["skipped"]] == ["'dark.png'"]


def test_labels_are_checked_on_a_picture_that_may_fail(photos):
    Path("labels.txt").write_text("a\nb\nc")
    result = moody("audit", photos[0], *CHEAP["audit"], "--labels", "labels.txt", fails="dark")
    assert result.exit_code == 0, result.output
    Path("labels.txt").write_text("a\nb")
    result = moody("audit", photos[0], *CHEAP["audit"], "--labels", "labels.txt")
    assert result.exit_code == 2
    assert "2 labels were given for a network of 3 classes" in complaints(result)[-1]


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_network_of_another_dtype_gets_its_photos_in_it(photos, dtype):
    model = ["--model", "moody:typed", "--model-args", json.dumps({"dtype": dtype}), *SMALL]
    for command, cheap in CHEAP.items():
        result = relume_command(command, *photos, *cheap, *model, "--output", command)
        assert result.exit_code == 0, result.output
    tensors = load_file(next(Path("explain/light").glob("*/tensors.safetensors")))
    wide = moody("explain", photos[0], *CHEAP["explain"], "--output", "wide")
    assert wide.exit_code == 0
    expected = load_file(next(Path("wide/light").glob("*/tensors.safetensors")))
    assert tensors["images"].dtype is tensors["scores"].dtype is getattr(torch, dtype)
    torch.testing.assert_close(tensors["images"].float(), expected["images"], rtol=2**-8, atol=0)
    torch.testing.assert_close(tensors["scores"].float(), expected["scores"], rtol=0.05, atol=0.02)
    result = relume_command("check", "moody:typed", *model[2:], "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["dtype"] == dtype
    Image.new("L", (40, 40), 255).save("photos/mask.png")
    Path("photos/masks.csv").write_text("picture,mask,class\nlight.png,mask.png,1")
    result = relume_command("evaluate", "--data", "photos", "--method", "gradient", *model)
    assert result.exit_code == 0, result.output
    result = relume_command("explain", photos[0], *CHEAP["explain"], *model, "--prepare", "--output", "prepared")
    assert result.exit_code == 0, result.output


def test_a_prepared_network_takes_what_it_took(photos):
    result = moody("explain", photos[0], *CHEAP["explain"], "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    tensors = load_file(next(Path("out/light").glob("*/tensors.safetensors")))
    assert tensors["images"].dtype is tensors["scores"].dtype is torch.float32


# --- Every photo ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", CHEAP)
def test_what_is_so_for_every_photo_is_said_once(photos, command):
    result = moody(command, *photos, *CHEAP[command], "--target", "7", fails="dark")
    assert result.exit_code == 2
    said = [line for line in complaints(result) if line.startswith("relume: ")]
    assert said == ["relume: class 7 is out of range: the network has 3 classes, 0 to 2"]
    assert not Path("out").exists()


def test_a_network_that_always_fails_is_not_repeated(photos):
    result = moody("explain", *photos, fails="always")
    assert result.exit_code == 2
    first, *others = complaints(result)[2:]
    assert first.startswith("relume: 'photos/light.png': the network failed: IndexError: list index out of range at moody.py:")
    assert others == [
        "relume: 'photos/dark.png': the same",
        "relume: 'photos/grey.png': the same",
        "relume: 3 of 3 photos could not be explained",
    ]


@pytest.mark.parametrize(
    ("fails", "options", "says"),
    [
        ("grey", [], "one value of --mean and one of --std make photos grey, and --bands names the channels that it takes"),
        ("features", [], "relume.targets.Segmentation(3) (--ask segmentation:3 in the command)"),
        ("never", ["--scores", "logits"], "the network returned one tensor and nothing called 'logits'; leave --scores away"),
    ],
)
def test_advice_is_about_options_and_not_about_python(photos, fails, options, says):
    said = complaints(moody("explain", photos[0], *CHEAP["explain"], *options, fails=fails))[2]
    assert said.endswith(says)
    assert "callable" not in said


# --- Relume itself -------------------------------------------------------------------------------------------------------


def test_a_fault_in_relume_is_a_sentence_with_a_code_of_its_own(photos, monkeypatch):
    monkeypatch.setattr("relume.explanation.comparison.compare", None)
    result = moody("explain", *photos)
    assert result.exit_code == 70
    assert re.fullmatch(
        r"relume: TypeError: 'NoneType' object is not callable at \S*relume/models/opened.py:\d+: this is a fault in relume; "
        "run again with --traceback, and report what it says",
        complaints(result)[-1],
    )


def test_a_fault_in_relume_on_one_photo_is_a_line(photos, monkeypatch):
    monkeypatch.setattr(
        "relume.pictures.formats.table.load_photo",
        lambda path: Photo(None, (0, 0, 1, 1)) if path.name == "dark.png" else load_photo(path),
    )
    shown = moody("explain", *photos, *CHEAP["explain"])
    assert shown.exit_code == 1
    said = complaints(shown)[-2]
    assert said.startswith("relume: 'photos/dark.png': AttributeError: 'NoneType' object has no attribute 'height' at ")
    assert said.endswith(": this is a fault in relume; run again with --traceback, and report what it says")
    assert {folder.name for folder in Path("out").iterdir()} == {"light", "grey"}


# --- Tracebacks and warnings ---------------------------------------------------------------------------------------------


def test_the_traceback_is_shown_where_it_is_asked_for(photos):
    plain, shown = (moody("explain", photos[1], *more, fails="dark") for more in ([], ["--traceback"]))
    assert "Traceback" not in plain.output
    lines = shown.stderr.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("relume: "))
    assert lines[first + 1] == "Traceback (most recent call last):"
    assert '    raise KeyError("dark")' in lines
    assert shown.exit_code == plain.exit_code == 2 - 1


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "division",
            r"the network failed: ZeroDivisionError: division by zero at moody.py:\d+ \(raised by the code of moody:broken",
        ),
        ("exit", "'moody:broken' ended the program when it was imported or called; put what a script does under"),
    ],
)
def test_a_factory_that_fails_is_a_sentence(photos, kind, says):
    args = ["--model", "moody:broken", "--model-args", json.dumps({"kind": kind})]
    for command in (["explain", photos[0], *args], ["check", *args[1:]]):
        assert re.search(says, sentence(relume_command(*command), 2))


def test_a_module_that_is_no_python_is_a_sentence(photos, monkeypatch):
    monkeypatch.delitem(sys.modules, "slip", raising=False)
    Path("slip.py").write_text("x = 1\ndef make(:\n")
    said = sentence(relume_command("check", "slip:make"), 2)
    assert re.fullmatch(
        r"relume: the network failed: SyntaxError: .* at slip.py:2 \(raised by the code of slip:make\); .*", said
    )


def test_warnings_and_logs_of_a_network_stay_hidden(photos, capfd):
    result = moody("explain", photos[0], *CHEAP["explain"], fails="warns")
    assert result.exit_code == 0, result.output
    assert complaints(result) == [
        "moody:Moody was imported and run",
        ASSUMED,
    ]
    assert "odd" not in result.output
    assert capfd.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="the axis is odd"):
        moody("explain", photos[0], *CHEAP["explain"], "--traceback", fails="warns")


def test_warnings_of_c_code_stay_hidden(monkeypatch):
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    monkeypatch.setattr(relume.cli, "app", lambda: None)
    relume.cli.main()
    assert os.environ.pop("TORCH_CPP_LOG_LEVEL") == "ERROR"


# --- Interruptions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def _heeded():
    """A process that was started in the background ignores interruptions, and so do those that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(*args, after):
    """The words and options of a command whose network interrupts it once it ran ``after`` times."""
    model = ["--model", "moody:Moody", "--model-args", json.dumps({"fails": "interrupted", "after": after})]
    return [*map(str, args), *model, *SMALL]


@pytest.mark.usefixtures("_heeded")
def test_an_interrupted_run_counts_what_is_written(photos):
    explain = ["explain", *photos, "--evidence", "none", *CHEAP["explain"], "--batch-size"]
    result = relume_command(*interrupted(*explain, 2, "--output", "two", after=1))
    assert result.exit_code == 130
    assert complaints(result)[-1] == "relume: stopped after 2 of 3 photos; their results are in 'two'"
    command = [sys.executable, "-m", "relume", *interrupted(*explain, 1, after=2)]  # in a process of its own, as a user runs it
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 130, ran.stderr
    assert "Traceback" not in ran.stderr
    assert [line for line in ran.stderr.splitlines() if line.startswith("relume: ")] == [
        "relume: stopped after 2 of 3 photos; their results are in 'out'"
    ]
    assert {folder.name for folder in Path("out").iterdir()} == {"light", "dark"}
    assert "photos/light.png" in ran.stdout
    assert "photos/grey.png" not in ran.stdout


@pytest.mark.usefixtures("_heeded")
@pytest.mark.parametrize("command", ["compare", "audit", "evaluate"])
def test_other_commands_that_are_interrupted_write_nothing(photos, command):
    Image.new("L", (40, 40), 255).save("photos/mask.png")
    Path("photos/masks.csv").write_text("picture,mask,class\nlight.png,mask.png,1\ngrey.png,mask.png,1")
    args = ["--data", "photos", "--method", "gradient"] if command == "evaluate" else [*photos, *CHEAP[command]]
    args += ["--batch-size", 1] if command == "compare" else []
    result = relume_command(*interrupted(command, *args, after=1))
    assert result.exit_code == 130
    assert [line for line in complaints(result) if line.startswith("relume: ")] == ["relume: stopped; nothing was written"]
    assert not Path("out").exists()


@pytest.mark.usefixtures("_heeded")
def test_an_interruption_waits_for_what_is_being_written(tmp_path):
    def write():
        signal.raise_signal(signal.SIGINT)
        write_folder(tmp_path / "out", {"a": b"a", "b": b"b"})
        done.append(True)

    done = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        write()
    assert done
    assert signal.getsignal(signal.SIGINT) is before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b"]
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the second is not held back
        pytest.fail("went on")
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        raise OutputError("no room")


def test_what_is_written_in_another_thread_is_no_matter(tmp_path):
    found = []

    def work():
        with uninterrupted():
            found.append(threading.current_thread())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [thread]


def test_an_interruption_while_a_network_is_opened(monkeypatch):
    def opened(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("relume.models.sources.open_model", opened)
    for command in (["check", "demo"], ["demo"], ["explain", "x.png"], ["evaluate"]):
        assert "stopped; nothing was written" in sentence(relume_command(*command), 130)


@pytest.mark.parametrize("weights", ["pth", "safetensors"])
def test_weights_that_may_not_be_read(photos, monkeypatch, weights):
    path, real = Path(f"weights.{weights}"), Path.open
    torch.save({"a": torch.zeros(2)}, path)

    def refused(self, *args, **options):
        if self.name == path.name:
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    said = sentence(relume_command("explain", photos[0], "--model", "demo", "--weights", path), 2)
    assert f"the weights file '{path}' cannot be read: you have no permission to; change its permissions, or copy it" in said
