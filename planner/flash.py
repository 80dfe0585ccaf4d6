"""Bytes that a vault's commits write: SQLite's pages, to the log and later to the database (hushfleet.storage)."""

import math
from collections.abc import Sequence

from hushfleet.storage import PAGE_SIZE

OVERFLOW = PAGE_SIZE - 4
"""Payload of an overflow page; the padding before each value pushes it into those, nearly whole."""
FRAME = PAGE_SIZE + 24
"""A page in the log."""
MARK = 82
"""The high-water mark beside the database."""


def commit(saved: Sequence[int] = (), added: Sequence[int] = (), erased: Sequence[int] = ()) -> int:
    """Bytes that one commit causes, those of the next checkpoint included; within a tenth of what was counted.

    Args:
        saved, added, erased: bytes of each record that is written anew in its place, comes, or is overwritten and
            taken away. What comes or goes changes a leaf of the tree, what goes the list of free pages too.
    """
    kept = sum(map(_pages, (*saved, *added)))
    gone = sum(map(_pages, erased)) + 3 if erased else 0
    return FRAME * (1 + kept + bool(added) + gone) + PAGE_SIZE * kept + MARK


def _pages(size: int) -> int:
    return math.ceil(size / OVERFLOW)
