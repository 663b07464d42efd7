"""The columns of a run's rows, and what is written of them in the schema's metadata."""

from __future__ import annotations

import pyarrow as pa

from relume.datasets.request import RunRequest

__all__ = ["FORMAT", "schema_of"]

#: The version of the columns and of ``run.json``. The meaning of a column never changes under one number.
FORMAT = 1


def schema_of(request: RunRequest) -> pa.Schema:
    """Return the schema of the rows of a run."""
    raise NotImplementedError
