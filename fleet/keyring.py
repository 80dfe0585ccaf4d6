"""The owners' secret keys on disk, and how new ones take the place of old ones.

    keys/<role>-<n>.key                the keys that the newest root names
    keys/next/<role>-<n>.key           new keys, until the root that names them is in force
    keys/retired/<role>-<key id>.key   keys that the newest root does not name

Which keys count is for the newest root to say, wherever their files lie. So a rotation that dies before its root is
written has not begun, and one that dies later is finished by the next signature. No key is ever deleted or overwritten.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fleet.owner import KeySet, Owner
from fleet.transport import sync_directory, write_file
from hushfleet.bundle import read_secret
from hushfleet.errors import ConfigurationError
from hushfleet.hashing import key_id
from hushfleet.wire.documents import Root

ROLES = ("root", "signer", "fresh")


class Keyring:
    """The directory `keys` of an owners' desk."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._next = directory, directory / "next"
        self.retired = directory / "retired"

    def add(self, key_sets: Mapping[str, KeySet]) -> None:
        """Write a new fleet's keys, by role."""
        _write(self._directory, key_sets)

    def owner(self, root: Root) -> Owner:
        """The keys at hand that `root` names.

        Raises:
            ConfigurationError: a key file is damaged or open to other users.
        """
        found: dict[str, list[bytes]] = {role: [] for role in ROLES}
        for _, role, seed, public_key in self._files():
            if public_key in root.roles()[role][0] and seed not in found[role]:
                found[role].append(seed)
        return Owner(
            root.fleet, **{role: KeySet(tuple(found[role]), threshold) for role, (_, threshold) in root.roles().items()}
        )

    def stage(self, key_sets: Mapping[str, KeySet]) -> None:
        """Write new keys beside those in force, before a root names them."""
        _make(self._next)
        _write(self._next, key_sets)

    def settle(self, root: Root) -> list[Path]:
        """Move the keys that `root` does not name to `retired`, then new ones that it names to their place.

        Returns:
            Where the keys went that count no more.
        """
        gone: list[Path] = []
        for path, role, _, public_key in self._files():
            if public_key not in root.roles()[role][0]:
                _make(self.retired)
                gone.append(self.retired / f"{role}-{key_id(public_key).hex()}.key")
                _move(path, gone[-1])
        for path, *_ in self._files():
            if path.parent == self._next:
                _move(path, self._directory / path.name)
        for partial in self._next.glob(".*.partial"):
            partial.unlink()
        with suppress(OSError):
            self._next.rmdir()
        return gone

    def _files(self) -> Iterator[tuple[Path, str, bytes, bytes]]:
        """Path, role, seed and public key of every key file, in the order of their names."""
        for directory in (self._directory, self._next):
            for role in ROLES:
                for path in sorted(directory.glob(f"{role}-*.key")):
                    seed = read_secret(path)
                    (public_key,) = KeySet((seed,), 1).public_keys()
                    yield path, role, seed, public_key


def _write(directory: Path, key_sets: Mapping[str, KeySet]) -> None:
    for role, key_set in key_sets.items():
        for number, seed in enumerate(key_set.seeds, start=1):
            write_secret(directory / f"{role}-{number}.key", seed)


def write_secret(path: Path, secret: bytes) -> None:
    """Write 32 secret bytes as hexadecimal text, mode 0600."""
    write_file(path, secret.hex().encode() + b"\n", 0o600)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make {directory}: {error.strerror}; make its place writable") from error
    sync_directory(directory.parent)


def _move(path: Path, target: Path) -> None:
    """Move a key; the file keeps its mode. Only the same key's file is replaced."""
    if target.exists() and read_secret(target) != read_secret(path):
        raise ConfigurationError(f"{path} and {target} are two keys; move the one that is not wanted away")
    try:
        os.rename(path, target)
    except OSError as error:
        raise ConfigurationError(f"cannot move {path} to {target}: {error.strerror}; make both writable") from error
    sync_directory(target.parent)
    sync_directory(path.parent)
