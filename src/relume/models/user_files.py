"""Files that a user names: refused in a sentence where they are none that can be read."""

from __future__ import annotations

from pathlib import Path

from relume.errors import ModelError

__all__ = ["check_file"]


def check_file(path: Path, what: str) -> None:
    """Refuse what is no file with something in it; ``what`` it should be, such as "weights file".

    Raises:
        ModelError: nothing is there, it is a folder or a pipe, it may not be read, or it is empty.
    """
    name = f"the {what} {str(path)!r}"
    try:
        if path.is_dir():
            found = f"; it may be a network of transformers: --model hf:{path}" if (path / "config.json").is_file() else ""
            raise ModelError(f"{name} is a folder; name a file in it{found}")
        if path.exists() and not path.is_file():
            raise ModelError(f"{name} is a pipe or a device; name a file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise ModelError(f"there is no {what} {str(path)!r}; check the path") from None
    except PermissionError:
        raise ModelError(f"{name} cannot be read: you have no permission to; change its permissions, or copy it") from None
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}; check the path") from error
    if empty:
        raise ModelError(f"{name} is empty; it may have been cut short: copy or download it again")
