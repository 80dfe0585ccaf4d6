"""The model a device holds, and how it follows the fleet's newest (docs/protocol.md, 4, 6, 11.4, 11.7). No I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hushfleet.actions import Action, Save, Store
from hushfleet.errors import MalformedError, RefusedError
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import B32, U32, Bytes, Frame, Table, read_message
from hushfleet.wire.round import APPLIED, ROLLBACK, Delta, Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD = "model/live"
LONGEST_CHAIN = 20
"""Results kept to walk from one version to the next; as many as the coordinator retains."""


@dataclass(frozen=True, slots=True)
class _Record(Table):
    KIND: ClassVar[str] = "live"
    spec: B32
    version: U32
    hash: B32
    flat: Bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch next: `delta` or `snapshot` of a version, of at most so many bytes."""

    kind: str
    version: int
    limit: int


class LiveModel:
    """Version, hash and flat vector of the live model; version 0 of the spec until something newer is known."""

    def __init__(self, store: Store) -> None:
        self.version = 0
        self.hash = b""
        self._spec = b""
        self._flat: NDArray[np.float32] | None = None
        self._target: tuple[int, bytes] | None = None
        self._steps: dict[int, Result] = {}
        data = store.get(RECORD)
        if data is not None:
            record = _Record.from_body(data)
            self._spec, self.version, self.hash = record.spec, record.version, record.hash
            self._stored: bytes = record.flat
        else:
            self._stored = b""

    def use(self, spec: ModelSpec, spec_hash: bytes) -> None:
        """Work with this model spec; another one than before starts at version 0."""
        if self._spec != spec_hash:
            self._spec, self.version, self.hash = spec_hash, 0, spec.zero
            self._flat, self._stored, self._target = None, b"", None
            self._steps.clear()

    def flat(self, spec: ModelSpec) -> "NDArray[np.float32]":
        """The live flat vector, float32, shape (d,); the caller leaves it as it is."""
        if self._flat is None:
            from hushfleet.learning.layers import initial_flat
            from hushfleet.learning.server import open_snapshot

            if self._stored:
                self._flat = open_snapshot(self._stored, spec.parameters(), self.hash)
            else:
                self._flat = initial_flat(spec.layers, spec.init)
            self._stored = b""
        return self._flat

    def note(self, result: Result) -> None:
        """Remember the step of a verified result, old or new, as a link of the chain of deltas."""
        if result.outcome == APPLIED:
            self._steps[result.version] = result
            for version in sorted(self._steps)[:-LONGEST_CHAIN]:
                del self._steps[version]

    def follow(self, result: Result, policy: Policy) -> None:
        """Aim at what the newest verified result made.

        Raises:
            RefusedError: it goes back without saying rollback, or further back than the policy allows.
        """
        floor = self.version - (policy.rollback_versions if result.outcome == ROLLBACK else 0)
        if result.version < floor:
            raise RefusedError(f"the result takes the model from version {self.version} back to {result.version}")
        self._aim(result.version, result.version_hash)

    def toward(self, version: int, version_hash: bytes) -> None:
        """Aim at the base of a verified plan.

        Raises:
            RefusedError: it is older than the newest model known, or another one under its number.
        """
        known, known_hash = self._target or (self.version, self.hash)
        if version < known:
            raise RefusedError(f"the plan's base {version} is older than the newest model known, {known}")
        if version == known and version_hash != known_hash:
            raise RefusedError(f"two models under version {version}")
        self._aim(version, version_hash)

    def _aim(self, version: int, version_hash: bytes) -> None:
        self._target = (version, version_hash)

    def at(self, version: int, version_hash: bytes) -> bool:
        """Whether the live model is just this one."""
        return (self.version, self.hash) == (version, version_hash)

    def wanted(self, spec: ModelSpec) -> Wanted | None:
        """What is still to be fetched, the cheaper of a chain of deltas and a snapshot; None if nothing."""
        if self._target is None or self.at(*self._target):
            return None
        version, _ = self._target
        # A packed residue of the plain codec takes two bytes where a snapshot takes four.
        if 0 < version - self.version <= 2 and self._chained(version):
            return Wanted("delta", self.version + 1, 2 * spec.parameters() + 1024)
        return Wanted("snapshot", version, 4 * spec.parameters())

    def _chained(self, version: int) -> bool:
        """Whether verified results lead from the live model to `version` step by step."""
        at = (self.version, self.hash)
        for step in range(self.version + 1, version + 1):
            result = self._steps.get(step)
            if result is None or (result.base, result.base_hash) != at:
                return False
            at = (result.version, result.version_hash)
        return at == self._target

    def on_snapshot(self, version: int, data: bytes, spec: ModelSpec) -> list[Action]:
        """Take a fetched snapshot; MalformedError if it is not of the version aimed at."""
        from hushfleet.learning.server import open_snapshot

        if self._target is None or self._target[0] != version:
            return []
        return self._move(version, self._target[1], open_snapshot(data, spec.parameters(), self._target[1]))

    def on_delta(
        self, data: bytes, spec: ModelSpec, policy: Policy, fleet: bytes, key_of: Callable[[int], bytes | None]
    ) -> list[Action]:
        """Replay a fetched delta on the live model, bit for bit as everyone does.

        Raises:
            MalformedError: not the delta that the result names, or it does not lead to the model that the result names;
                the snapshot is fetched instead.
        """
        from hushfleet.codec import apply_delta, norm_holds, unpack_opened
        from hushfleet.learning.server import model_hash

        frame = Frame.from_bytes(data, limit=len(data))
        result = self._steps.get(self.version + 1)
        if result is None or frame.hash(fleet) != result.delta:
            self._steps.pop(self.version + 1, None)
            raise MalformedError("not the delta that the result names")
        delta = read_message(frame, Delta, fleet, key_of)
        survivors = sum(byte.bit_count() for byte in result.included)
        opened = unpack_opened(delta.body, delta.bits, spec.parameters())
        if not norm_holds(opened, survivors, clip=policy.clip, step=delta.step):
            del self._steps[self.version + 1]
            raise MalformedError("the delta is longer than so many clipped updates can make it")
        after = apply_delta(
            self.flat(spec), delta.body, bits=delta.bits, step=delta.step, weight=delta.weight, rate=delta.rate
        )
        if model_hash(after) != result.version_hash:
            del self._steps[self.version + 1]
            raise MalformedError("the delta does not lead to the model that the result names")
        return self._move(result.version, result.version_hash, after)

    def _move(self, version: int, version_hash: bytes, flat: "NDArray[np.float32]") -> list[Action]:
        from hushfleet.learning.server import snapshot

        self.version, self.hash, self._flat, self._stored = version, version_hash, flat, b""
        return [Save(RECORD, _Record(self._spec, version, version_hash, snapshot(flat)).to_body())]
