"""A history of fixed length that can be searched: the newest rows of something that only grows."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R")


class Ring(Generic[R]):
    """The newest `kept` rows at least, and never twice as many. `rows` is to be read, the oldest row first.

    Rows are dropped many at a time, so that adding one costs what appending to a list costs.
    """

    __slots__ = ("_kept", "rows")

    def __init__(self, kept: int) -> None:
        assert kept > 0, kept
        self._kept = kept
        self.rows: list[R] = []

    def add(self, row: R) -> None:
        """Add the newest row."""
        rows = self.rows
        rows.append(row)
        if len(rows) >= 2 * self._kept:
            del rows[: -self._kept]

    def select(
        self,
        key: Callable[[R], int],
        first: int | None,
        last: int | None,
        limit: int,
    ) -> list[R]:
        """Return at most `limit` rows with `first` ≤ key ≤ `last`, ascending; keys never fall.

        The oldest of them when there is a first, otherwise the newest.
        """
        rows = self.rows
        start = 0 if first is None else bisect_left(rows, first, key=key)
        end = len(rows) if last is None else bisect_left(rows, last + 1, key=key)
        if first is None:
            start = max(start, end - limit)
        return rows[start : min(end, start + limit)]
