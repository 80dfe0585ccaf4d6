"""Records that nobody needs to find again: the store of a rehearsal."""

from collections.abc import Iterator


class ScratchStore:
    """A store in memory, with the methods of a durable one."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """The record, or None."""
        return self._data.get(key)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """All records below `prefix`, ascending."""
        for key in sorted(key for key in self._data if key.startswith(prefix)):
            yield key, self._data[key]

    def begin(self) -> None:
        """Nothing to begin."""

    def save(self, key: str, value: bytes) -> None:
        """Write a record."""
        self._data[key] = value

    def erase(self, key: str) -> None:
        """Remove a record."""
        self._data.pop(key, None)

    def commit(self) -> None:
        """Nothing to commit."""

    def rollback(self) -> None:
        """Nothing to take back."""
