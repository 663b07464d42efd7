"""Kinds of picture: by value against a twin that draws pixel by pixel, against golden pictures, and where they put things."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from skimage.color import rgb2lab

from relume.pictures import canvas
from relume.pictures import kinds as render
from relume.pictures.kinds import KINDS
from relume.pictures.photo import Photo, load_photo
from relume.pictures.preprocessing import IMAGENET, Preprocessing
from relume.pictures.scale import Scaling, scale_of
from tests.reference import pictures as twin

GOLDEN = Path(__file__).parents[1] / "golden"
HEAT = colormaps["inferno"]


def scene(width=54, height=40):
    """A photo with structure in every channel."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([128 + 100 * np.sin(x / 6), 128 + 100 * np.cos(y / 5), 40 + 150 * (x > y)], -1)
    return Image.fromarray(rgb.astype(np.uint8))


def bumps(side=24, channels=3):
    """A signed map with a strong, a weak and a negative bump, different in each channel."""
    y, x = np.mgrid[0:side, 0:side] / side
    values = np.zeros((channels, side, side))
    for c in range(channels):
        for cx, cy, height in ((0.3, 0.3, 1.0), (0.7, 0.35, 0.3), (0.6, 0.75, -0.8)):
            values[c] += height * (1 - 0.2 * c) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.01)
    return values.astype(np.float32)


def framed(picture=None):
    """A photo whose sides the network never saw."""
    return Preprocessing(resize=28, crop=24).frame(Photo.whole(picture or scene()))


# --- By value ---------------------------------------------------------------------------------------------------------------


def test_signed_maps_are_colour_about_mid_grey():
    values = np.zeros((3, 1, 3), np.float32)
    values[:, 0, 1] = [0.5, -0.5, 0.25]
    values[:, 0, 2] = [9, -9, 0]
    pixels = np.asarray(render.colour(values, 0.5))
    assert pixels.tolist() == [[[128, 128, 128], [255, 0, 191], [255, 0, 128]]]
    one_channel = np.asarray(render.colour(values[:1], 0.5))
    assert one_channel[0].tolist() == [[128] * 3, [255] * 3, [255] * 3]


def test_the_strongest_channel_keeps_its_sign_and_is_the_saliency():
    values = np.array([[[1.0, -2.0]], [[-3.0, 0.5]]], np.float32)
    assert render.strongest(values).tolist() == [[-3.0, -2.0]]
    assert np.array_equal(np.abs(render.strongest(bumps())), np.abs(bumps()).max(0))


def inked(value, grey, _):
    """Heat over grey, from its definition."""
    strength = min(abs(value), 1)
    opacity = 0.85 * strength**0.6
    return (1 - opacity) * grey + opacity * 255 * np.array(HEAT(strength)[:3])


COLORS = {
    "diverging": lambda value, *_: 255 * np.array(render.DIVERGING((np.clip(value, -1, 1) + 1) / 2)[:3]),
    "positive": lambda value, *_: 255 * np.array(HEAT(np.clip(value, 0, 1))[:3]),
    "negative": lambda value, *_: 255 * np.array(HEAT(np.clip(-value, 0, 1))[:3]),
    "over": inked,
    "masked": lambda value, grey, rgb: twin.dim(grey) + np.clip(value, 0, 1) * (rgb - twin.dim(grey)),
}


@pytest.mark.parametrize("kind", COLORS)
def test_a_picture_on_a_photo_is_the_twins(kind):
    """Values have 255 levels, one of them up to 6 levels of colour: so the tolerance is 8 at a pixel, and 1 on average."""
    values = np.abs(render.strongest(bumps())) if kind in ("over", "masked") else render.strongest(bumps())
    given = values**2 if kind == "masked" else values  # the fade follows the root, which is not linear
    photo = framed()
    expected = twin.picture(np.sqrt(given) if kind == "masked" else given, photo, COLORS[kind])
    difference = np.abs(np.asarray(KINDS[kind].draw(given, 1.0, photo), dtype=np.float64) - expected)
    assert difference.max() <= 8
    assert difference.mean() < 1


