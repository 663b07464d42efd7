"""Codes of a byte a value, against their definition, and on maps of real weights and photographs."""

import pyarrow as pa
import pytest
import torch

import relume
from relume.datasets.codes import decode, encode
from relume.measures import rank_correlation
from tests.reference.codes import sixth_root

METHODS = ["gradient", "guided_backprop", "guided_gradcam"]


@pytest.mark.parametrize(("code", "highest", "offset"), [("sixth_root", 127, 256), ("positive_sixth_root", 255, 0)])
def test_codes_are_those_of_the_definition(code, highest, offset):
    values = torch.randn(2000) ** 5
    values = torch.cat([values, -values.abs().max()[None], torch.zeros(1)])
    values = values if code == "sixth_root" else values.abs()
    content, scale = encode(values, code)
    codes = [byte - offset if byte > 127 else byte for byte in content] if offset else [*content]
    assert scale == float(values.abs().max())
    for wanted, got in zip(sixth_root(values, highest), codes, strict=True):
        assert abs(wanted - got) <= 0.5 + 1e-4  # it is rounded, in float32
    decoded, fractions = decode(content, scale, (len(values),), code).double(), torch.tensor(codes).double() / highest
    torch.testing.assert_close(decoded, scale * fractions**6 * values.sign(), rtol=1e-5, atol=0)


def test_a_float_stays_as_it_is_and_a_map_of_zeros_is_one():
    values = torch.randn(2, 3)
    assert torch.equal(decode(*encode(values, "float32"), (2, 3), "float32"), values)
    assert encode(torch.zeros(3)) == (b"\0\0\0", 0.0)
    assert torch.equal(decode(b"\0\0\0", 0.0, (3,)), torch.zeros(3))
    with pytest.raises(ValueError, match="reshape"):
        decode(b"\0\0", 1.0, (3,))


def test_ranks_live_on_in_a_quarter_of_the_bytes(realdata):
    weights = realdata / "weights" / "squeezenet1_0.safetensors"
    opened = relume.open_model("torchvision:squeezenet1_0", weights=weights)
    e = opened.explain(realdata / "images" / "cat_dog.png", methods=METHODS)
    for method in METHODS:
        for values, code in ((e[0, method], "sixth_root"), (e.saliency(method)[0], "positive_sixth_root")):
            content, scale = encode(values, code)
            assert rank_correlation(values.numpy(), decode(content, scale, values.shape, code).numpy()) > 0.9998
            exact, _ = encode(values, "float32")
            assert len(pa.compress(content, "zstd", asbytes=True)) < 0.26 * len(pa.compress(exact, "zstd", asbytes=True))
