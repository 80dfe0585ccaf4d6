"""Earlier model versions, and the operator's wish to go back to one of them (docs/protocol.md, section 4). No I/O.

Records: `history/versions` which versions there are, `history/{version}` the state of each, `history/wanted` where the
operator wants the model to go. Devices keep no versions of their own: what is not here cannot be reached.
"""

from dataclasses import dataclass
from typing import ClassVar

from hushfleet.actions import Action, Erase, Save, Store
from hushfleet.errors import RefusedError
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import B32, U32, Bytes, Table, indices, pack_indices

VERSIONS, WANTED = "history/versions", "history/wanted"
LONGEST = 20
"""Versions kept at most, whatever the policy allows: each takes 4 to 12 bytes a parameter of the disk."""


@dataclass(frozen=True, slots=True)
class Saved(Table):
    """One version of the model of a spec; `flat` is its snapshot, float32, empty for version 0."""

    KIND: ClassVar[str] = "live"
    spec: B32
    version: U32
    hash: B32
    flat: Bytes


@dataclass(frozen=True, slots=True)
class _Versions(Table):
    KIND: ClassVar[str] = "versions"
    spec: B32
    versions: Bytes


@dataclass(frozen=True, slots=True)
class _Wanted(Table):
    KIND: ClassVar[str] = "wanted"
    spec: B32
    version: U32


class History:
    """What is kept, and what is wanted. Built anew from its records at every start."""

    def __init__(self, store: Store) -> None:
        self._store = store
        kept, wanted = store.get(VERSIONS), store.get(WANTED)
        self._kept = _Versions.from_body(kept) if kept else _Versions(bytes(32), b"")
        self._wanted = _Wanted.from_body(wanted) if wanted else None

    def _versions(self, spec: bytes) -> list[int]:
        return list(indices(self._kept.versions)) if self._kept.spec == spec else []

    def reachable(self, newest: Saved, highest: int, policy: Policy) -> list[int]:
        """Versions that the model can go back to, ascending.

        Args:
            newest: the newest version.
            highest: the highest that there ever was of this model spec; devices reckon the policy's bound from it.
            policy: the newest.
        """
        versions = self._versions(newest.spec)
        return [version for version in versions if _oldest(highest, policy) <= version < newest.version]

    def keep(self, left: Saved, highest: int, policy: Policy) -> list[Action]:
        """Remember the version before the newest; forget those that are out of the policy's reach."""
        before = self._versions(left.spec)
        oldest = _oldest(highest, policy)
        versions = [version for version in {*before, left.version} if oldest <= version <= left.version]
        actions = self._hold(left.spec, sorted(versions))
        if left.version in versions:
            actions.append(Save(_key(left.version), left.to_body()))
        return actions

    def _hold(self, spec: bytes, versions: list[int]) -> list[Action]:
        """Know of just these versions from now on."""
        if versions == self._versions(spec):
            return []
        gone = set(indices(self._kept.versions)) - set(versions)
        self._kept = _Versions(spec, pack_indices(versions))
        return [*(Erase(_key(version)) for version in sorted(gone)), Save(VERSIONS, self._kept.to_body())]

    # The way back.

    def wanted(self, spec: bytes) -> int | None:
        """The version that the operator wants to go back to, if it is one of this model spec."""
        return self._wanted.version if self._wanted and self._wanted.spec == spec else None

    def want(self, version: int, spec: bytes) -> list[Save]:
        """Remember the operator's wish until it is fulfilled or refused."""
        self._wanted = _Wanted(spec, version)
        return [Save(WANTED, self._wanted.to_body())]

    def settled(self) -> list[Action]:
        """The wish is fulfilled, or refused."""
        self._wanted = None
        return [Erase(WANTED)]

    def check(self, version: int, newest: Saved, highest: int, policy: Policy) -> None:
        """RefusedError unless that version can be gone back to; the text says which can."""
        reachable = self.reachable(newest, highest, policy)
        if version in reachable:
            return
        if not policy.rollback_versions:
            raise RefusedError(
                "the policy allows no rollback: sign one with rollback_versions above 0; what is made under it is kept"
            )
        can = f"what can be reached: {', '.join(map(str, reachable))}" if reachable else "none can be reached yet"
        raise RefusedError(
            f"the model cannot go back from version {newest.version} to {version}: the policy allows "
            f"{policy.rollback_versions} behind the highest there was, {highest}; {can}"
        )

    def take(self, version: int, spec: bytes) -> tuple[Saved, list[Action]]:
        """A version that can be reached, and what is to be saved when it becomes the newest."""
        saved = self._store.get(_key(version))
        assert saved is not None
        left = [kept for kept in self._versions(spec) if kept < version]
        return Saved.from_body(saved), self._hold(spec, left)


def _oldest(highest: int, policy: Policy) -> int:
    return max(0, highest - min(policy.rollback_versions, LONGEST))


def _key(version: int) -> str:
    return f"history/{version:010}"
