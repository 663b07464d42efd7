"""Video drawn: frames evenly spread, the strongest among them and framed, each with the map of its moment."""

import numpy as np

from relume.pictures.kinds import KINDS
from relume.pictures.montage import MARK, DrawnMap
from relume.pictures.recording import Recording
from relume.pictures.video import frames, strongest_frame, video

CLIP = Recording(np.zeros((3, 24, 20, 30), np.uint8), "video", spacing=(0.04, 1, 1), unit="s", limits=(0, 255))


def drawn(*places, count=24):
    values = np.zeros((3, count, 20, 30), np.float32)
    for frame, value in places:
        values[1, frame, 4:10, 20:26] = value
    return DrawnMap(KINDS["over"], values, 1.0)


def framed(picture):
    mark = tuple(int(MARK[i : i + 2], 16) for i in (1, 3, 5))
    return np.argwhere((np.asarray(picture) == mark).all(axis=2))


def test_frames_are_spread_and_the_strongest_takes_the_place_of_its_neighbour():
    assert frames(CLIP) == (1, 4, 7, 10, 13, 16, 19, 22)
    assert frames(CLIP, drawn((11, -1), (3, 0.9))) == (1, 4, 7, 11, 13, 16, 19, 22)
    assert frames(CLIP.within(((10, 14), (0, 20), (0, 30)))) == (10, 11, 12, 13)
    assert frames(Recording(CLIP.values[:, :1], "video")) == (0,)


def test_the_strongest_frame_is_counted_in_the_recording():
    assert strongest_frame(CLIP, drawn()) is None
    half = drawn((2, 1), count=6)  # a map of every second frame between 8 and 20
    assert strongest_frame(CLIP.within(((8, 20), (0, 20), (0, 30))), half) == 13


def test_only_the_strongest_is_framed_and_shows_its_own_map():
    picture = video(CLIP, drawn((11, 1)), frames(CLIP, drawn((11, 1))), 800)
    assert max(picture.size) <= 800
    rows, columns = framed(picture).T
    assert columns.min() > 0.74 * picture.width  # the last of the first row
    assert rows.max() < 0.55 * picture.height
    bright = np.argwhere(np.asarray(picture)[..., 0].astype(int) - np.asarray(picture)[..., 2] > 60)
    assert rows.min() <= bright.min(0)[0]
    assert columns.min() <= bright.min(0)[1]
    assert not len(framed(video(CLIP, None, frames(CLIP), 800)))
