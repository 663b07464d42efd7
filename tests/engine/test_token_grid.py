"""What a layer returns as a map: by shape, and never by a guess."""

import pytest
import torch

from relume.engine.token_grid import Grid, find_grid

IMAGE = (224, 224)


@pytest.mark.parametrize(
    ("shape", "image", "seen", "grid"),
    [
        ((2, 512, 7, 7), IMAGE, [], Grid("map", (7, 7))),
        ((2, 64, 56, 56), IMAGE, [], Grid("map", (56, 56))),
        ((2, 96, 7, 10), (224, 320), [], Grid("map", (7, 10))),
        ((2, 768, 1, 1), IMAGE, [], None),  # pooled
        ((2, 7, 7, 768), IMAGE, [], Grid("channels last", (7, 7))),  # Swin
        ((2, 14, 7, 64), (448, 224), [], Grid("channels last", (14, 7))),
        ((2, 7, 7, 7), IMAGE, [], Grid("map", (7, 7))),  # both fit: the convention
        ((2, 32, 1, 40), (64, 80), [], Grid("map", (1, 40))),  # a spectrogram, pooled along frequency
        ((2, 197, 192), IMAGE, [(14, 14)], Grid("tokens", (14, 14), 1)),  # ViT
        ((2, 198, 192), IMAGE, [(14, 14)], Grid("tokens", (14, 14), 2)),  # DeiT with two class tokens
        ((2, 261, 384), IMAGE, [(16, 16)], Grid("tokens", (16, 16), 5)),  # a class token and four registers
        ((2, 196, 512), IMAGE, [(14, 14)], Grid("tokens", (14, 14), 0)),  # Mixer
        ((2, 49, 768), IMAGE, [(56, 56)], Grid("tokens", (7, 7), 0)),  # Swin, merged three times
        ((2, 200, 96), (128, 64), [(20, 10)], Grid("tokens", (20, 10), 0)),
        ((2, 401, 96), IMAGE, [(7, 7), (20, 20)], Grid("tokens", (20, 20), 1)),  # two branches
        ((2, 1568, 96), (16, 112, 112), [(8, 14, 14)], Grid("tokens", (8, 14, 14), 0)),  # a film
        ((2, 230, 192), IMAGE, [(14, 14)], None),  # too many to be class tokens, and no square
        ((2, 256, 256), IMAGE, [(16, 16)], None),  # which axis is which?
        ((2, 72, 64), IMAGE, [(8, 8)], None),  # a mixer's tokens last
        ((2, 257, 256), IMAGE, [(16, 16)], Grid("tokens", (16, 16), 1)),
        ((2, 16, 128), (32, 32), [(8, 8), (5, 7)], Grid("tokens", (4, 4), 0)),  # merged from 8 × 8
        ((2, 16, 128), (32, 32), [], None),  # sixteen of what?
        ((2, 56, 56, 64), IMAGE, [(56, 56)], Grid("channels last", (56, 56))),  # channels near the side: as was seen
        ((2, 8, 8, 7), (32, 32), [(8, 8)], Grid("channels last", (8, 8))),
        ((2, 16, 4, 4, 8), (32, 32, 32), [(16, 4, 4)], Grid("channels last", (16, 4, 4))),
        ((2, 8, 6, 8), (48, 64), [(6, 8), (8, 6)], None),  # both were seen
        ((2, 30, 32), (240,), [(30,)], Grid("channels last", (30,))),  # a recurrent network over a signal
        ((2, 16, 60), (240,), [(120,)], Grid("map", (60,))),
        ((2, 1, 768), IMAGE, [], None),
        ((2, 1000), IMAGE, [], None),
        ((2, 16, 30), (240,), [], Grid("map", (30,))),  # a signal
    ],
)
def test_the_grid_of_a_shape(shape, image, seen, grid):
    assert find_grid(shape, image, seen) == grid


def test_a_convolution_proves_that_channels_come_first():
    """Strides of another kind along each axis, and a size that looks like another arrangement."""
    assert find_grid((2, 16, 16, 64), (64, 64), []) == Grid("channels last", (16, 16))
    assert find_grid((2, 16, 16, 64), (64, 64), [], channels_first=True) == Grid("map", (16, 64))
    assert find_grid((2, 16, 16, 64), (64, 64), [(16, 64)]) == Grid("map", (16, 64))


def test_a_grid_puts_every_token_where_its_patch_was():
    """Numbered patches, whatever their arrangement, come back as the same map."""
    expected = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    last = expected.movedim(1, -1)
    tokens = last.flatten(1, 2)
    assert torch.equal(Grid("map", (4, 5))(expected), expected)
    assert torch.equal(Grid("channels last", (4, 5))(last), expected)
    for extra in (0, 1, 5):
        with_extra = torch.cat([torch.full((2, extra, 3), -1), tokens], 1)
        assert torch.equal(Grid("tokens", (4, 5), extra)(with_extra), expected)
