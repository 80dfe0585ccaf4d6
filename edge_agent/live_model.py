"""The model a device holds, and how it follows the fleet's newest (docs/protocol.md, 4, 6, 11.4, 11.7). No I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hushfleet.actions import Action, Erase, Save, Store
from hushfleet.errors import MalformedError, RefusedError
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import B32, U32, Bytes, Frame, Table, read_message
from hushfleet.wire.round import KEYFRAME_EVERY, PLAIN, ROLLBACK, STATISTICS, Delta, Plan, Result, positions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD = "model/live"
RESULTS = "results"
LARGEST_STATE = 3
"""Numbers of a model's state for each parameter, at most: FedAdam has two moments."""
LONGEST_CHAIN = 64
"""Results kept to walk from one version to the next; more than the coordinator retains."""


@dataclass(frozen=True, slots=True)
class _Record(Table):
    KIND: ClassVar[str] = "live"
    spec: B32
    version: U32
    hash: B32
    flat: Bytes


class BehindError(RefusedError):
    """A result or plan behind the newest model known; the rollback that explains it may be missing here."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch next: `delta` or `snapshot` of a version, of at most so many bytes; or the `results` up to it."""

    kind: str
    version: int
    limit: int


class LiveModel:
    """Version, hash and flat vector of the live model; version 0 of the spec until something newer is known."""

    def __init__(self, store: Store) -> None:
        self.version = 0
        self.hash = b""
        self._spec = b""
        self._state: NDArray[np.float32] | None = None
        self._target: tuple[int, bytes] | None = None
        self._steps: dict[int, Result] = {}
        self._rollback: Result | None = None
        self._left = 0
        self._plain: bool | None = None
        self._blind = False
        self._delta_length = 0
        self._doubted = False
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
            self._spec, self._target, self._rollback, self._left = spec_hash, None, None, 0
            self._steps.clear()
            self._begin(spec)

    def _begin(self, spec: ModelSpec) -> None:
        """Stand at version 0, which everyone computes."""
        self.version, self.hash, self._state, self._stored, self._doubted = 0, spec.zero, None, b"", False

    def flat(self, spec: ModelSpec) -> "NDArray[np.float32]":
        """The live flat vector, float32, shape (d,); the caller leaves it as it is."""
        return self._whole(spec)[: spec.parameters()]

    def _whole(self, spec: ModelSpec) -> "NDArray[np.float32]":
        """The live model's state: the flat vector, and what the server's optimiser remembers."""
        if self._state is None:
            from hushfleet.learning.layers import initial_flat
            from hushfleet.replay import read_snapshot

            if self._stored:
                self._state = read_snapshot(self._stored, spec.parameters(), self.version, self.hash)
            else:
                self._state = initial_flat(spec.shared, spec.init)
            self._stored = b""
        return self._state

    def note(self, result: Result) -> None:
        """Remember the step of a verified result, old or new, as a link of the chain of deltas; or a rollback.

        A version that a rollback has left is made again: of two results that make it the later round's counts.
        """
        if result.outcome == ROLLBACK:
            self._left = max(self._left, result.base)
            if self._rollback is None or result.round > self._rollback.round:
                self._rollback = result
        known = self._steps.get(result.version)
        if result.makes_version() and (known is None or result.round > known.round):
            self._steps[result.version] = result
            for version in sorted(self._steps)[:-LONGEST_CHAIN]:
                del self._steps[version]

    def result_of(self, plan_hash: bytes) -> Result | None:
        """The result of an applied round by its plan's hash, if it is known."""
        return next((result for result in self._steps.values() if result.plan == plan_hash), None)

    def expect(self, plan: Plan) -> None:
        """What a plan, even one that is past, tells about the messages that make its versions; no more than a hint."""
        if plan.kind == STATISTICS:
            self._blind = self._plain is None
            return
        self._plain = plan.codec == PLAIN
        self._delta_length = plan.coords * plan.bits // 8 + 300

    def follow(self, result: Result, policy: Policy, newest: int) -> list[Action]:
        """Aim at what the newest verified result made; the record of a model that a rollback leaves goes.

        Args:
            result: the verified result.
            policy: the newest; it says how far back a rollback may go.
            newest: the highest version of this model spec that this device has ever known of: rollbacks one after the
                other go no further back than one.

        Raises:
            BehindError: it goes back behind the newest model known without saying rollback.
            RefusedError: a rollback further back than the policy allows.
        """
        known, _ = self._known()
        if result.outcome == ROLLBACK:
            known = max(known, newest, result.base)
            if result.version < known - policy.rollback_versions:
                raise RefusedError(f"the rollback takes the model from version {known} back to {result.version}")
        elif result.version < known:
            raise BehindError(f"the result takes the model from version {known} back to {result.version}")
        self._aim(result.version, result.version_hash)
        return [Erase(RECORD)] if self.version > result.version else []

    def knows(self, version: int, version_hash: bytes) -> bool:
        """Whether a verified result of training made this version, or a rollback went back to it."""
        return self._hash_of(version) == version_hash

    def toward(self, version: int, version_hash: bytes) -> None:
        """Aim at the base of a verified plan.

        Raises:
            BehindError: it is older than the newest model known.
            RefusedError: it is another one under its number.
        """
        self.check_base(version)
        known, known_hash = self._known()
        if version == known and version_hash != known_hash:
            raise RefusedError(f"two models under version {version}")
        self._aim(version, version_hash)

    def check_base(self, version: int) -> None:
        """BehindError if a plan's base is older than the newest model known."""
        known, _ = self._known()
        if version < known:
            raise BehindError(f"the plan's base {version} is older than the newest model known, {known}")

    def _known(self) -> tuple[int, bytes]:
        """The newest model that a verified result or plan has named, whether it is here yet or not."""
        return self._target or (self.version, self.hash)

    def _aim(self, version: int, version_hash: bytes) -> None:
        self._target = (version, version_hash)

    def at(self, version: int, version_hash: bytes) -> bool:
        """Whether the live model is just this one."""
        return (self.version, self.hash) == (version, version_hash)

    def wanted(self, spec: ModelSpec) -> Wanted | None:
        """What is to be fetched next, on the cheapest way to the version aimed at; None if nothing.

        Which way that is nobody knows before a plan was seen; one is always retained. One for statistics does not say,
        and deltas are the way that there is with every codec.
        """
        if self._target is None or self.at(*self._target):
            return None
        if self._target == (0, spec.zero):
            self._begin(spec)
            return None
        if self._plain is None and not self._blind:
            return None
        version, parameters = self._target[0], spec.parameters()
        longest = LARGEST_STATE * 4 * parameters
        chained = not self._doubted and self._leads(self.version, self.hash, version)
        if self._plain is None:
            # The version that a rollback went back to has a snapshot with every codec, too.
            back = self._rollback is not None and self._rollback.version == version
            found = Wanted("snapshot", version, longest) if back else None
            return self._next_delta(spec) if chained else found
        if self._plain:
            # A packed residue of the plain codec takes two bytes where a snapshot takes four.
            if chained and version - self.version <= 2:
                return self._next_delta(spec)
            return Wanted("snapshot", version, longest)
        key, key_hash = self._entry(version, spec)
        snapshot = 4 * parameters if key % KEYFRAME_EVERY else parameters
        cheaper = self.version >= key or (key - self.version) * self._delta_length <= snapshot
        if chained and (cheaper or not key_hash):
            return self._next_delta(spec)
        if key and key_hash and (self._doubted or not self.at(key, key_hash)):
            return Wanted("snapshot", key, longest)
        if not key and self._leads(0, spec.zero, version):
            self._begin(spec)
            return self._next_delta(spec)
        return Wanted(RESULTS, version, 0)

    def _entry(self, version: int, spec: ModelSpec) -> tuple[int, bytes]:
        """The last version up to this one that nobody needs another for, and its hash, empty if that is not known.

        That is the last key frame, or the version that a rollback went back to, over a key frame: what leads there from
        the key frame before may be gone.
        """
        key, back = version - version % KEYFRAME_EVERY, self._rollback
        over = self._left - self._left % KEYFRAME_EVERY
        if back is not None and key < back.version <= version and back.version < over:
            return back.version, back.version_hash
        return key, spec.zero if not key else self._hash_of(key)

    def _hash_of(self, version: int) -> bytes:
        """Hash of a version by the results that are known; empty if none tells."""
        if self._rollback is not None and self._rollback.version == version:
            return self._rollback.version_hash
        return self._steps[version].version_hash if version in self._steps else b""

    def _next_delta(self, spec: ModelSpec) -> Wanted:
        return Wanted("delta", self.version + 1, 2 * spec.parameters() + 1024)

    def _leads(self, version: int, version_hash: bytes, to: int) -> bool:
        """Whether verified results lead from a version to the one aimed at, step by step."""
        at = (version, version_hash)
        for step in range(version + 1, to + 1):
            result = self._steps.get(step)
            if result is None or (result.base, result.base_hash) != at:
                return False
            at = (result.version, result.version_hash)
        return at == self._target

    def on_snapshot(self, version: int, data: bytes, spec: ModelSpec) -> list[Action]:
        """Take a fetched snapshot; MalformedError if it is not of the version that a result or plan names."""
        from hushfleet.replay import read_snapshot

        if self._target is None:
            return []
        expected = self._target[1] if version == self._target[0] else self._hash_of(version)
        if version > self._target[0] or not expected:
            return []
        return self._move(version, expected, read_snapshot(data, spec.parameters(), version, expected))

    def on_delta(
        self, data: bytes, spec: ModelSpec, policy: Policy, fleet: bytes, key_of: Callable[[int], bytes | None]
    ) -> list[Action]:
        """Replay a fetched delta on the live model, bit for bit as everyone does.

        Raises:
            MalformedError: not the delta that the result names, or it does not lead to the model that the result names;
                a snapshot is fetched instead.
        """
        from hushfleet.replay import replay

        frame = Frame.from_bytes(data, limit=len(data))
        result = self._steps.get(self.version + 1)
        self._doubted = True
        if result is None or frame.hash(fleet) != result.delta:
            raise MalformedError("not the delta that the result names")
        delta = read_message(frame, Delta, fleet, key_of)
        if delta.version != result.version:
            raise MalformedError("the delta is of another version than its result")
        after = replay(self._whole(spec), delta, positions(result.included), spec.parameters(), policy.clip)
        if after.hash() != result.version_hash:
            raise MalformedError("the delta does not lead to the model that the result names")
        return self._move(result.version, result.version_hash, after.state)

    def _move(self, version: int, version_hash: bytes, state: "NDArray[np.float32]") -> list[Action]:
        from hushfleet.learning.server import snapshot

        self.version, self.hash, self._state, self._stored = version, version_hash, state, b""
        self._doubted = False
        return [Save(RECORD, _Record(self._spec, version, version_hash, snapshot(state)).to_body())]
