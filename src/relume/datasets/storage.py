"""Where files are read and written: a folder of this machine, or a place that fsspec opens, such as object storage."""

from __future__ import annotations

import io
import os
import posixpath
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from relume.errors import InputError, OutputError, UnreachableError
from relume.models.photos import natural
from relume.pages.folder import check_writable
from relume.pages.owner import prefix
from relume.text import first_line

__all__ = ["Storage", "absolute", "files_in", "is_url", "joined", "split_glob", "split_url", "storage_of"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::|://)")

#: So many bytes are read ahead in a file.
_AHEAD = 4 * 2**20

#: Answers of a server that are about one file, and not about the server.
_OF_FILE = (403, 404, 410, 416)


def is_url(place: str) -> bool:
    """Tell whether fsspec opens a place, which is no path of this machine then.

    Example:
        >>> from relume.datasets.storage import is_url
        >>> [is_url(place) for place in ("s3://bucket/photos", "simplecache::s3://bucket", "photos", "tree:photos")]
        [True, True, False, False]
    """
    return _URL.match(place) is not None and not place.startswith("file://")


def absolute(place: str) -> str:
    """Return a path from the root on, through links as they are; a URL stays as it is."""
    return place if is_url(place) else os.path.abspath(joined("", place))  # noqa: PTH100 - resolve() would follow links


def split_url(url: str) -> tuple[str, str, str]:
    """Split a URL into its protocol, its path, and the rest of a chain of URLs.

    Example:
        >>> from relume.datasets.storage import split_url
        >>> split_url("zip://photos/*.jpg::s3://bucket/all.zip")
        ('zip://', 'photos/*.jpg', '::s3://bucket/all.zip')
    """
    protocol, slashes, rest = url.partition("://")
    path, colons, outer = rest.partition("::")
    return protocol + slashes, path, colons + outer


def split_glob(url: str) -> tuple[str, str]:
    """Split a URL into a folder without a wildcard, and the glob of what is in it, which is empty where there is none.

    Example:
        >>> from relume.datasets.storage import split_glob
        >>> split_glob("s3://bucket/photos/2026-*/*.jpg")
        ('s3://bucket/photos', '2026-*/*.jpg')
    """
    protocol, path, outer = split_url(url)
    wildcard = re.search(r"[*[]", path)
    fixed = path[: wildcard.start()].rpartition("/")[0] if wildcard else path
    return f"{protocol}{fixed}{outer}", path[len(fixed) :].lstrip("/")


def joined(place: str, name: str) -> str:
    """Return the place of a file in a folder; its name may be a whole place of its own.

    Example:
        >>> from relume.datasets.storage import joined
        >>> joined("s3://bucket/photos/", "a.jpg"), joined("s3://bucket/lists", "../a.jpg"), joined("s3://bucket", "s3://b/c.jpg")
        ('s3://bucket/photos/a.jpg', 's3://bucket/a.jpg', 's3://b/c.jpg')
    """
    if is_url(name):
        return name
    path = Path(name.removeprefix("file://"))
    if not is_url(place) or path.is_absolute():
        return str(Path(place, path))
    protocol, folder, outer = split_url(place)
    whole = f"{folder.rstrip('/')}/{name}"
    return protocol + (posixpath.normpath(whole) if ".." in path.parts else whole) + outer


class Storage(ABC):
    """A folder of files, of which each is there whole or not at all; or one file, whose name in it is empty.

    It can be pickled. As text it is what the user wrote.

    Attributes:
        at_once: how many threads read many files fastest; 0 for none, where a file takes no time.
    """

    at_once = 0

    @abstractmethod
    def check(self) -> None:
        """Check that it can be used, before any work is done for what is to be written there.

        Raises:
            OutputError: it is not a folder, or not one that may be written to.
            UnreachableError: the place does not answer.
        """

    @abstractmethod
    def for_arrow(self) -> tuple[Any, str]:
        """Return the file system of pyarrow that has it, and the path there."""

    @abstractmethod
    def put(self, name: str, content: bytes | memoryview) -> None:
        """Write a file whole or not at all; it is there for good when this returns.

        Raises:
            OutputError: it cannot be written; nothing of it is left.
        """

    @abstractmethod
    def open(self, name: str = "") -> BinaryIO:
        """Open a file to read any part of it.

        Raises:
            OSError: there is none, or it cannot be read.
            UnreachableError: the place does not answer, now or while the file is read.
        """

    @abstractmethod
    def read(self, name: str = "", start: int = 0, size: int | None = None) -> bytes:
        """Read a file, or so many bytes of it; fewer where it ends.

        Raises:
            OSError: there is none, or it cannot be read.
            UnreachableError: the place does not answer.
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
        return _Local(Path(joined("", text)))
    return _Remote(text, *_opened(text))


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec that opens a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError:
        raise InputError(f"{url!r} needs fsspec, which is not installed; run: pip install 'relume[run]'") from None
    try:
        opened: tuple[Any, str] = url_to_fs(url)
    except ImportError as error:
        protocol = url.rpartition("::")[2].partition(":")[0]
        package = known_implementations.get(protocol, {"class": protocol})["class"].partition(".")[0]
        package = f"'fsspec[{protocol}]'" if package == "fsspec" else package
        raise InputError(f"{url!r} needs a package that is not installed; run: pip install {package}") from error
    except Exception as error:
        raise InputError(f"{url!r} cannot be opened: {first_line(error)}; check the address") from error
    return opened


@dataclass(frozen=True)
class _Local(Storage):
    """A folder of this machine. Files have a temporary name until they are on disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        check_writable(self.path)

    def for_arrow(self) -> tuple[Any, str]:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(self.path.absolute())

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

    def open(self, name: str = "") -> BinaryIO:
        return (self.path / name).open("rb")

    def read(self, name: str = "", start: int = 0, size: int | None = None) -> bytes:
        with self.open(name) as file:
            file.seek(start)
            return file.read(-1 if size is None else size)

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
class _Remote(Storage):
    """A place that fsspec opens. A file is one put, which is whole or absent, and nothing is renamed."""

    url: str
    files: Any  # fsspec's
    root: str

    def __str__(self) -> str:
        return self.url

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return 16 if self.files.async_impl else 0

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.root.rstrip("/"), name) if part)

    @contextmanager
    def _asking(self, *, for_file: bool = True) -> Iterator[None]:
        """Tell errors about one file, of whatever class they are, from those that the next request would raise as well."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            if for_file and _is_about_file(error):
                if isinstance(error, OSError):
                    raise
                raise OSError(first_line(error)) from error
            raise UnreachableError(
                f"{self.url!r} cannot be reached: {first_line(error).rstrip('.')}; "
                "check its address, the credentials and the network, and run the same again"
            ) from error

    def check(self) -> None:
        self.names()

    def for_arrow(self) -> tuple[Any, str]:
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        return PyFileSystem(FSSpecHandler(self.files)), self.root

    def put(self, name: str, content: bytes | memoryview) -> None:
        try:
            self.files.pipe_file(self._path(name), bytes(content))
        except Exception as error:
            raise _unwritten(joined(self.url, name), first_line(error).rstrip(".")) from error

    def open(self, name: str = "") -> BinaryIO:
        with self._asking():
            return cast("BinaryIO", _File(self, self.files.open(self._path(name), "rb", block_size=_AHEAD)))

    def read(self, name: str = "", start: int = 0, size: int | None = None) -> bytes:
        if size == 0:
            return b""  # a range that S3 has no words for
        with self._asking():
            content: bytes = self.files.cat_file(self._path(name), start=start, end=None if size is None else start + size)
            return content

    def names(self, folder: str = "") -> list[str]:
        self.files.invalidate_cache()  # others write there too
        with suppress(FileNotFoundError), self._asking(for_file=False):
            entries = self.files.ls(self._path(folder), detail=True)
            names = (entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file")
            return sorted(filter(None, names))
        return []

    def exists(self, name: str = "") -> bool:
        self.files.invalidate_cache()
        with suppress(PermissionError), self._asking():  # as S3 says of what is not there to who may not list it
            return not name or bool(self.files.exists(self._path(name)))  # a folder is a part of names
        return False

    def remove(self, name: str = "") -> None:
        with suppress(FileNotFoundError), self._asking(for_file=False):
            self.files.rm_file(self._path(name))

    def touch(self, name: str) -> None:
        with self._asking(for_file=False):
            self.files.pipe_file(self._path(name), repr(time.time()).encode())

    def touched(self, name: str) -> float:
        with self._asking(for_file=False):
            return float(self.files.cat_file(self._path(name)))


def files_in(url: str, pattern: str = "") -> Iterator[str]:
    """Yield the files at a URL and in the folders inside, or what a glob matches, by their paths there, in natural order.

    Raises:
        InputError: they cannot be listed, or there is nothing at all.
    """
    files, root = _opened(url)
    storage = _Remote(url, files, root)
    files.invalidate_cache()
    try:
        with storage._asking():
            if not pattern:
                paths = files.find(root) or files.ls(root)  # which says what is missing
            else:
                matches = files.glob(storage._path(pattern), detail=True)
                paths = (p for path in matches for p in ([path] if matches[path]["type"] == "file" else files.find(path)))
            names = {path.removeprefix(root).lstrip("/") for path in paths if path[-1] != "/"}
    except FileNotFoundError as error:
        reason = first_line(error) if " " in str(error) else "no file"  # some errors are the path alone
        raise InputError(f"there is nothing at {url!r}: {reason}; check the address") from error
    except OSError as error:
        raise InputError(f"{url!r} cannot be listed: {first_line(error)}; check the credentials") from error
    yield from sorted(names, key=natural)


def _is_about_file(error: Exception) -> bool:
    """Tell whether an error is about one file, which is missing or forbidden, and not about the whole place."""
    words = str(error.__cause__)  # of S3, whose errors of both kinds are of one class
    if isinstance(error, PermissionError):
        return not re.search(r"Expired|InvalidAccessKey|InvalidSecurity|SignatureDoesNotMatch|TimeTooSkewed", words)
    return isinstance(error, IsADirectoryError) or getattr(error, "status", None) in _OF_FILE or "InvalidRange" in words


class _File(io.RawIOBase):
    """A file of fsspec, whose errors are told apart as those of its storage."""

    def __init__(self, storage: _Remote, file: Any) -> None:
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
