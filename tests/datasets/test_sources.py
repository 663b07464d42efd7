"""Sources of pictures: each lists what it holds and reads it again, in another process too, or says why not in a sentence."""

import io
import json
import pickle
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from relume.datasets import DATASETS, MANIFEST, SourceKind, check_manifest, hash_of, of_dataset, open_source
from relume.datasets.contents import bytes_at
from relume.datasets.storage import storage_of
from relume.errors import ImageError, InputError
from relume.pictures import Photo, Recording


def png(colour):
    """Return the file of a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(files):
    """Write files by their names; a number stands for the picture of that colour."""
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(png(content) if isinstance(content, int) else content)


def write_tar(name, files):
    with tarfile.open(name, "w") as tar:
        for member, content in files.items():
            data = png(content) if isinstance(content, int) else content
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_saved(folder, cells, labels, feature):
    """Write what ``Dataset.save_to_disk`` of datasets 4 does, in two files."""
    Path(folder).mkdir(parents=True)
    images = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": images, "label": pa.array(labels, pa.int64())})
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for name, rows in zip(names, (table[:1], table[1:]), strict=True):
        with pa.OSFile(f"{folder}/{name}", "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(rows)
    features = {"image": {"_type": "Image"}, "label": feature}
    Path(folder, "dataset_info.json").write_text(json.dumps({"features": features}))
    Path(folder, "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def colours(source):
    """Return the id, label and colour of each item, read by a copy of the source as another process has it."""
    table = source.manifest()
    check_manifest(table)
    copy = pickle.loads(pickle.dumps(source))
    items = table.to_pylist()
    return [(item["id"], item["label"], copy.read(item).picture.getpixel((0, 0))[0]) for item in items]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# --- What each holds -----------------------------------------------------------------------------------------------------


def test_a_folder_a_tree_and_a_glob():
    write({"pets/dog/1.png": 1, "pets/cat/10.png": 2, "pets/cat/9.png": 3, "pets/cat/notes.txt": b"", "pets/top.png": 4})
    Path("pets/link.png").symlink_to("top.png")  # a picture under two names is two items
    found = [("cat/9.png", 3), ("cat/10.png", 2), ("dog/1.png", 1), ("link.png", 4), ("top.png", 4)]
    assert colours(open_source("pets")) == [(name, None, colour) for name, colour in found]
    labels = ["cat", "cat", "dog", None, None]
    assert colours(open_source("tree:pets")) == [(name, label, i) for (name, i), label in zip(found, labels, strict=True)]
    assert colours(open_source("pets/*/[19]*.png")) == [(name, None, colour) for name, colour in found[:3]]
    assert open_source(Path("pets/**/1.png")).manifest()["id"].to_pylist() == ["dog/1.png"]
    assert open_source("pe*/cat/**").manifest()["id"].to_pylist() == [
        f"pets/cat/{name}" for name in ("9.png", "10.png", "notes.txt")
    ]


def test_a_list_in_csv_or_parquet():
    write({"list/a.png": 1, "list/sub/b.png": 2})
    rows = b'\xef\xbb\xbfPath, label,target,mask,id,more\na.png, cat,,m.png,007,1\n"sub/b.png",,cup,,8,2\ngone.png,3,,,9,3\n'
    Path("list/all.csv").write_bytes(rows)
    table = open_source("list/all.csv").manifest()
    assert table.schema == MANIFEST
    assert table.drop_columns("path").to_pylist() == [
        {"id": "007", "label": "cat", "target": None, "mask": str(Path.cwd() / "list" / "m.png")},
        {"id": "8", "label": None, "target": "cup", "mask": None},
        {"id": "9", "label": "3", "target": None, "mask": None},
    ]
    source = open_source("list/all.csv")
    assert source.read(table.to_pylist()[1]).picture.getpixel((0, 0))[0] == 2
    with pytest.raises(ImageError, match=r"there is no file '.*list/gone.png'; check the path"):
        source.read(table.to_pylist()[2])
    parquet.write_table(pa.table({"label": [0, 1], "path": ["a.png", "sub/b.png"]}), "list/all.parquet")
    assert colours(open_source("list/all.parquet")) == [("a.png", "0", 1), ("sub/b.png", "1", 2)]


def test_tars_are_read_by_offset():
    write_tar(
        "s-009.tar",
        {"x/1.seg.png": 9, "x/1.jpg": 1, "x/1.cls": b"3\n", "x/2.0.png": 2, "x/2.txt": b"a cup", "x/4.cls": b"1", ".x.png": 3},
    )
    array = io.BytesIO()
    np.save(array, np.ones((2, 30), np.float32))
    write_tar("s-010.tar", {"3.json": b'{"label": "dog"}', "3.PNG": 5, "5.npy": array.getvalue(), "6.npy": b"words"})
    source = open_source("s-{009..010}.tar")
    table = source.manifest()
    assert table["id"].to_pylist() == ["x/1", "x/2", "3", "5", "6"]
    assert table["label"].to_pylist() == ["3", "a cup", "dog", None, None]
    pictures = [pickle.loads(pickle.dumps(source)).read(item) for item in table.to_pylist()[:4]]
    assert [picture.picture.getpixel((0, 0))[0] for picture in pictures[:3]] == [1, 2, 5]
    assert pictures[0].content == png(1)
    assert pictures[3].values.shape == (2, 30)
    with pytest.raises(ImageError, match="^'.*s-010.tar/6.npy': it is no file of NumPy"):
        source.read(table.to_pylist()[4])
    assert open_source("s-*.tar").manifest() == open_source("s-{009,010}.tar").manifest() == table


def test_a_data_set_that_save_to_disk_wrote():
    write({"b.png": 2})
    cells = [{"bytes": png(1)}, {"path": str(Path("b.png").absolute())}, None]
    write_saved("saved/train", cells, [1, 0, -1], {"names": ["cat", "dog"], "_type": "ClassLabel"})
    source = open_source("saved/train")
    items = source.manifest().to_pylist()
    assert [(item["id"], item["label"]) for item in items] == [("0", "dog"), ("1", "cat"), ("2", None)]
    assert [source.read(item).picture.getpixel((0, 0))[0] for item in items[:2]] == [1, 2]
    with pytest.raises(ImageError, match="row 2 of 'saved/train' has no picture in column image"):
        source.read(items[2])
    write_saved("saved/test", cells, [1, 0, None], {"dtype": "int64", "_type": "Value"})
    assert open_source("hf:saved/test").manifest()["label"].to_pylist() == ["1", "0", None]
    Path("saved/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match="several splits; name one: saved/train, saved/test"):
        open_source("saved")


class Pairs:
    """Items of all types, as data sets in Python give them; the last one fails."""

    targets, classes = (0, 1, 1, 0, 0, 0), ("cat", "dog")

    def __len__(self):
        return 6

    def __getitem__(self, index):
        picture = Image.new("RGB", (4, 4), (index, 0, 0))
        return [picture, (picture, 1), ("2.png", 0), Photo.whole(picture), np.ones((3, 4, 4))][index]


def test_a_data_set_in_python():
    write({"2.png": 2})
    source = open_source(Pairs())
    items = source.manifest().to_pylist()
    assert [item["label"] for item in items] == ["cat", "dog", "dog", "cat", "cat", "cat"]
    assert [source.read(item).picture.getpixel((0, 0))[0] for item in items[:4]] == [0, 1, 2, 3]
    with pytest.raises(ImageError, match="item 4 of 'Pairs': .* got ndarray; leave out its transform"):
        source.read(items[4])
    with pytest.raises(ImageError, match="item 5 of 'Pairs' cannot be read: list index out of range"):
        source.read(items[5])
    recording = Recording(np.ones((1, 30), np.float32), "signal")
    assert of_dataset([recording]).read({"index": 0}) is recording
    assert open_source(source) is source
    for wrong, message in ((iter(()), "has a length"), ([], "'list' has no items"), ({1}, "gives an item for each number")):
        with pytest.raises(InputError, match=message):
            of_dataset(wrong).manifest()
    with pytest.raises(InputError, match="has 1 items, and there are 2 labels"):
        of_dataset([recording], labels=["a", "b"])


# --- At a URL ------------------------------------------------------------------------------------------------------------


def places(source, base):
    """The rows of a manifest, without where they lie."""
    return [
        {name: value and str(value).replace(base, "BASE/").replace("pets/../", "") for name, value in item.items()}
        for item in source.manifest().to_pylist()
    ]


@pytest.mark.parametrize("base", ["memory://{}/", "s3://bucket/{}/"])
@pytest.mark.usefixtures("s3")
def test_each_is_the_same_at_a_url(base, tmp_path):
    write({"pets/dog/1.png": 1, "pets/cat/10.png": 2, "pets/cat/9.png": 3, "pets/notes.txt": b"", "pets/.hidden.png": 4})
    write_tar("s-009.tar", {"x/1.seg.png": 9, "x/1.jpg": 1, "x/1.cls": b"3\n", "x/2.mask.png": 9, "x/3.png": 3})
    write_tar("s-010.tar", {"3.json": b'{"label": "dog"}', "3.png": 5, "3.mask.png": 6})
    cells = [{"bytes": png(1)}, {"bytes": png(2)}, None]
    write_saved("saved/train", cells, [1, 0, -1], {"names": ["cat", "dog"], "_type": "ClassLabel"})
    Path("pets/all.csv").write_text("path,mask,id\ncat/9.png,dog/1.png,a\n../pets/dog/1.png,,b\n")
    base = base.format(tmp_path.name)
    storage = storage_of(base)
    for path in filter(Path.is_file, sorted(tmp_path.rglob("*"))):
        storage.put(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    Path("pets/everywhere.csv").write_text(f"path\n{base}pets/cat/10.png\n{tmp_path}/pets/cat/9.png\n")
    assert [colour for _, _, colour in colours(open_source("pets/everywhere.csv"))] == [2, 3]
    for spec in (
        "{}pets",
        "tree:{}pets/",
        "{}pets/*/[19]*.png",
        "{}pets/c*",
        "{}pets/all.csv",
        "{}s-{{009..010}}.tar",
        "{}s-*.tar",
    ):
        here, there = open_source(spec.format(f"{tmp_path}/")), open_source(spec.format(base))
        assert places(there, base) == places(here, f"{tmp_path}/")
        assert colours(there) == colours(here)
    source = open_source(f"{base}saved/train")
    assert places(source, base) == places(open_source("saved/train"), base)
    items = source.manifest().to_pylist()
    assert [(item["label"], source.read(item).picture.getpixel((0, 0))[0]) for item in items[:2]] == [("dog", 1), ("cat", 2)]
    (first, *_) = open_source(f"{base}s-009.tar").manifest().to_pylist()
    for mask in (first["mask"], f"{base}pets/cat/9.png"):
        assert Image.open(io.BytesIO(bytes_at(mask))).getpixel((0, 0))[0] == (9 if mask is first["mask"] else 3)


def test_lists_pictures_and_tars_of_a_server_that_only_sends_files():
    """Such as that of the standard library, which knows no ranges."""
    write({"a.png": 1, "list.csv": b"path\na.png\ngone.png\n"})
    write_tar("s.tar", {"1.png": 1})
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            source = open_source(f"http://127.0.0.1:{server.server_port}/list.csv")
            found, gone = source.manifest().to_pylist()
            assert source.read(found).picture.getpixel((0, 0))[0] == 1
            with pytest.raises(ImageError, match="gone.png' cannot be read: http.*; check the address"):
                source.read(gone)
        finally:
            server.shutdown()
            thread.join()


# --- What cannot be used -------------------------------------------------------------------------------------------------


def bad_tar(name, cut=None, damage=None):
    write_tar(name, {"1.png": 1, "2.png": 2})
    data = bytearray(Path(name).read_bytes()[:cut])
    data[damage or 0 : (damage or 0) + 1] = b"\xff" if damage else data[:1]
    Path(name).write_bytes(data)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "there is no source of pictures 'nothing': .* write one of tree:FOLDER"),
        ("tree:nothing", "there is no folder '.*nothing'; check the path"),
        ("empty", "'empty' holds no pictures that Pillow reads, and no recordings; name another source"),
        ("empty/*.jpg", "'empty/.*' holds no pictures"),
        ("tree:flat", "no folder in '.*flat' holds pictures, so none has a label; leave out tree:"),
        ("gone.csv", "the list 'gone.csv' cannot be read: .*No such file"),
        ("none.csv", "the list 'none.csv' has no rows; name another source"),
        ("names.csv", "the list 'names.csv' has no column path; it has name, label, so rename one or add it"),
        ("twice.csv", "1 id comes more than once, such as 'a.png'; give each picture an id of its own"),
        ("columns.csv", "the list 'columns.csv' has several columns path; leave one"),
        ("no_id.csv", "1 of 2 pictures has no id"),
        ("latin.csv", "the list 'latin.csv' cannot be read: .*UTF8"),
        ("words.parquet", "the list 'words.parquet' cannot be read: "),
        ("gone.tar", "the tar '.*gone.tar' cannot be read: No such file or directory; check the path, or copy it again"),
        ("gone-*.tar", "no tar matches 'gone-.*.tar'; check the path"),
        ("words.tar", "the tar '.*words.tar' cannot be read: "),
        ("cut.tar", "the tar '.*cut.tar' cannot be read: unexpected end of data"),
        ("end.tar", "the tar '.*end.tar' cannot be read: it is damaged or cut short at byte 2048"),
        ("damaged.tar", "the tar '.*damaged.tar' cannot be read: it is damaged or cut short at byte 1024"),
        ("packed.tar.gz", "the tar '.*packed.tar.gz' cannot be read: .*; unpack it"),
        ("labels.tar", "'labels.tar' holds no pictures"),
        ("two-{1,2}.tar", "2 ids come more than once, such as '1', '2'; give each picture an id of its own"),
        ("hf:empty", "'empty' is no data set that save_to_disk wrote, or is damaged"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(spec, message):
    Path("empty").mkdir()
    write({"flat/1.png": 1, "none.csv": b"path\n", "names.csv": b"name,label\na,b\n", "twice.csv": b"path\na.png\na.png\n"})
    write({"columns.csv": b"path,PATH\na,b\n", "no_id.csv": b"id,path\n1,a\n,b\n", "latin.csv": b"path\n\xe9.png\n"})
    write({"words.parquet": b"words", "words.tar": b"words"})
    bad_tar("cut.tar", cut=1536 + 20)
    bad_tar("end.tar", cut=2048)
    bad_tar("damaged.tar", damage=1024 + 5)
    write_tar("labels.tar", {"1.cls": b"1"})
    for name in ("two-1.tar", "two-2.tar"):
        write_tar(name, {"1.png": 1, "2.png": 2})
    with tarfile.open("packed.tar.gz", "w:gz") as tar:
        tar.add("flat/1.png")
    with pytest.raises(InputError, match=message) as error:
        open_source(spec).manifest()
    assert "\n" not in str(error.value)


def test_a_tar_that_changes_after_it_was_listed():
    write_tar("a.tar", {"1.png": 1})
    source = open_source("a.tar")
    (item,) = source.manifest().to_pylist()
    Path("a.tar").write_bytes(Path("a.tar").read_bytes()[:540])
    with pytest.raises(ImageError, match="'.*a.tar/1.png' is cut short"):
        source.read(item)
    Path("a.tar").unlink()
    with pytest.raises(ImageError, match="'.*a.tar/1.png' cannot be read: No such file"):
        source.read(item)


# --- Manifests -----------------------------------------------------------------------------------------------------------


def test_the_hash_is_of_what_a_manifest_says():
    """Not of how Arrow holds it, nor of how many rows are in a batch."""
    table = of_dataset(range(5000), labels=["é"] * 5000).manifest()
    assert hash_of(table) == hash_of(pa.concat_tables([table[:7], table[7:]])) == hash_of(table.combine_chunks())
    assert hash_of(table) != hash_of(table.take(pa.array(range(4999, -1, -1))))
    assert hash_of(table) != hash_of(table.set_column(2, "label", pa.array(["e"] * 5000)))
    parquet.write_table(table, "manifest.parquet")
    assert hash_of(parquet.read_table("manifest.parquet")) == hash_of(table)


def test_a_table_of_other_columns_is_no_manifest():
    with pytest.raises(InputError, match=r"columns id, path, label, target, mask, .*; this has id \(int64\)"):
        check_manifest(pa.table({"id": [1]}))


def test_another_kind_is_a_row():
    DATASETS["numbers"] = SourceKind("numbers:N", "numbers", lambda spec: of_dataset(range(int(spec))))
    try:
        assert open_source("numbers:3").manifest().num_rows == 3
    finally:
        del DATASETS["numbers"]