def test_colour_on_a_photo_is_the_twins():
    photo, values = framed(), bumps()
    channels = [twin.picture(values[c], photo, lambda v, *_: np.full(3, 127.5 + 127.5 * np.clip(v, -1, 1))) for c in range(3)]
    expected = np.stack([channel[..., 0] for channel in channels], axis=-1)
    assert np.abs(np.asarray(render.colour(values, 1.0, photo), dtype=np.float64) - expected).max() <= 1.5


def test_heat_keeps_the_photo_where_it_is_zero():
    photo = Photo.whole(Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)))
    grey = np.asarray(photo.picture.convert("L"))[..., None].repeat(3, -1)
    assert np.array_equal(np.asarray(render.over(np.zeros((4, 6), np.float32), 1.0, photo)), grey)
    heat = np.zeros((4, 6), np.float32)
    heat[1, 2] = 1
    drawn = np.asarray(render.over(heat, 1.0, photo)).astype(int)
    elsewhere = np.ones((4, 6), bool)
    elsewhere[1, 2] = False
    assert np.array_equal(drawn[elsewhere], grey[elsewhere])
    expected = 0.15 * grey[1, 2] + 0.85 * 255 * np.array(HEAT(1.0)[:3])
    assert np.abs(drawn[1, 2] - expected).max() <= 1


def test_zero_is_exactly_white_and_signs_have_their_colours():
    values = np.array([[-1.0, -0.2, 0.0, 0.2, 1.0]], np.float32)
    blue, pale_blue, zero, pale_red, red = np.asarray(render.diverging(values, 1.0))[0].astype(int)
    assert zero.tolist() == [255, 255, 255]
    assert blue[2] > blue[0] + 50
    assert pale_blue[2] > pale_blue[0]
    assert red[0] > red[2] + 50
    assert pale_red[0] > pale_red[2]


def test_between_red_and_blue_lies_white():
    """Values are interpolated and not their colours: two neighbours of opposite sign have zero between them, not purple."""
    values = np.array([[-1.0, 1.0]], np.float32)
    drawn = np.asarray(render.diverging(values, 1.0, Photo.whole(Image.new("RGB", (201, 1)))))
    assert drawn[0, 100].min() >= 250


@pytest.mark.parametrize(("colors", "falls"), [(render.DIVERGING, True), (render.HEAT, False)], ids=["diverging", "heat"])
def test_colours_grow_evenly_in_lightness(colors, falls):
    """From zero on, lightness (CIELAB) only falls in the diverging map, on both sides alike, and only rises in the heat map."""
    steps = np.linspace(0, 1, 128)
    arms = [0.5 + 0.5 * steps, 0.5 - 0.5 * steps] if falls else [steps]
    lightness = [rgb2lab(colors(arm)[None, :, :3])[0, :, 0] for arm in arms]
    for light in lightness:
        assert (np.diff(light) < 0.05 if falls else np.diff(light) > -0.05).all()
    assert np.abs(lightness[0] - lightness[-1]).max() < 8


def test_positive_and_negative_are_the_two_halves():
    values = bumps()
    flipped = np.asarray(render.negative(-values, 1.0))
    assert np.array_equal(np.asarray(render.positive(values, 1.0)), flipped)
    assert np.array_equal(np.asarray(render.absolute(values, 1.0)), np.asarray(render.positive(np.abs(values), 1.0)))


