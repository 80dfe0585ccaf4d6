"""The model's versions as the coordinator keeps and publishes them (docs/protocol.md, sections 6 and 11.7). No I/O.

The record `model/live` is the newest version. On the broker stand the last deltas, the last two snapshots, those of the
last two key frames, the last results and all since the key frame: enough for any device to get to the newest version.
After a rollback also its result and the snapshot of the version gone back to, until they are overtaken. And the sums of
the newest statistics round, with its result.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from coordinator.context import Context
from coordinator.encoding import ServerOptimizer, server_step
from coordinator.history import History, Saved
from hushfleet.actions import RETAINED, Action, Publish, Save, Store, clear, retain
from hushfleet.mqtt.inbox import publishes
from hushfleet.mqtt.topics import Parsed
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import Frame
from hushfleet.wire.round import APPLIED, KEYFRAME_EVERY, ROLLBACK, Delta, Plan, Result, Sums

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.codec import Opened

RECORD = "model/live"
DELTAS, SNAPSHOTS, RESULTS = 20, 2, 20
"""How many of each stay on the broker."""


def newest_snapshot(store: Store) -> bytes | None:
    """The newest version's snapshot, as a device fetches it; None before the first."""
    saved = store.get(RECORD)
    return Saved.from_body(saved).flat if saved else None


