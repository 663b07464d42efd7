"""Suspects, and the Parquet file of them."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from relume.datasets.shortcuts import Suspect, Suspects, write_suspects
from relume.errors import OutputError

FACTS = {
    "rank": 1, "class_index": 9, "class_name": "house", "where": "same place", "strength": 0.36, "flagged": True, "rise": 0.76,
    "p_before": 0.02, "p_after": 0.78, "pasted_on": 32, "found_in": 94, "of_in": 189, "found_out": 0, "of_out": 811,
    "sameness": 120.0, "members": ("a",), "found": ("a", "b"), "patch": np.zeros((2, 3, 3), np.uint8),
    "mask": np.ones((2, 3), bool), "place": (3, 3, 6, 5), "mean_map": np.zeros((16, 16), np.float32), "shown": (), "pasted": (),
}  # fmt: skip


def test_suspects_are_written_with_the_ids_of_their_pictures(tmp_path):
    one, other = Suspect(**FACTS), Suspect(**FACTS | {"where": "any place", "flagged": False})
    rows = pq.read_table(write_suspects(Suspects((one,), (other,)), tmp_path / "suspects.parquet")).to_pylist()
    assert [(row["rank"], row["class"], row["where"], row["flagged"]) for row in rows] == [
        (1, "house", "same place", True),
        (1, "house", "any place", False),
    ]
    assert rows[0]["ids"] == ["a", "b"]
    assert rows[0]["share_in"] == pytest.approx(94 / 189)
    with pytest.raises(OutputError, match="cannot write"):
        write_suspects(Suspects(), tmp_path / "missing" / "suspects.parquet")


def test_words_are_those_of_the_report():
    assert str(Suspect(**FACTS)) == (
        "found in 94 of 189 pictures predicted house and in 0 of 811 others; pasted on 32 pictures without it, p(house) goes "
        "from 0.02 to 0.78. A repeated patch that the network uses: whether it belongs to the class is for you to say."
    )
    assert str(Suspects(pictures=100)) == "no repeated patch found"
    assert str(Suspects((Suspect(**FACTS),), pictures=100)) == "1 strong at the same place, 0 more worth a look"
    assert str(Suspects()) == "not searched for repeated patches"
