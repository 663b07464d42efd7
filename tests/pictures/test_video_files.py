"""Clips: every frame, upright, and what is too long, cut short or no video in one sentence."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from relume.errors import ImageError
from relume.pictures import read
from relume.pictures.formats import video

CODECS = {"mp4": "libx264", "mov": "mpeg4", "avi": "mpeg4", "mkv": "ffv1", "webm": "libvpx"}


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def clip(name, count=6, size=(48, 64), rotation=0, options=None):
    """Write a grey clip, each frame brighter than the last, with a white corner at the upper left."""
    with av.open(name, "w", options=options or {}) as container:
        stream = container.add_stream(CODECS[Path(name).suffix[1:]], rate=Fraction(25, 2))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(count):
            pixels = np.full((*size, 3), 20 + 20 * i % 200, np.uint8)
            pixels[:16, :16] = 235
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", CODECS)
def test_every_frame_of_a_clip_is_read_in_order(suffix, capfd):
    clip(f"clip.{suffix}")
    recording = read(f"clip.{suffix}")
    assert (recording.kind, recording.values.shape, recording.unit) == ("video", (3, 6, 48, 64), "s")
    assert recording.spacing == pytest.approx((0.08, 1, 1))
    assert recording.is_colour
    expected = 20 + 20 * np.arange(6)
    np.testing.assert_allclose(recording.values[:, :, 40, 40], np.broadcast_to(expected, (3, 6)), atol=4)
    assert (recording.values[:, :, :12, :12] > 200).all()
    assert recording.grid.suffix == ".npy"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("rotation", "row", "column"), [(90, -8, 8), (-90, 8, -8), (180, -8, -8)])
def test_a_clip_of_a_turned_camera_is_upright(rotation, row, column):
    """The white corner turns to the left by so many degrees."""
    clip("clip.mp4", rotation=rotation)
    values = read("clip.mp4").values
    assert values.shape == (3, 6, *((48, 64) if rotation == 180 else (64, 48)))
    assert (values[:, :, row, column] > 200).all()
    assert (values[:, :, -row, -column] < 200).all()


def test_a_clip_that_is_too_long_is_one_sentence(monkeypatch):
    clip("clip.mp4")
    monkeypatch.setattr(video, "_MOST_FRAMES", 5)
    with pytest.raises(
        ImageError, match="^'clip.mp4': it has more than 5 frames of 64 × 48, and a clip is read whole; cut out"
    ):
        read("clip.mp4")
    monkeypatch.undo()


def test_a_clip_without_a_count_of_frames_may_be_cut_short():
    clip("clip.mkv", 60)
    assert read("clip.mkv").notes == ()
    content = Path("clip.mkv").read_bytes()
    Path("clip.mkv").write_bytes(content[: len(content) // 2])
    recording = read("clip.mkv")
    seconds = recording.size[0] * 0.08
    assert recording.notes == (f"its pictures end after {seconds:.1f} of 4.8 seconds, so it may be cut short",)


def test_a_damaged_clip_is_one_sentence(capfd):
    clip("front.mp4", 60, options={"movflags": "faststart"})
    clip("end.mp4")
    clip("front.avi", 60)
    with av.open("sound.mkv", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name in ("front.mp4", "end.mp4", "front.avi"):
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: int(0.7 * len(content))])
    Path("text.mp4").write_text("hello" * 99)
    Path("list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nother.mp4\n")
    other = "it is damaged, cut short, or no video of MP4, AVI, Matroska or WebM: .*; convert it"
    for name, words in {
        "front.mp4": other,
        "end.mp4": other,
        "text.mp4": other,
        "list.mp4": other,
        "front.avi": "it is cut short or damaged after .. frames; copy it again, or convert it",
        "sound.mkv": "it holds no video; give a clip with pictures",
    }.items():
        with pytest.raises(ImageError, match=f"^'{name}': {words}") as caught:
            read(name)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
