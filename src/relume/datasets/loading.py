"""Threads beside the one that the network runs in: they read and prepare pictures ahead of it, and make rows behind it."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from relume.pictures.decoding import libtiff_silent

__all__ = ["DEFAULT_LOADERS", "ahead"]

P = TypeVar("P")
R = TypeVar("R")

#: More threads of Python hardly read more: each holds the interpreter for a part of the time.
DEFAULT_LOADERS = min(4, os.cpu_count() or 1)


@contextmanager
def ahead(function: Callable[[P], R], items: Iterable[P], loaders: int, waiting: int) -> Iterator[Iterator[R]]:
    """Give the results of a function of items, in order, computed by threads ahead of their turn.

    Threads, not processes: nothing is left of them where the run is killed, memory is shared, and a source need not be pickled.

    Args:
        function: loads one item.
        items: taken when their turn comes.
        loaders: how many threads; 0 computes each result when it is asked for.
        waiting: how many results may wait for their turn; the next item is taken before the result whose turn it is.

    Example:
        >>> from relume.datasets.loading import ahead
        >>> with ahead(abs, [-1, 2, -3], loaders=2, waiting=2) as results:
        ...     list(results)
        [1, 2, 3]
    """
    if loaders == 0:
        yield map(function, items)
        return
    remaining, results = iter(items), deque[Future[R]]()
    # decoding changes settings of the whole process for its time, and threads put them back in any order
    with warnings.catch_warnings(), libtiff_silent(), ThreadPoolExecutor(loaders, "relume-loader") as pool:
        warnings.filterwarnings("ignore", module="PIL")

        def ordered() -> Iterator[R]:
            results.extend(pool.submit(function, item) for item in islice(remaining, waiting))
            while results:
                results.extend(pool.submit(function, item) for item in islice(remaining, 1))
                yield results.popleft().result()

        try:
            yield ordered()
        finally:
            pool.shutdown(cancel_futures=True)