def test_a_mask_shows_the_photo_where_the_map_is_full_and_nothing_where_it_is_empty():
    picture = scene(24, 24)
    values = np.zeros((24, 24), np.float32)
    values[:, :8] = 1
    drawn, photo = np.asarray(render.masked(values, 1.0, Photo.whole(picture))), np.asarray(picture)
    assert np.array_equal(drawn[:, :8], photo[:, :8])
    faded = drawn[:, 8:].astype(float)
    assert np.ptp(faded, axis=-1).max() == 0
    assert np.abs(faded[..., 0] - twin.dim(np.asarray(picture.convert("L"))[:, 8:].astype(float))).max() <= 1


def test_mass_thresholds_are_the_twins():
    rng = np.random.default_rng(5)
    for values in (rng.standard_normal((6, 7)), rng.integers(0, 3, (5, 5)), np.ones((3, 3)), bumps()[0]):
        shares = [0.1, 0.5, 0.8, 0.99]
        expected = [twin.mass_threshold(values.astype(np.float32), share) for share in shares]
        assert render.mass_thresholds(values.astype(np.float32), shares) == pytest.approx(expected)


def test_contours_lie_where_the_mass_says():
    """Of a cone, the radius that holds half of the mass is known: ``3 r² - 2 r³ = 1/2`` at half of its own radius."""
    side, radius = 200, 80
    y, x = np.mgrid[0:side, 0:side]
    cone = np.maximum(0, 1 - np.hypot(x - 99.5, y - 99.5) / radius).astype(np.float32)
    plain = Photo.whole(Image.new("RGB", (side, side), (90, 90, 90)))
    drawn = np.asarray(render.contours(cone, 1.0, plain, masses=(0.5,), blur=0))
    lined = np.argwhere((drawn != 90).any(-1))
    distances = np.hypot(*(lined - 99.5).T)
    assert len(lined) > 200
    assert abs(np.median(distances) - radius / 2) < 1.5
    assert np.ptp(distances) < 8


def test_contours_land_on_the_photo_where_the_network_looked():
    values = np.zeros((24, 24), np.float32)
    values[4:8, 15:20] = 1
    photo = framed(Image.new("RGB", (540, 400), (90, 90, 90)))
    drawn = np.asarray(render.contours(values, 1.0, photo, masses=(0.99,), blur=0)).astype(int)
    left, top, right, bottom = photo.box
    inside = drawn[photo.seen[1] : photo.seen[3], photo.seen[0] : photo.seen[2]]
    lined = np.argwhere(np.abs(inside - 90).max(-1) > 20) + np.array(photo.seen[1::-1])
    middle = (lined.min(0) + lined.max(0)) / 2
    assert np.abs(middle - (top + 6 / 24 * (bottom - top), left + 17.5 / 24 * (right - left))).max() < 3


# --- Every kind -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [0, 1, 3, 4], ids="{} channels".format)
def test_no_picture_changes_its_map_or_photo(kind, channels):
    values = bumps(channels=channels) if channels else bumps()[0]
    photo = framed()
    before, pixels = values.copy(), photo.picture.tobytes()
    assert KINDS[kind].draw(values, 0.7, photo).size == photo.picture.size
    assert KINDS[kind].draw(values, 0.7, None).size == (24, 24)
    assert np.array_equal(values, before)
    assert photo.picture.tobytes() == pixels