class Models:
    """The newest version: its number, hash and flat vector."""

    def __init__(self, context: Context, optimizer: ServerOptimizer) -> None:
        self._context, self._optimizer = context, optimizer
        saved = context.store.get(RECORD)
        self._record = Saved.from_body(saved) if saved else None
        self._state: NDArray[np.float32] | None = None
        self.history = History(context.store)
        results = (self._result(topic) for topic, _ in self._retained("result/"))
        self._rollbacks = [result for result in results if result.outcome == ROLLBACK]

    def current(self, spec: ModelSpec, spec_hash: bytes) -> tuple[int, bytes]:
        """Version and hash of the newest model of this spec; another spec than before starts at version 0."""
        if self._record is None or self._record.spec != spec_hash:
            self._record, self._state = Saved(spec_hash, 0, spec.zero, b""), None
        return self._record.version, self._record.hash

    def highest(self) -> int:
        """The highest version there ever was of the newest model's spec: above the newest while a rollback shows."""
        newest = self._record.version if self._record else 0
        return max(newest, *(result.base for result in self._rollbacks), 0)

    def last_rollback(self) -> Result | None:
        """The newest rollback of which the result is still retained."""
        return max(self._rollbacks, key=lambda result: result.round, default=None)

    def flat(self, spec: ModelSpec) -> "NDArray[np.float32]":
        """The newest flat vector, float32, shape (d,); not to be changed."""
        return self._whole(spec)[: spec.parameters()]

    def _whole(self, spec: ModelSpec) -> "NDArray[np.float32]":
        """The newest state: the flat vector, and what the server's optimiser remembers; not to be changed."""
        from hushfleet.learning.layers import initial_flat
        from hushfleet.replay import read_snapshot

        assert self._record is not None
        record = self._record
        if self._state is None and record.flat:
            self._state = read_snapshot(record.flat, spec.parameters(), record.version, record.hash)
        elif self._state is None:
            self._state = initial_flat(spec.shared, spec.init)
        return self._state

    def apply(
        self, opened: "Opened", plan: Plan, plan_hash: bytes, survivors: list[int], spec: ModelSpec, policy: Policy
    ) -> tuple[list[Action], bytes]:
        """Make the next version from an opened sum, as every device will; the actions for it, and the delta's hash.

        Raises:
            MalformedError, RefusedError: the sum is one that devices would refuse, or the new model would hold NaN or
                infinity; nothing has changed.
        """
        from hushfleet.codec import pack_opened
        from hushfleet.learning.server import snapshot
        from hushfleet.replay import replay

        context, record = self._context, self._record
        assert record is not None
        server = server_step(plan, self._optimizer)
        delta = Delta(
            context.index,
            record.version + 1,
            plan_hash,
            opened.bits,
            pack_opened(opened.residues, opened.bits),
            plan.step,
            opened.weight,
            server.rate,
            plan.codec,
            server.momentum,
            server.adam,
        )
        after = replay(self._whole(spec), delta, survivors, spec.parameters(), plan.clip)
        frame = context.frame(delta)
        self._state = after.state
        self._record = Saved(record.spec, delta.version, after.hash(), snapshot(after.state))
        actions: list[Action] = [
            Save(RECORD, self._record.to_body()),
            *self.history.keep(record, self.highest(), policy),
            *self._publish("delta", delta.version, frame.to_bytes()),
        ]
        if after.snapshot:
            actions += self._publish("snapshot", delta.version, after.snapshot)
        return [*actions, *self._clear_old(delta.version)], frame.hash(context.fleet)

    def check_rollback(self, version: int, policy: Policy) -> None:
        """RefusedError unless the model can go back to that version; the text says to which it can."""
        assert self._record is not None
        self.history.check(version, self._record, self.highest(), policy)

    def roll_back(self, version: int) -> list[Action]:
        """Make an earlier version, which must be one that can be reached, the newest: all that led on from it goes."""
        assert self._record is not None
        self._record, actions = self.history.take(version, self._record.spec)
        self._state = None
        offered = self.offer_base()
        left = [topic for topic, at in self._retained("model/") if at.version > version]
        results = [(topic, at.round_number, self._result(topic)) for topic, at in self._retained("result/")]
        gone = {topic: number for topic, number, one in results if one.outcome == APPLIED and one.version > version}
        left += [*gone, *(topic for topic, at in self._retained("sums/") if at.round_number in gone.values())]
        cleared = [action for topic in left for action in clear(topic)]
        return [Save(RECORD, self._record.to_body()), *actions, *offered, *cleared]

    def offer_base(self) -> list[Action]:
        """The newest version is there as a snapshot, whatever codec made it: before a plan of the plain codec."""
        record = self._record
        if record is None or not record.version:
            return []
        if self._context.store.get(RETAINED + self._topic(record.version, "snapshot")(0)) is not None:
            return []
        return self._publish("snapshot", record.version, record.flat)

    def _publish(self, kind: str, version: int, data: bytes) -> list[Action]:
        messages = publishes(self._topic(version, kind), data, self._context.chunk)
        return [action for publish in messages for action in retain(publish)]

    def _topic(self, version: int, kind: str) -> Callable[[int], str]:
        names = self._context.topics
        return lambda chunk: names.model(version, kind, chunk)

    def _clear_old(self, version: int) -> list[Action]:
        """Take back what only a device that was away for long would miss; it begins at a snapshot."""
        kept = {"delta": DELTAS, "snapshot": SNAPSHOTS}
        back = {result.version for result in self._rollbacks if result.base >= version}
        actions: list[Action] = []
        for topic, at in self._retained("model/"):
            if at.name == "snapshot" and at.version in back:
                continue
            keyframe = at.name == "snapshot" and not at.version % KEYFRAME_EVERY
            if at.version <= version - (SNAPSHOTS * KEYFRAME_EVERY if keyframe else kept.get(at.name, 0)):
                actions += clear(topic)
        return actions

    def clear(self) -> list[Action]:
        """Take back every result, delta, snapshot and sum: they say nothing of another model spec."""
        self._rollbacks.clear()
        topics = [topic for below in ("model/", "result/", "sums/") for topic, _ in self._retained(below)]
        return [action for topic in topics for action in clear(topic)]

    def publish_sums(self, sums: Sums, round_number: int) -> tuple[list[Action], bytes]:
        """Publish what a statistics round opened in place of the one before; the actions, and the sums' hash."""
        frame, names = self._context.frame(sums), self._context.topics
        old = [action for topic, _ in self._retained("sums/") for action in clear(topic)]
        topic = partial(names.sums, round_number)
        new = [
            action for publish in publishes(topic, frame.to_bytes(), self._context.chunk) for action in retain(publish)
        ]
        return [*old, *new], frame.hash(self._context.fleet)

    def publish_result(self, result: Result) -> list[Action]:
        """Publish a result, and take back the oldest."""
        names = self._context.topics
        topic = names.result(result.round)
        actions = retain(Publish(topic, self._context.frame(result).to_bytes()))
        held = sorted((at.round_number, old) for old, at in self._retained("result/"))
        described = {at.round_number for _, at in self._retained("sums/")}
        for number, old in held[: max(0, len(held) + 1 - RESULTS)]:
            if number not in described and not self._tells(self._result(old), result.version):
                actions += clear(old)
        if result.outcome == ROLLBACK:
            self._rollbacks.append(result)
        return actions

    def _tells(self, result: Result, newest: int) -> bool:
        """Whether an old result still matters: it leads on from the key frame, or to it, or is a rollback that no
        version has overtaken: devices that know of a higher one take the newest for a step back without it."""
        if result.outcome == ROLLBACK:
            return result.base >= newest
        return result.makes_version() and result.version >= newest - newest % KEYFRAME_EVERY

    def _result(self, topic: str) -> Result:
        """A retained result."""
        payload = self._context.store.get(RETAINED + topic)
        assert payload is not None
        return Result.from_body(Frame.from_bytes(payload).body)

    def _retained(self, below: str) -> list[tuple[str, Parsed]]:
        names = self._context.topics
        prefix = names.plan().removesuffix("plan") + below
        topics = [key.removeprefix(RETAINED) for key, _ in self._context.store.scan(RETAINED + prefix)]
        return [(topic, names.parse(topic)) for topic in topics]
