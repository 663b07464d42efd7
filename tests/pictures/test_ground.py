"""The ground of a map: what an input without a photo is taken for, and pictures of bands."""

import numpy as np
import pytest

from relume import errors
from relume.pictures.ground import bands_photo, bar, cut, draw, ground_of, share_beyond, words
from relume.pictures.kinds import KINDS
from relume.pictures.montage import DrawnMap
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording

GENERATOR = np.random.default_rng(2)
BANDS = Recording(GENERATOR.normal(1000, 300, (5, 8, 12)).astype(np.float32), "bands", shown=(3, 2, 0))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((2, 9), "signal"), ((1, 9, 9), "bands"), ((5, 9, 9), "bands"), ((3, 9, 9), None), ((3, 9, 9, 9), "volume")],
)
def test_an_input_is_taken_for_what_its_axes_say(shape, kind):
    assert getattr(ground_of(np.zeros(shape, np.float32)), "kind", None) == kind


@pytest.mark.parametrize("shape", [(7,), (1, 2, 3, 4, 5)])
def test_other_inputs_are_not_drawn(shape):
    with pytest.raises(errors.InputError, match="one to three spatial axes"):
        ground_of(np.zeros(shape, np.float32))


def test_of_channels_that_are_no_colours_the_first_is_grey_from_its_lowest_to_its_highest():
    image = GENERATOR.normal(size=(4, 6, 6)).astype(np.float32)
    first = (image[0] - image[0].min()) / np.ptp(image[0])
    ground = ground_of(image)
    assert np.abs(np.asarray(draw(ground)) - 255 * first[..., None]).max() <= 0.51
    assert words(ground, (), "it") == "channel 0 in grey, of 4, counted from 0"


def test_three_bands_are_shown_each_in_its_own_range():
    pixels = np.asarray(bands_photo(BANDS).picture) / 255
    for channel, band in enumerate((3, 2, 0)):
        low, high = np.percentile(BANDS.values[band], (0.5, 99.5))
        expected = np.clip((BANDS.values[band] - low) / (high - low), 0, 1)
        assert np.abs(pixels[..., channel] - expected).max() < 0.004
    assert words(BANDS, cut(BANDS), "it") == "channels 3, 2, 0 as red, green and blue, of 5, counted from 0"


def test_bands_are_drawn_as_a_photo_is_with_square_pixels():
    recording = Recording(BANDS.values, "bands", spacing=(2, 1), box=((2, 8), (0, 12)))
    photo = bands_photo(recording)
    assert (photo.picture.size, photo.box) == ((12, 16), (0, 4, 12, 16))
    drawn = DrawnMap(KINDS["over"], GENERATOR.normal(size=(5, 6, 12)).astype(np.float32), 1.0)
    expected = KINDS["over"].draw(drawn.values, 1.0, photo)
    assert np.array_equal(np.asarray(draw(recording, drawn)), np.asarray(expected))
    assert draw(recording, drawn, size=8).size == (6, 8)


def test_the_share_beyond_the_edges_is_counted_in_every_number_of_axes():
    saliency = np.ones((4, 4, 4))
    volume = Recording(np.zeros((1, 4, 4, 4), np.float32), "volume", box=((-4, 4), (0, 4), (2, 6)))
    assert share_beyond(saliency, volume) == pytest.approx(0.75)
    assert share_beyond(np.zeros((4, 4, 4)), volume) == 0
    photo = Photo(bands_photo(BANDS).picture, (0, -8, 12, 8))
    assert share_beyond(saliency[0], photo) == pytest.approx(0.5)


def test_a_bar_has_the_colours_of_its_ground():
    signal, volume = (Recording(np.zeros((1, *[4] * n), np.float32), kind) for n, kind in ((1, "signal"), (3, "volume")))
    assert bar(volume, KINDS["over"]).tobytes() == KINDS["over"].bar().tobytes()
    assert bar(signal, KINDS["over"]).getpixel((0, 0)) == (153, 153, 153)
    assert bar(volume, KINDS["contours"]) is None
