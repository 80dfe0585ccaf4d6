"""The lines of text files that grow, are rotated, are begun anew, or follow one another under names in order."""

import os
from collections import Counter
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE = 2**16
LARGEST_BITE = 2**18
"""Bytes of a line, and bytes that are read in one call."""


class Tail:
    """Follows the file that has a name, or the files whose names fit a pattern, one after the other.

    Args:
        path: the file's; it may be made later. With `*` in its name: of those that fit, the next by name is read once
            the one before is at its end, as where a logger begins one each day.
        from_start: whether to read what is there already; the file that a rotation puts in its place is read whole.
        has_header: whether the first line is none of those that are read.
        since: seconds since 1970; of the files of a pattern, those that were written to before are passed over.

    Attributes:
        header: the first line of the file that is being read, if it has one.
        refused: how often something was dropped, by reason.
    """

    def __init__(self, path: Path, from_start: bool, has_header: bool = False, since: float = 0.0) -> None:
        self.header = b""
        self.refused: Counter[str] = Counter()
        self._path = path
        self._here: Path | None = None
        self._from_start = from_start
        self._has_header = has_header
        self._since = since
        self._file: BinaryIO | None = None
        self._rest = b""
        self._too_long = False
        self._error: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why there is nothing to read just now, with the remedy."""
        return self._error

    def lines(self) -> list[bytes]:
        """The complete lines that were added since the last call, without their ends; at most `LARGEST_BITE` bytes."""
        try:
            return self._read()
        except FileNotFoundError:
            # What is made from now on is new.
            self._from_start = True
            self._error = f"there is no file {self._path}; it is read as soon as there is"
        except OSError as error:
            self._error = f"cannot read {self._path}: {error.strerror}; name a file that the agent's user may read"
        return []

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> list[bytes]:
        file = self._file or self._open(self._find(), self._from_start)
        # So is whatever replaces this file.
        self._from_start = True
        here = os.fstat(file.fileno())
        if here.st_size < file.tell() or self._begins_otherwise(file):
            self.refused["a file that was cut short, and is read anew"] += 1
            self.close()
            file = self._open(self._here or self._path, from_start=True)
        bite = file.read(LARGEST_BITE)
        if not bite and (self._find() != self._here or self._is_replaced(here)):
            # What the old file still gained was read to its end; a line without an end there never gets one.
            self.close()
            bite = self._open(self._find(), from_start=True).read(LARGEST_BITE)
        self._error = None
        return self._split(bite)

    def _find(self) -> Path:
        """The file to read: with a pattern the next by name, or the one that was read while there is none."""
        if "*" not in self._path.name:
            return self._path
        names = sorted(self._path.parent.glob(self._path.name))
        if self._here is None:
            found = [name for name in names if name.stat().st_mtime >= self._since] or names[-1:]
            found = found[:1] if self._from_start else names[-1:]
        else:
            found = [name for name in names if name > self._here][:1] or [self._here]
        if not found:
            raise FileNotFoundError
        return found[0]

    def _open(self, path: Path, from_start: bool) -> BinaryIO:
        if path.exists() and not path.is_file():
            # A pipe would block for ever.
            raise OSError(0, "it is not a file")
        file = path.open("rb")
        self._rest, self._too_long = b"", False
        if self._has_header:
            self.header = file.readline(LONGEST_LINE)
            if not self.header.endswith(b"\n"):
                file.close()
                raise OSError(0, "its first line is not complete")
        if not from_start:
            file.seek(0, os.SEEK_END)
        self._here, self._file = path, file
        return file

    def _begins_otherwise(self, file: BinaryIO) -> bool:
        """Whether another program has written a file anew in the same place, no shorter than it was."""
        return os.pread(file.fileno(), len(self.header), 0) != self.header

    def _is_replaced(self, here: os.stat_result) -> bool:
        there = (self._here or self._path).stat()
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _split(self, bite: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + bite).split(b"\n")
        found = []
        for line in lines:
            if self._too_long or len(line) > LONGEST_LINE:
                self._too_long = False
                self.refused[f"a line of more than {LONGEST_LINE} bytes"] += 1
            else:
                found.append(line.removesuffix(b"\r"))
        if len(self._rest) > LONGEST_LINE:
            self._rest, self._too_long = b"", True
        return found
