"""Runs that are written row by row, without a network, so that a test knows what a report must say of them."""

import numpy as np
import pyarrow as pa
import torch

from relume.datasets import MANIFEST, RunRequest, encode
from relume.datasets.columns import maps_of, schema_of
from relume.datasets.store import write_manifest, write_part, write_record
from relume.pictures.canvas import as_image, jpeg

LABELS = ("cat", "dog", "house")
CONFIGURATION = {
    "model": "demo",
    "weights": "0" * 64,
    "preprocessing": {"resize": 32},
    "request": RunRequest(methods=["guided_backprop", "gradcam"]).as_dict(),
    "target_column": None,
}


def peak(row, column, side=4, wide=1.0):
    """A map with its peak at a cell, ``(side, side)``."""
    y, x = np.mgrid[:side, :side]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * wide**2)).astype(np.float32)


def item(id, predicted="cat", heat=None, **changes):
    """What is written of a picture: a class, its map ``(4, 4)``, and anything else of a row."""
    return {"id": id, "predicted": predicted, "heat": peak(1, 1) if heat is None else heat, "label": predicted, **changes}


def row_of(one, kept, names):
    """Make a row of a schema with ``names``, of which everything that is not said is null."""
    row = {name: one.get(name) for name in names}
    if one.get("error"):
        return row | {name: None for name in names if name not in ("id", "label", "error")}
    index, heat = LABELS.index(one["predicted"]), np.asarray(one["heat"], np.float32)
    row |= {
        "target": index,
        "class_name": one["predicted"],
        "score": one.get("score", 2.0),
        "layer": one.get("layer", "layer3"),
    }
    row |= {"top_classes": [index], "top_names": [one["predicted"]], "top_scores": [2.0]}
    row |= {"top_probabilities": [one.get("probability", 0.9)], "probability": one.get("probability", 0.9)}
    row |= {"guided": 1, "unguided": 0, "input_shape": [3, 8, 8]}
    for key, how in kept.items():
        values = heat if how["place"] == "layer" else heat.repeat(2, 0).repeat(2, 1)
        row |= {f"{key}_empty": not values.any(), f"{key}_edge_similarity": one.get("edges", 0.2)}
        row[f"{key}_thumbnail"] = jpeg(as_image(values / max(values.max(), 1e-6)))
        if f"{key}_mass_accuracy" in names:
            row[f"{key}_mass_accuracy"] = one.get("inside")
        if how["column"]:
            values = values[None] if how["column"].endswith("_map") and how["place"] == "input" else values
            content, scale = encode(torch.from_numpy(values.copy()), how["code"])
            row |= {how["column"]: content, f"{key}_scale": scale, f"{key}_shape": [*values.shape]}
    return row


def write_run(folder, items, *, missing=0, configuration=None, **options):
    """Write a run of two maps for items, in two parts; its manifest has ``missing`` more."""
    options = {"methods": ["guided_backprop", "gradcam"], **options}
    request = RunRequest(**options)
    schema = schema_of(request)
    rows = [row_of(one, maps_of(schema), schema.names) for one in items]
    known = {"configuration": CONFIGURATION | {"request": request.as_dict()} | (configuration or {})}
    known |= {"model": "demo", "source": "photos", "labels": LABELS, "provenance": {"model": "demo"}}
    write_record(folder, known | {"request": request.as_dict()})
    listed = [{"id": one["id"]} for one in items] + [{"id": f"missing-{i}"} for i in range(missing)]
    write_manifest(folder, pa.Table.from_pylist(listed, schema=MANIFEST))
    half = len(rows) // 2
    for number, some in enumerate((rows[:half], rows[half:])):
        write_part(folder, number, pa.Table.from_pylist(some, schema=schema))
    return folder
