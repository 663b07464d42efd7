from .local import PART_SIZE, Progress
from .manifest import check_manifest, hash_of
from .python import of_dataset
from .source import MANIFEST, Item, Source
from .sources import DATASETS, SourceKind, open_source

__all__ = [
    "DATASETS",
    "MANIFEST",
    "PART_SIZE",
    "Item",
    "Progress",
    "Source",
    "SourceKind",
    "check_manifest",
    "hash_of",
    "of_dataset",
    "open_source",
]