NEUTRAL = {"colour": 128, "diverging": 255, "positive": 0, "negative": 0, "absolute": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_of_zeros_is_neutral(kind):
    drawn = np.asarray(KINDS[kind].draw(np.zeros((3, 24, 24), np.float32), 0.0, framed()))
    photo = framed()
    left, top, right, bottom = photo.seen
    inside = drawn[top:bottom, left:right].astype(int)
    rgb = np.asarray(photo.picture).astype(int)[top:bottom, left:right]
    grey = np.asarray(photo.picture.convert("L")).astype(int)[top:bottom, left:right, None]
    expected = {"over": grey, "masked": twin.dim(grey), "contours": rgb}.get(kind, NEUTRAL.get(kind))
    assert np.abs(inside - expected).max() <= 4  # inferno begins at (0, 0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_bands_leave_no_seam(kind, monkeypatch):
    """Pillow rounds to one level of 255, in a band as in a whole picture; a level is at most 8 levels of colour."""
    values, photo = bumps(), framed(scene(400, 300))
    whole = np.asarray(KINDS[kind].draw(values, 0.7, photo), dtype=int)
    monkeypatch.setattr(canvas, "_BAND", 400 * 7)
    difference = np.abs(np.asarray(KINDS[kind].draw(values, 0.7, photo), dtype=int) - whole)
    assert difference.max() <= 8
    assert difference.mean() < 0.3


def golden(kind):
    return KINDS[kind].draw(bumps(), 0.8, framed())


@pytest.mark.parametrize("kind", KINDS)
def test_golden_pictures(kind):
    """Pixel by pixel. `python -m tests.pictures.test_kinds` draws them anew, to be looked at before they are committed.

    Pillow and matplotlib may round another way in another version: two levels of 255. The ends of lines are theirs too: of
    contours, one pixel in fifty may differ.
    """
    with Image.open(GOLDEN / f"{kind}.png") as file:
        difference = np.abs(np.asarray(golden(kind), dtype=int) - np.asarray(file.convert("RGB"), dtype=int)).max(-1)
    assert (difference > 2).mean() <= (0.02 if kind == "contours" else 0)


def test_a_layer_over_the_grey_photo_is_the_heat_over_it():
    values, grey = bumps()[0], scene(24, 24).convert("L").convert("RGB")
    layered = grey.convert("RGBA")
    layered.alpha_composite(render.layer(values, 0.8))
    difference = np.asarray(layered.convert("RGB"), int) - np.asarray(render.over(values, 0.8, Photo.whole(grey)), int)
    assert np.abs(difference).max() <= 2


def test_a_sparse_map_still_shows():
    values = np.zeros((3, 64, 64), np.float32)
    values[0, 5, 5] = 0.1
    assert scale_of(values) == pytest.approx(0.1)


def test_a_scaling_says_what_it_is():
    values = np.arange(1001, dtype=np.float32)
    assert Scaling().of("m", values) == pytest.approx(995)
    assert Scaling(50).of("m", -values) == pytest.approx(500)
    assert Scaling(full={"m": 3.0}, origin="fixed").of("m", values) == 3
    assert str(Scaling()) == "full strength at percentile 99.5 of each map"
    assert "shared" in str(Scaling(full={}, origin="shared"))
    assert "given value" in str(Scaling(full={}, origin="fixed"))


def test_an_input_of_unknown_range_is_stretched():
    assert np.asarray(canvas.stretched(np.zeros((3, 2, 2), np.float32))).tolist() == [[[128] * 3] * 2] * 2
    ramp = np.linspace(-4, 9, 12, dtype=np.float32).reshape(3, 2, 2)
    drawn = np.asarray(canvas.stretched(ramp))
    assert (drawn.min(), drawn.max()) == (0, 255)


# --- Where things are -------------------------------------------------------------------------------------------------------


def with_orientation(picture, orientation):
    """The picture stored as a camera held that way stores it, and its EXIF tag."""
    flips = "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture.transpose(Image.Transpose[flips[orientation - 2]]) if orientation > 1 else picture, exif


WAYS = {
    "imagenet": IMAGENET,
    "stretched": Preprocessing((96, 160), (96, 160)),
    "cropped much": Preprocessing(256, 128, "bicubic"),
    "rectangle": Preprocessing(160, (96, 150), offset="floor"),
    "padded": Preprocessing(64, 90),
    "letterbox": Preprocessing(128, 128, letterbox=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(640, 480), (301, 455), (1000, 100), (90, 700), (40, 30)], ids=str)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_known_pixel_comes_back_to_where_it_was(way, size, orientation, tmp_path):
    """A bright spot of the photo is found in the input, drawn from there as a map, and is within a pixel of where it was."""
    width, height = size
    frame = WAYS[way].frame(Photo.whole(Image.new("RGB", size)))
    left, top, right, bottom = frame.seen
    cx, cy = left + 0.4 * (right - left), top + 0.6 * (bottom - top)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    spread = max(2.0, (frame.box[2] - frame.box[0]) / 45, (frame.box[3] - frame.box[1]) / 45)
    spot = 255 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread**2))
    stored, exif = with_orientation(Image.fromarray(spot.astype(np.uint8)).convert("RGB"), orientation)
    stored.save(tmp_path / "photo.png", exif=exif)
    photo = WAYS[way].frame(load_photo(tmp_path / "photo.png"))
    assert (photo.picture.size, photo.orientation) == (size, orientation)
    values = np.asarray(WAYS[way].view(photo.picture).convert("L"), dtype=np.float32)
    drawn = np.asarray(render.absolute(values, float(values.max()), photo, colors=colormaps["gray"]), dtype=float)[..., 0]
    weights = np.where(drawn > 100, drawn, 0)
    weights[: photo.seen[1]] = weights[photo.seen[3] :] = 0
    weights[:, : photo.seen[0]] = weights[:, photo.seen[2] :] = 0
    found = (weights * x).sum() / weights.sum(), (weights * y).sum() / weights.sum()
    assert np.abs(np.subtract(found, (cx, cy))).max() < 1


