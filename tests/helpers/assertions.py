"""Assertions that more than one test makes."""

import torch


def assert_near(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-13 * float(expected.abs().max()))
    assert got.any()
