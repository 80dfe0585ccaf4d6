"""The model's versions as the coordinator keeps and publishes them (docs/protocol.md, sections 6 and 11.7). No I/O.

The record `model/live` is the newest version. On the broker stand the last deltas, the last two snapshots and the last
results: enough for a device that was away for some rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from coordinator.context import Context
from hushfleet.actions import RETAINED, Action, Publish, Save, clear, retain
from hushfleet.mqtt.inbox import publishes
from hushfleet.mqtt.topics import Parsed
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import B32, U32, Bytes, Table
from hushfleet.wire.round import Delta, Plan, Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.codec import Opened

RECORD = "model/live"
DELTAS, SNAPSHOTS, RESULTS = 20, 2, 20
"""How many of each stay on the broker."""


@dataclass(frozen=True, slots=True)
class _Record(Table):
    KIND: ClassVar[str] = "live"
    spec: B32
    version: U32
    hash: B32
    flat: Bytes


class Models:
    """The newest version: its number, hash and flat vector."""

    def __init__(self, context: Context) -> None:
        self._context = context
        saved = context.store.get(RECORD)
        self._record = _Record.from_body(saved) if saved else None
        self._flat: NDArray[np.float32] | None = None

    def current(self, spec: ModelSpec, spec_hash: bytes) -> tuple[int, bytes]:
        """Version and hash of the newest model of this spec; another spec than before starts at version 0."""
        if self._record is None or self._record.spec != spec_hash:
            self._record, self._flat = _Record(spec_hash, 0, spec.zero, b""), None
        return self._record.version, self._record.hash

    def flat(self, spec: ModelSpec) -> "NDArray[np.float32]":
        """The newest flat vector, float32, shape (d,); not to be changed."""
        from hushfleet.learning.layers import initial_flat
        from hushfleet.learning.server import open_snapshot

        assert self._record is not None
        if self._flat is None and self._record.flat:
            self._flat = open_snapshot(self._record.flat, spec.parameters(), self._record.hash)
        elif self._flat is None:
            self._flat = initial_flat(spec.layers, spec.init)
        return self._flat

    def apply(self, opened: "Opened", plan: Plan, plan_hash: bytes, spec: ModelSpec) -> tuple[list[Action], bytes]:
        """Make the next version from an opened sum, as every device will; the actions for it, and the delta's hash.

        Raises:
            RefusedError: the new model would hold NaN or infinity; nothing has changed.
        """
        from hushfleet.codec import apply_delta, pack_opened
        from hushfleet.learning.server import model_hash, snapshot

        context, record = self._context, self._record
        assert record is not None
        delta = Delta(
            context.index,
            record.version + 1,
            plan_hash,
            plan.bits,
            pack_opened(opened.residues, plan.bits),
            plan.step,
            opened.weight,
            1.0,
        )
        flat = apply_delta(
            self.flat(spec), delta.body, bits=delta.bits, step=delta.step, weight=delta.weight, rate=delta.rate
        )
        frame = context.frame(delta)
        self._flat = flat
        self._record = _Record(record.spec, delta.version, model_hash(flat), snapshot(flat))
        actions: list[Action] = [Save(RECORD, self._record.to_body())]
        for kind, data in (("delta", frame.to_bytes()), ("snapshot", self._record.flat)):
            for publish in publishes(self._topic(delta.version, kind), data, context.chunk):
                actions += retain(publish)
        return [*actions, *self._clear_old(delta.version)], frame.hash(context.fleet)

    def _topic(self, version: int, kind: str) -> Callable[[int], str]:
        names = self._context.topics
        return lambda chunk: names.model(version, kind, chunk)

    def _clear_old(self, version: int) -> list[Action]:
        """Take back what only a device that was away for long would miss; it fetches the newest snapshot."""
        kept = {"delta": DELTAS, "snapshot": SNAPSHOTS}
        actions: list[Action] = []
        for topic, at in self._retained("model/"):
            if at.version <= version - kept.get(at.name, 0):
                actions += clear(topic)
        return actions

    def clear(self) -> list[Action]:
        """Take back every result, delta and snapshot: they lead to no version of another model spec."""
        topics = [topic for below in ("model/", "result/") for topic, _ in self._retained(below)]
        return [action for topic in topics for action in clear(topic)]

    def publish_result(self, result: Result) -> list[Action]:
        """Publish a result, and take back the oldest."""
        names = self._context.topics
        topic = names.result(result.round)
        actions = retain(Publish(topic, self._context.frame(result).to_bytes()))
        held = sorted((at.round_number, old) for old, at in self._retained("result/"))
        for _, old in held[: max(0, len(held) + 1 - RESULTS)]:
            actions += clear(old)
        return actions

    def _retained(self, below: str) -> list[tuple[str, Parsed]]:
        names = self._context.topics
        prefix = names.plan().removesuffix("plan") + below
        topics = [key.removeprefix(RETAINED) for key, _ in self._context.store.scan(RETAINED + prefix)]
        return [(topic, names.parse(topic)) for topic in topics]
