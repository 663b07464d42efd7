"""Whole pictures in every format that this Pillow writes, and damage to them, all from a seed.

``python -m tests.helpers.damaged 300`` looks for what escapes for 300 seconds, from the seeds that follow those of the tests.
"""

import io
import random
import struct
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from relume.errors import ImageError
from relume.pictures.photo import as_photo, load_photo

SIZE = (24, 20)

#: How to save, beside every format by its defaults in every mode: format, mode, options.
WAYS = [
    ("JPEG", "RGB", {"progressive": True, "comment": b"comment", "dpi": (72, 72), "quality": 60}),
    ("JPEG", "RGB", {"exif": True, "icc_profile": b"profile" * 30, "xmp": b"<tiff:Orientation>6</tiff:Orientation>"}),
    ("PNG", "RGB", {"exif": True, "icc_profile": b"profile" * 30}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "RGB", {"save_all": True}),
    ("PNG", "P", {"save_all": True, "default_image": True}),
    ("GIF", "P", {"save_all": True, "comment": b"comment", "disposal": 2, "transparency": 0}),
    ("WEBP", "RGBA", {"save_all": True, "exif": True}),
    ("WEBP", "RGBA", {"lossless": True, "xmp": b"<x/>"}),
    ("AVIF", "RGB", {"exif": True}),
    ("AVIF", "RGBA", {"save_all": True}),
    ("MPO", "RGB", {"save_all": True, "exif": True}),
    ("TIFF", "RGB", {"save_all": True, "exif": True}),
    ("TIFF", "RGB", {"big_tiff": True, "exif": True}),
    *(("TIFF", "RGB", {"compression": c, "exif": True}) for c in ("jpeg", "packbits", "tiff_adobe_deflate", "tiff_lzw")),
    *(("TIFF", "1", {"compression": c}) for c in ("group3", "group4", "tiff_ccitt")),
    ("TIFF", "I;16", {"compression": "tiff_lzw"}),
    *(("DDS", "RGBA", {"pixel_format": p}) for p in ("DXT1", "DXT3", "DXT5", "BC3", "BC5")),
    ("JPEG2000", "RGB", {"tile_size": (16, 16), "irreversible": True}),
    ("SGI", "RGB", {"bpc": 2}),
    ("TGA", "RGBA", {"compression": "tga_rle"}),
    ("BLP", "P", {"blp_version": "BLP1"}),
]

#: PDF is not read; animated AVIF with EXIF data, or of odd modes, ends the process that writes it (Pillow 13.0).
ODD = {"PDF", "AVIF"}

#: How files begin that Pillow reads and does not write.
BEGINNINGS = [
    b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\x14\0\0\0\x18\0\x08\0\3\0\0\0\0\0\0\0\0\0\0\0\0",
    b"SIMPLE  =                    T" + b" " * 50 + b"BITPIX  =                    8" + b" " * 50,
    b"\0" * 4 + b"\x11\xaf\2\0\x18\0\x14\0\x08\0\3\0\5\0\0\0",
    b"FTEX\0\0\0\1\0\0\0\x18\0\0\0\x14\0\0\0\1\0\0\0\1",
    b"\0\0\0\x1c\0\0\0\2\0\0\0\x18\0\0\0\x14\0\0\0\3GIMP",
    b"\x59\xa6\x6a\x95\0\0\0\x18\0\0\0\x14\0\0\0\x18\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0",
    b'/* XPM */\nstatic char *x[] = {\n"24 20 2 1",\n"a c #000000",\n"b c #ffffff",\n',
    b"\x80\xe8\0\0" + b"\0" * 412 + b"\x14\0\x18\0\x0e\0",
    b"\0\0\0\0\0\0\0\4" + b"\0\0\0\1" * 62,
    b"\x1c\x03\x3c\0\2\1\0\x1c\x03\x14\0\1\x18\x1c\x03\x1e\0\1\x14",
    b"\0\0\2\0\1\0\x18\x14\0\0\1\0\1\0\0\1\0\0\x16\0\0\0",
    b"\x3a\xde\x68\xb1\x10\0\0\0\x30\0\0\0",
    b"P7 332\n#END_OF_COMMENTS\n24 20 255\n",
    b"P6 24 20 65535\n",
    b"P5 24 20 4095\n",
    b"Pf\n24 20\n-1.0\n",
    b"\0\0\1\xb3\1\x80\x14\x13",
    b"Image type: Greyscale image\r\nImage size (x*y): 24*20\r\nLut: 0\r\n",
]


def _canvas(seed: int) -> Image.Image:
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    waves = [128 + 90 * np.sin(seed + x / 3), 128 + 90 * np.cos(y / 2), 128 + 90 * np.sin((x + y) / 2)]
    return Image.fromarray(np.stack(waves, -1).astype(np.uint8))


def _in_mode(mode: str, seed: int = 0) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(_canvas(seed))[..., 0].astype(np.uint16) * 257)
    return _canvas(seed).convert(mode)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    exif.get_ifd(0x8769)[0x9286] = b"a comment of the user"
    return exif


def _saved(kind: str, mode: str, options: dict) -> bytes | None:
    buffer = io.BytesIO()
    options = options | ({"exif": _exif()} if "exif" in options else {})
    options |= {"append_images": [_in_mode(mode, seed) for seed in (1, 2)]} if "save_all" in options else {}
    try:
        _in_mode(mode).save(buffer, kind, **options)
    except Exception:  # noqa: BLE001 - this Pillow does not write the mode, or not without a library
        return None
    return buffer.getvalue()


