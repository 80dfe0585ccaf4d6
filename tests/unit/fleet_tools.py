"""What the tests of the owner's desk share."""

from collections.abc import Iterator

from nacl.bindings import randombytes_buf_deterministic


class Seeded:
    """A draw whose bytes are the same in every run."""

    def __init__(self, seed: int = 0) -> None:
        self._count = seed << 64

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return randombytes_buf_deterministic(size, self._count.to_bytes(32, "little"))


class Empty:
    """A store with nothing in it."""

    def get(self, key: str) -> bytes | None:
        return None

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        return iter(())
