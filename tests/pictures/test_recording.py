"""Recordings: what they hold, what they refuse, and which part of them a network saw."""

import numpy as np
import pytest

from relume.errors import ImageError, InputError
from relume.pictures import Recording


def test_what_is_not_told_is_filled_in():
    clip = Recording(np.zeros((3, 5, 8, 9), np.uint8), "video", limits=(0, 255))
    assert clip.is_colour
    assert (clip.shown, clip.spacing, clip.box) == ((0, 1, 2), (1.0, 1.0, 1.0), ((0.0, 5.0), (0.0, 8.0), (0.0, 9.0)))
    five = Recording(np.zeros((5, 8, 9)), "bands", shown=(3, 2, 1))
    assert not five.is_colour
    assert Recording(np.zeros((5, 8, 9)), "bands").shown == (0,)
    assert five.as_dict()["shown"] == [3, 2, 1]


@pytest.mark.parametrize(
    ("shape", "kind", "facts", "says"),
    [
        ((1, 5), "signal", {"dtype": complex}, "a recording has real numbers; got complex128"),
        ((1, 5, 5), "volume", {}, r"a volume has values \(channels, slices, rows, columns\), one at least of each; got shape"),
        ((1, 0), "signal", {}, r"a signal has values \(channels, places\), one at least of each; got shape \(1, 0\)"),
        ((1, 5), "sound", {}, "a recording is signal, bands, volume, video; got 'sound'"),
        ((1, 5, 5), "bands", {"spacing": (1.0,)}, r"spacing is a number above zero for each of 2 axes; got \(1.0,\)"),
        ((1, 5), "signal", {"spacing": (0.0,)}, "spacing is a number above zero"),
        ((1, 5), "signal", {"shown": (1,)}, "the channels shown are three, for red, green and blue, or one, below 1"),
        ((3, 5), "signal", {"shown": (0, 1)}, "the channels shown are three"),
    ],
)
def test_what_is_no_recording_is_refused(shape, kind, facts, says):
    with pytest.raises(ImageError if "got shape" in says or "complex" in says else InputError, match=says):
        Recording(np.zeros(shape, facts.pop("dtype", float)), kind, **facts)


def test_the_cells_that_the_network_saw_all_of():
    scan = Recording(np.zeros((1, 10, 10, 10)), "volume").within(((-2.0, 3.5), (4.2, 4.6), (2.0, 12.0)))
    assert scan.seen() == (slice(0, 3), slice(4, 5), slice(2, 10))