def test_what_the_network_never_saw_is_dimmed_and_the_rest_is_the_photo():
    photo = IMAGENET.frame(Photo.whole(scene(640, 480)))
    drawn, rgb = np.asarray(canvas.seen(photo)), np.asarray(photo.picture)
    left, top, right, bottom = photo.seen
    assert (left, top, right, bottom) == (109, 30, 529, 450)
    assert np.array_equal(drawn[top:bottom, left:right], rgb[top:bottom, left:right])
    grey = np.asarray(photo.picture.convert("L"), dtype=float)
    outside = np.ones((480, 640), bool)
    outside[top:bottom, left:right] = False
    assert np.abs(drawn[outside] - twin.dim(grey)[outside][:, None]).max() <= 1


def test_a_letterboxed_photo_is_seen_whole():
    letterbox = Preprocessing(128, 128, letterbox=True)
    photo = letterbox.frame(Photo.whole(scene(640, 480)))
    assert photo.seen == (0, 0, 640, 480)
    assert photo.box == pytest.approx((0, -80, 640, 560))
    view = np.asarray(letterbox.view(photo.picture))
    assert not view[:16].any()
    assert not view[112:].any()
    assert view[17:111].any(axis=(1, 2)).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8000, 1), (3, 900), (4000, 400), (8000, 6000)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photos_of_every_size_are_drawn(size, mode, tmp_path):
    Image.new(mode, size, 99).save(tmp_path / "photo.png", compress_level=1)
    way = Preprocessing((24, 24), 24) if 1 in size else Preprocessing(28, 24)
    photo = way.frame(load_photo(tmp_path / "photo.png"))
    for kind in ("colour", "over", "masked") if size == (8000, 6000) else KINDS:
        assert KINDS[kind].draw(bumps(), 0.8, photo).size == size
    small = photo.fitted(300)
    assert max(small.picture.size) == min(300, max(size))
    drawn = np.asarray(render.over(np.ones((24, 24), np.float32), 1.0, small))
    left, top, right, bottom = small.seen
    assert (drawn[top:bottom, left:right] == drawn[top, left]).all()


def test_a_smaller_photo_keeps_its_frame():
    photo = IMAGENET.frame(Photo.whole(scene(1000, 700)))
    small = photo.fitted(250)
    assert small.picture.size == (250, 175)
    assert small.box == pytest.approx([edge / 4 for edge in photo.box])
    assert photo.fitted(4000) is photo


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for kind in KINDS:
        golden(kind).save(GOLDEN / f"{kind}.png")
