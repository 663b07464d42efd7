"""The photos of a command: their results one after the other, and a line for each that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from relume.cli.common import complain, say_notes
from relume.cli.failures import MemoryLimitError, NetworkError, in_words
from relume.errors import ImageError, NonFiniteError, OutputError, RelumeError
from relume.text import printable

if TYPE_CHECKING:
    from relume.cli.options import Asked
    from relume.explanation.comparison import Comparison
    from relume.methods.wrapper import MethodLike
    from relume.models.opened import Opened
    from relume.pictures.photo import Photo
    from relume.pictures.recording import Recording
    from relume.targets import TargetLike

__all__ = ["Failures", "Photos", "comparisons", "distinct_names", "each_photo"]

T = TypeVar("T")

#: The photos that a command is about.
Photos: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="PHOTO",
        help="Files of pictures, volumes, signals or clips, or folders: all such files in them and in the folders inside.",
        readable=False,
    ),
]


def distinct_names(photos: Sequence[Path]) -> dict[Path, str]:
    """Name each photo by its file, after its folder if another has the same name."""
    names = Counter(photo.name for photo in set(photos))
    return {photo: printable(photo.name if names[photo.name] == 1 else photo) for photo in photos}


@dataclass(slots=True)
class Failures:
    """The failures of single photos, each reported in a line of its own.

    As long as no photo was done, an error may not be about the photo at all. So the same is tried on drawn pictures: if they
    fail alike, every photo would. That ends the command, unless the error is one that depends on the photo.

    Attributes:
        attempt: does with a drawn picture what is done with a photo.
        depends: errors that depend on the photo although drawn pictures fail alike.
        done: the number of photos that were done.
        failed: the number of photos that failed.
    """

    attempt: Callable[[Photo], object]
    depends: tuple[type[RelumeError], ...] = ()
    done: int = 0
    failed: int = 0
    _sentences: set[str] = field(default_factory=set)
    _general: set[str] = field(default_factory=set)
    _last: str = ""

    def add(self, error: Exception, path: Path | None = None) -> str:
        """Report that a photo failed, and return the sentence.

        Raises:
            RelumeError: every photo fails so.
        """
        from relume.engine.diagnosis import AxesError

        failure = in_words(error)
        sentence = str(failure)
        if not self.done and sentence not in self._sentences and self._is_general(failure):
            self._general.add(sentence)
            if not isinstance(failure, (AxesError, NetworkError, NonFiniteError, *self.depends)):
                raise failure
        complain("the same" if sentence == self._last else failure, path)
        self._sentences.add(sentence)
        self.failed, self._last = self.failed + 1, sentence
        return sentence

    def _is_general(self, error: RelumeError) -> bool:
        """Tell whether two pictures that have nothing in common fail too, one of them just as a photo did."""
        if isinstance(error, ImageError | OutputError | MemoryLimitError):
            return False
        from PIL import Image

        from relume.demo import draw_scene
        from relume.pictures.photo import Photo

        pictures = (draw_scene(0).picture, Image.new("RGB", (256, 256)))
        sentences = [self._attempted(Photo.whole(picture)) for picture in pictures]
        return None not in sentences and str(error) in sentences

    def _attempted(self, photo: Photo) -> str | None:
        """Try a drawn picture, and return its error in words; None if there was none."""
        try:
            self.attempt(photo)
        except Exception as error:  # noqa: BLE001 - each is compared
            return str(in_words(error))
        return None

    def end(self, total: int, so: str) -> int:
        """Report how many failed ``so``, and return the exit code: 1 if any did, 2 if every photo would have."""
        if self.failed and total > 1:
            complain(f"{self.failed} of {total} {so}")
        general = not self.done and self._sentences <= self._general
        return 0 if not self.failed else 2 if general else 1


def each_photo(results: Iterable[tuple[Path, T | Exception]], failures: Failures, keep: Callable[[T, Path], None]) -> None:
    """Keep the result of each photo, or report its failure; whatever fails for one, all others are done.

    Raises:
        RelumeError: what is wrong would be so for every photo.
    """
    for path, result in results:
        if isinstance(result, Exception):
            failures.add(result, path)
            continue
        try:
            keep(result, path)
        except Exception as error:  # noqa: BLE001 - each is reported
            failures.add(error, path)
        else:
            failures.done += 1


def comparisons(
    opened: Opened,
    photos: Sequence[Path],
    targets: Sequence[TargetLike],
    methods: Sequence[MethodLike],
    layer: str | None,
    asked: Asked,
) -> Iterator[tuple[Path, Comparison | Exception]]:
    """Explain photos in batches; say on stderr what a reader must know of each file, when its result arrives."""
    from relume.models.photos import read_photo

    notes: dict[Path, tuple[str, ...]] = {}

    def read(path: Path) -> Photo | Recording:
        photo = read_photo(path)
        notes[path] = photo.notes
        return photo

    results = opened.comparisons(photos, targets, methods, layer, read=read, **asked.options)
    for path, result in results:
        say_notes(path, notes.pop(path, ()))
        yield path, result