def _tiled_tiff() -> bytes:
    """An uncompressed TIFF of 16 × 16 tiles, little-endian, with an orientation."""
    tiles = [bytes(range(256)) for _ in range(4)]
    tags = [
        (256, 3, 24),
        (257, 3, 20),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (274, 3, 8),
        (277, 3, 1),
        (322, 3, 16),
        (323, 3, 16),
    ]
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    fields += struct.pack("<HHII", 324, 4, 4, start) + struct.pack("<HHII", 325, 4, 4, start + 16)
    places = [start + 32 + 256 * i for i in range(4)]
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags) + 2) + fields + struct.pack("<I", 0)
    return head + struct.pack("<8I", *places, *[256] * 4) + b"".join(tiles)


def whole() -> list[bytes]:
    """Pictures without damage, in an order that depends on Pillow alone."""
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modes = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]
        saved = [_saved(kind, mode, {}) for kind in sorted(Image.SAVE.keys() - ODD) for mode in modes]
        saved += [_saved(*way) for way in WAYS]
    return list(
        dict.fromkeys([*filter(None, saved), _tiled_tiff(), *(beginning + bytes(range(256)) * 7 for beginning in BEGINNINGS)])
    )


def _with_right_sums(content: bytes) -> bytes:
    """A PNG whose checksums fit what is in it: else its reader would stop at them."""
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        length = min(int.from_bytes(content[at : at + 4], "big"), len(content) - at - 12)
        body = content[at + 4 : at + 8 + length]
        parts += [struct.pack(">I", length), body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join(parts) + content[at:]


def damaged(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to four kinds of damage."""
    parts = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        size = max(len(parts), 1)
        head = min(size, rng.choice([32, 128, 512, size]))
        at = rng.randrange(head)
        match rng.randrange(7):
            case 0:
                for _ in range(rng.choice([1, 3, 20])):
                    parts[rng.randrange(head) : at + 1] = parts[rng.randrange(head) : at + 1]
            case 1 if parts:
                for _ in range(rng.choice([1, 3, 20])):
                    parts[min(rng.randrange(head), len(parts) - 1)] ^= 1 << rng.randrange(8)
            case 2:
                del parts[rng.randrange(size) :]
            case 3:
                other = rng.choice(others)
                begin = rng.randrange(max(len(other), 1))
                parts[at : at + rng.randrange(64)] = other[begin : begin + rng.randrange(64)]
            case 4:
                values = [0, 1, 2, 3, 7, 255, 256, 4096, 65535, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)]
                field = struct.pack(rng.choice("<>") + "I", rng.choice(values))
                width = rng.choice([1, 2, 4])
                parts[at : at + width] = field[:width] if rng.random() < 0.5 else field[-width:]
            case 5:
                parts[at:at] = rng.randbytes(rng.choice([1, 4, 16, 300]))
            case 6:
                del parts[at : at + rng.choice([1, 2, 4, 16])]
    result = bytes(parts)
    return _with_right_sums(result) if result.startswith(b"\x89PNG") and rng.random() < 0.8 else result


def escape(path: Path) -> str | None:
    """What else than a photo, or an error that names the file in one line, comes of reading ``path``."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            photo = load_photo(path)
            for kind in ("PNG", "JPEG"):  # what is drawn of it can be written
                photo.fitted(100).picture.save(io.BytesIO(), kind)
        except ImageError as error:
            if repr(str(path)) not in str(error) or not str(error).isprintable():
                return f"said {str(error)!r}"
        except BaseException as error:  # noqa: BLE001 - this is what is looked for
            return f"raised {error!r}"
        if warned:
            return f"warned {warned[0].message!r}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(path)
    except Exception:  # noqa: BLE001 - Pillow's own error, in the user's own call
        return None
    with picture:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                as_photo(picture)
        except ImageError as error:
            return (
                None
                if str(error).startswith("the picture") and str(error).isprintable()
                else f"said {str(error)!r} of a picture"
            )
        except BaseException as error:  # noqa: BLE001
            return f"raised {error!r} for a picture"
    return None


def case(seed: int, pictures: list[bytes]) -> bytes:
    """The file of a seed."""
    rng = random.Random(seed)
    return damaged(rng.choice(pictures), pictures, rng)


def main(seconds: float) -> None:
    Image.MAX_IMAGE_PIXELS = 10**6
    pictures, start, seed, found = whole(), time.monotonic(), 1_000_000, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.image"
        while time.monotonic() - start < seconds:
            path.write_bytes(case(seed, pictures))
            began = time.monotonic()
            if (what := escape(path)) is not None:
                found.setdefault(what.replace(folder, ""), []).append(seed)
            if time.monotonic() - began > 1:
                found.setdefault("took more than a second", []).append(seed)
            seed += 1
    for what, seeds in found.items():
        print(f"{len(seeds)} × {what}, seeds {seeds[:5]}")
    print(f"{seed - 1_000_000} damaged files of {len(pictures)} whole ones, {sum(map(len, found.values()))} escaped")


if __name__ == "__main__":
    main(float(sys.argv[1]))
