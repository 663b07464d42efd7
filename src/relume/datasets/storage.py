"""Where files are read and written: a folder of this machine, or a place that fsspec opens, such as object storage."""

from __future__ import annotations

import io
import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from relume.errors import InputError, OutputError
from relume.pages.folder import check_writable
from relume.pages.owner import prefix
from relume.text import first_line

__all__ = ["Storage", "UnreachableError", "is_url", "joined", "storage_of"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::|://)")

#: Answers of a server that are about one file, and not about the server.
_OF_FILE = (401, 403, 404, 410, 416)


class UnreachableError(InputError):
    """A place of files does not answer, or lets nobody in: whatever is asked of it next would fail as well."""


def is_url(place: str) -> bool:
    """Tell whether a place is opened by fsspec, and no path of this machine.

    Example:
        >>> from relume.datasets.storage import is_url
        >>> [is_url(place) for place in ("s3://bucket/photos", "simplecache::s3://bucket", "photos", "tree:photos")]
        [True, True, False, False]
    """
    return _URL.match(place) is not None and not place.startswith(("file://", "local://"))


def joined(place: str, name: str) -> str:
    """Return the place of a file in the folder ``place``.

    Example:
        >>> from relume.datasets.storage import joined
        >>> joined("s3://bucket/photos/", "a.jpg"), joined("zip://photos::s3://bucket/all.zip", "a.jpg")
        ('s3://bucket/photos/a.jpg', 'zip://photos/a.jpg::s3://bucket/all.zip')
    """
    if not is_url(place):
        return str(Path(place, name))
    protocol, slashes, rest = place.partition("://")
    inner, colons, outer = rest.partition("::")
    return f"{protocol}{slashes}{inner.rstrip('/')}/{name}{colons}{outer}"


class Storage(ABC):
    """A folder of files, of which each is there whole or not at all. It can be pickled; as text it is what the user wrote."""

    @abstractmethod
    def check(self) -> None:
        """Check that it can be used, before any work is done for what is to be written there.

        Raises:
            OutputError: it is not a folder, or not one that may be written to.
            UnreachableError: the place does not answer.
        """

    @abstractmethod
    def put(self, name: str, content: bytes | memoryview) -> None:
        """Write a file whole or not at all; it is there for good when this returns.

        Raises:
            OutputError: it cannot be written; nothing of it is left.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file to read any part of it.

        Raises:
            OSError: there is none, or it cannot be read.
            UnreachableError: the place does not answer, now or while the file is read.
        """

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """List the files in a folder of it by their names, in order; none if there is no such folder."""

    @abstractmethod
    def exists(self, name: str = "") -> bool:
        """Tell whether there is a file or folder, or the storage itself."""

    @abstractmethod
    def remove(self, name: str = "") -> None:
        """Remove a file if it is there, or an empty folder."""

    @abstractmethod
    def touch(self, name: str) -> None:
        """Make an empty file, or say by one that is there that its owner is still at work."""

    @abstractmethod
    def touched(self, name: str) -> float:
        """Return when a file was touched last, in seconds, by the clock of all of the storage's files.

        Raises:
            OSError: there is no such file.
        """


def storage_of(place: str | Path | Storage) -> Storage:
    """Open a folder, or a URL such as ``s3://bucket/folder``, without a look at what is there.

    Raises:
        InputError: no package that is installed opens such a URL.

    Example:
        >>> from relume.datasets.storage import storage_of
        >>> storage = storage_of("memory://example")
        >>> storage.put("a/1.txt", b"one")
        >>> storage.names("a"), storage.open("a/1.txt").read()
        (['1.txt'], b'one')
        >>> storage.remove("a/1.txt")
    """
    if isinstance(place, Storage):
        return place
    if not is_url(text := str(place)):
        return _Folder(Path(re.sub(r"^(file|local)://", "", text)))
    return _Place(text, *_opened(text))


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec that opens a URL, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise InputError(f"{url!r} needs fsspec, which is not installed; run: pip install 'relume[run]'") from None
    try:
        opened: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except ImportError as error:
        protocol = url.partition(":")[0]
        package = fsspec.registry.known_implementations[protocol]["class"].partition(".")[0]
        package = f"'fsspec[{protocol}]'" if package == "fsspec" else package
        raise InputError(f"{url!r} needs a package that is not installed; run: pip install {package}") from error
    except Exception as error:
        raise InputError(f"{url!r} cannot be opened: {first_line(error)}; check the address") from error
    return opened


@dataclass(frozen=True)
class _Folder(Storage):
    """A folder of this machine. Files have a temporary name until they are on disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        check_writable(self.path)

    def put(self, name: str, content: bytes | memoryview) -> None:
        path = self.path / name
        aside = path.with_name(f"{prefix()}{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with aside.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
            _sync(path.parent)
        except OSError as error:
            raise _unwritten(str(path), error.strerror or error) from error

    def open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")

    def names(self, folder: str = "") -> list[str]:
        place = self.path / folder
        return sorted(path.name for path in place.iterdir() if path.is_file()) if place.is_dir() else []

    def exists(self, name: str = "") -> bool:
        return (self.path / name).exists()

    def remove(self, name: str = "") -> None:
        path = self.path / name
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)

    def touch(self, name: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def touched(self, name: str) -> float:
        return (self.path / name).stat().st_mtime


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on disk; not on Windows, where a folder cannot be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritten(place: str, reason: object) -> OutputError:
    return OutputError(f"cannot write {place!r}: {reason}; nothing of it is left: see to that, and go on")


@dataclass(frozen=True)
class _Place(Storage):
    """A place that fsspec opens. A file is one put, which is whole or absent, and nothing is renamed."""

    url: str
    files: Any  # fsspec's
    root: str

    def __str__(self) -> str:
        return self.url

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.root.rstrip("/"), name) if part)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Tell errors about one file from all others, whatever their classes are."""
        try:
            yield
        except Exception as error:
            if _is_about_file(error):
                raise error if isinstance(error, OSError) else OSError(first_line(error)) from error
            raise UnreachableError(
                f"{self.url!r} cannot be reached: {first_line(error)}; "
                "check its address, the credentials and the network, and run the same again"
            ) from error

    def check(self) -> None:
        self.names()

    def put(self, name: str, content: bytes | memoryview) -> None:
        try:
            self.files.pipe_file(self._path(name), bytes(content))
        except Exception as error:
            raise _unwritten(joined(self.url, name), first_line(error)) from error

    def open(self, name: str) -> BinaryIO:
        with self._asking():
            return cast("BinaryIO", _File(self, self.files.open(self._path(name), "rb")))

    def names(self, folder: str = "") -> list[str]:
        self.files.invalidate_cache()  # others write there too
        with suppress(FileNotFoundError, NotADirectoryError), self._asking():
            entries = self.files.ls(self._path(folder), detail=True)
            names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "file")
            return sorted(name for name in names if name)
        return []

    def exists(self, name: str = "") -> bool:
        self.files.invalidate_cache()
        with self._asking():
            return not name or bool(self.files.exists(self._path(name)))  # a folder is a part of names

    def remove(self, name: str = "") -> None:
        with suppress(FileNotFoundError), self._asking():
            self.files.rm_file(self._path(name))

    def touch(self, name: str) -> None:
        self.put(name, repr(time.time()).encode())

    def touched(self, name: str) -> float:
        with self._asking():
            return float(self.files.cat_file(self._path(name)))


def _is_about_file(error: Exception) -> bool:
    """Tell whether an error is about one file, which is missing or forbidden, and not about the whole place."""
    if isinstance(error, PermissionError):  # of S3 also for credentials that are wrong, or no longer valid
        return not re.search(
            r"Expired|InvalidAccessKey|InvalidToken|InvalidSecurity|SignatureDoesNotMatch", repr(error.__cause__)
        )
    known = FileNotFoundError, IsADirectoryError, NotADirectoryError
    return isinstance(error, known) or getattr(error, "status", None) in _OF_FILE


class _File(io.RawIOBase):
    """A file of fsspec, whose errors are told apart as those of its storage."""

    def __init__(self, storage: _Place, file: Any) -> None:
        self._storage, self._file = storage, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with self._storage._asking():
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
