"""``relume calibrate``: what it says and writes, and what it refuses."""

import relume
from tests.helpers.commands import relume_command, sentence


def test_what_it_writes_and_says(tmp_path):
    result = relume_command("calibrate", "scenes:16", "--method", "gradcam", "--output", tmp_path / "C")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "right cell heaviest Focus DiPart DiFull Grad-CAM 0.97 ±0.02 1.00" in words
    calibration = relume.Calibration.load(tmp_path / "C")
    assert calibration.sentence("gradcam") in words
    assert calibration.mosaics == 4
    assert "4 mosaics (few) of 256×256 pixels, layer layer3; 16 of 16 pictures were predicted with a probability of" in words
    assert (tmp_path / "C" / "index.html").is_file()
    assert "index.html" in words


def test_what_it_refuses(tmp_path):
    says = sentence(relume_command("calibrate", "scenes:12", "--output", tmp_path / "C"), 2)
    assert "at least 4 mosaics of 4 different classes are needed" in says
    assert not (tmp_path / "C").exists()
