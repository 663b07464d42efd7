from .codes import Code, decode, encode
from .engines import PART_SIZE, Progress
from .manifest import check_manifest, hash_of
from .python import of_dataset
from .request import RunRequest, Store
from .rows import Loaded, explained_rows
from .source import MANIFEST, Item, Source
from .sources import DATASETS, SourceKind, open_source

__all__ = [
    "DATASETS",
    "MANIFEST",
    "PART_SIZE",
    "Code",
    "Item",
    "Loaded",
    "Progress",
    "RunRequest",
    "Source",
    "SourceKind",
    "Store",
    "check_manifest",
    "decode",
    "encode",
    "explained_rows",
    "hash_of",
    "of_dataset",
    "open_source",
]
