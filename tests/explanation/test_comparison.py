"""Comparisons: the same images for several targets, drawn, saved and read in one page."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

import relume
from relume import errors
from relume.demo import draw_scene
from relume.explanation.comparison import PAGE, Comparison, comparison_files
from relume.pictures.photo import Photo


@pytest.fixture(scope="module")
def comparison():
    network, scenes = relume.open_model("demo"), [draw_scene(i, ["cat", "dog"]).picture for i in range(2)]
    return Comparison(tuple(network.explain(scenes, target, ["gradient", "gradcam"]) for target in ("cat", "dog")))


def test_it_is_a_sequence_of_explanations_one_a_target(comparison):
    assert [int(e.target[0]) for e in comparison] == [int(comparison[0].target[0]), int(comparison[-1].target[0])]
    assert len(comparison) == len(comparison[:]) == 2
    assert [[len(e) for e in targets] for targets in comparison.images()] == [[1, 1], [1, 1]]


def test_its_sheet_has_a_row_for_each_image_and_target_in_the_order_of_images(comparison):
    titles = [text.get_text() for text in comparison.figure().texts]
    expected = [e[i].title() for i in range(2) for e in comparison]
    assert [title for title in titles if title in expected] == expected


def test_it_saves_a_page_and_a_sheet_and_takes_nothing_else_away(comparison, tmp_path):
    (tmp_path / "index.html").write_text("of an audit")
    assert comparison.save(tmp_path) == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {PAGE, "sheet.png", "sheet.pdf", "index.html"}
    page = (tmp_path / PAGE).read_text()
    assert all(e[i].title() in page for e in comparison for i in range(2))
    assert page.count('class="sheet"') == 2


def test_maps_without_photos_lie_over_their_inputs(comparison):
    plain = Comparison(tuple(dataclasses.replace(e[:1], photos=None, provenance={}) for e in comparison))
    page = plain.files()[PAGE].decode()
    assert "<title>image 0 · relume</title>" in page
    assert "<dt>weights</dt>" not in page


def test_a_shared_scale_is_that_of_all_targets(comparison):
    shared = comparison.scaled("shared")
    assert len({value for e in shared for value in e.scale("gradcam")}) == 1
    assert len({value for e in comparison for value in e.scale("gradcam")}) > 1


def test_a_lighter_photo_is_read_in_the_pixels_of_the_whole_one(comparison):
    (e,) = comparison[:1]
    large = Photo(Image.new("RGB", (3200, 1600)), (800.0, 0.0, 2400.0, 1600.0), content=b"its file")
    light = Comparison((dataclasses.replace(e[0], photos=[large]),)).lighter()
    photo = light[0].photos[0]
    assert (photo.picture.size, photo.original, photo.content) == ((1600, 800), (3200, 1600), None)
    page = light.files()[PAGE].decode()
    (box,) = re.findall(r'<image id="map-0-0-1" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', page)
    np.testing.assert_allclose([float(edge) for edge in box], (800, 0, 1600, 1600))


def test_comparisons_of_several_photos_are_one_page(comparison):
    ones = [Comparison(targets) for targets in comparison.images()]
    together, whole = comparison_files(ones), comparison.files()
    assert together["sheet.png"] == whole["sheet.png"]
    assert together[PAGE] == whole[PAGE]


def test_explanations_of_different_images_are_no_comparison(comparison):
    with pytest.raises(errors.InputError, match="these have 2, 1 images"):
        Comparison((comparison[0], comparison[1][0]))
    with pytest.raises(errors.InputError, match=r"targets are a list, such as \[243, 281\]; got 3"):
        relume.compare(len, [], 3)
    with pytest.raises(errors.InputError, match="these have no images"):
        Comparison(())
