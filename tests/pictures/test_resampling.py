"""From recordings to inputs: cells stay where they are, values become what the network expects."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from relume.errors import ImageError, InputError
from relume.pictures import Preprocessing, Recording

AS_IS = {"mean": (0.0,), "std": (1.0,)}
KINDS = {1: "signal", 2: "bands", 3: "volume"}


def places(*sides):
    """A recording with a channel for each axis, whose values are the places of its cells."""
    values = np.stack(np.meshgrid(*[np.arange(side) + 0.5 for side in sides], indexing="ij"))
    return Recording(values, KINDS[len(sides)])


@pytest.mark.parametrize(
    ("sides", "changes"),
    [
        ((40,), {"spacing": (0.5,), "crop": 30}),
        ((20, 30), {"resize": 40, "crop": (24, 50)}),
        ((12, 20, 16), {"spacing": (0.5, 1.0, 0.25), "crop": (10, 8, 12)}),
        ((12, 20, 16), {"resize": (24, 20, 40), "crop": 18}),
    ],
)
def test_every_cell_of_the_input_shows_the_place_that_the_box_says(sides, changes):
    framed, image = Preprocessing(**{"resize": None, "crop": None, **AS_IS, **changes}).prepare(places(*sides))
    assert image.dtype == torch.float64
    for axis, ((low, high), side) in enumerate(zip(framed.box, image.shape[1:], strict=True)):
        expected = low + (np.arange(side) + 0.5) * (high - low) / side
        seen = image[axis].movedim(axis, -1).reshape(-1, side)
        assert np.allclose(seen, expected, atol=1e-9), (axis, seen[0], expected)


@pytest.mark.parametrize("sides", [(7,), (7, 9), (5, 6, 7)])
def test_enlarging_is_linear_interpolation_as_of_torch(sides):
    values = np.random.default_rng(0).normal(size=(2, *sides)).astype(np.float32)
    wanted = tuple(2 * side + 1 for side in sides)
    _, image = Preprocessing(wanted, None, **AS_IS).prepare(Recording(values, KINDS[len(sides)]))
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sides)]
    assert torch.allclose(image, F.interpolate(torch.from_numpy(values)[None], wanted, mode=mode)[0], atol=1e-6)


def test_window_mean_and_deviation_in_this_order():
    scan = Recording(np.array([[-1000.0, -150.0, 50.0, 250.0, 3000.0]], np.float32), "signal")
    _, image = Preprocessing(None, None, mean=(0.5,), std=(0.25,), window=(-150, 250)).prepare(scan)
    assert image.tolist() == [[-2.0, -2.0, 0.0, 2.0, 2.0]]


def test_the_bands_that_the_network_takes_in_its_order():
    image = Recording(np.arange(5.0)[:, None, None].repeat(2, 1), "bands")
    _, tensor = Preprocessing(None, None, mean=(1.0, 2.0), std=(1.0, 2.0), bands=(4, 2)).prepare(image)
    assert tensor[:, 0, 0].tolist() == [3.0, 0.0]


def test_where_nothing_was_recorded_the_input_is_zero():
    values = np.full((2, 4, 4), 7.0)
    values[:, 1:3, 1:3] = np.nan
    _, image = Preprocessing(None, None, mean=(5.0, 6.0), std=(2.0, 1.0)).prepare(Recording(values, "bands"))
    assert (image[:, 1:3, 1:3] == 0).all()
    assert image[:, 0, 0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("window", "beyond"), [(None, 0.0), ((-100.0, 100.0), 0.0)])
def test_beyond_the_recording_it_is_black(window, beyond):
    framed, image = Preprocessing(None, 4, **AS_IS, window=window).prepare(Recording(np.full((1, 2, 2, 2), 50.0), "volume"))
    assert framed.box == ((-1.0, 3.0),) * 3
    assert float(image[0, 0, 0, 0]) == beyond
    assert float(image[0, 1, 1, 1]) == (50.0 if window is None else 0.75)


def test_the_frames_of_a_clip_are_resized_and_their_number_stays():
    clip = Recording(np.full((3, 7, 20, 30), 255, np.uint8), "video", limits=(0, 255))
    framed, image = Preprocessing(10, 8, mean=(0.5,) * 3, std=(0.5,) * 3).prepare(clip)
    assert image.shape == (3, 7, 8, 8)
    assert image.unique().tolist() == [1.0]
    assert framed.box[0] == (0.0, 7.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bands": (5,)}, "there is no band 5 in a recording of 2, counted from 0"),
        ({"mean": (0.0,) * 3, "std": (1.0,) * 3}, "gives 2 channels, and mean and std are for 3; give as many values"),
        ({"spacing": (1.0, 1.0)}, "spacing has 2 numbers, and a volume 3 axes; give one for each"),
        ({"resize": 8, "interpolation": "lanczos"}, "recordings are resized by nearest, bilinear, bicubic; got .*lanczos"),
    ],
)
def test_what_does_not_fit_is_a_sentence(changes, says):
    with pytest.raises(ImageError, match=says):
        Preprocessing(**{"resize": None, "crop": None, **AS_IS, **changes}).prepare(Recording(np.zeros((2, 4, 4, 4)), "volume"))
    with pytest.raises(InputError, match="crop has 3 numbers, 4, 4, 4, and this has 1 axes"):
        Preprocessing(None, (4, 4, 4), **AS_IS).prepare(Recording(np.zeros((1, 9)), "signal"))


def test_the_lines_of_a_signal_are_the_channels_that_the_network_takes():
    """So the map of the network's first channel is drawn on the channel that it took, not on the first of the file."""
    values = np.random.default_rng(0).normal(size=(12, 40))
    framed, image = Preprocessing(None, None, bands=(8, 7), **AS_IS).prepare(Recording(values, "signal"))
    assert np.array_equal(image, values[[8, 7]])
    assert np.array_equal(framed.values, values[[8, 7]])
    assert framed.bands == (8, 7)
