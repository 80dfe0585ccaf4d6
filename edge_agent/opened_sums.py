"""The sums of the newest statistics round, of which a device learns how far the fleet's model errs. No I/O, no clock.

A result names them by their hash (docs/protocol.md, section 5.1). The record `model/sums` holds them once they are
verified. Only who has a use for them fetches them; those over version 0, which has learned nothing, nobody does.
"""

from dataclasses import dataclass
from typing import ClassVar

from edge_agent.context import Context
from edge_agent.work import Judged
from hushfleet.actions import Action, Save
from hushfleet.errors import MalformedError
from hushfleet.wire.framing import U32, U64, Bytes, Frame, Table, read_message
from hushfleet.wire.round import APPLIED, ROLLBACK, Result, Sums, positions
from hushfleet.wire.schema import ANOMALY, CLASSES, Schema

RECORD = "model/sums"
AROUND = 512
"""Bytes of the message around the numbers, at most."""


@dataclass(frozen=True, slots=True)
class _Kept(Table):
    """Verified sums, as body of their message, of which round, and over which version.

    The body is empty, and the round that of a rollback, where this left the version of those that were here.
    """

    KIND: ClassVar[str] = "kept_sums"
    round: U64
    version: U32
    body: Bytes


class OpenedSums:
    """Built anew from its record at every start."""

    def __init__(self, context: Context) -> None:
        self._context = context
        saved = context.store.get(RECORD)
        self._kept = _Kept.from_body(saved) if saved else None
        self._named: Result | None = None
        self._told: _Kept | None = None
        self._rollback: Result | None = None

    def note(self, result: Result) -> list[Action]:
        """Remember a verified result that names sums, if none is newer; a rollback ends those of versions it left."""
        if result.outcome == ROLLBACK:
            return self._go_back(result)
        newest = max(self._named.round if self._named else 0, self._kept.round if self._kept else 0)
        opened = result.outcome == APPLIED and not result.moves() and result.version
        if opened and result.round > newest and not self._is_left(result):
            self._named = result
        return []

    def _go_back(self, rollback: Result) -> list[Action]:
        if self._rollback is None or rollback.round > self._rollback.round:
            self._rollback = rollback
        if self._named and self._is_left(self._named):
            self._named = None
        if self._kept and self._is_left(self._kept):
            self._kept = _Kept(self._rollback.round, self._rollback.version, b"")
            return [Save(RECORD, self._kept.to_body())]
        return []

    def _is_left(self, sums: Result | _Kept) -> bool:
        """Whether the newest rollback left the version that these are over."""
        back = self._rollback
        return back is not None and sums.round < back.round and sums.version > back.version

    def _schema(self) -> Schema | None:
        """That of the model in force, if numbers are told by it."""
        schema, model = self._context.trust.schema, self._context.trust.hash_of("model")
        return schema if schema and schema.model == model and schema.task != CLASSES else None

    def hold_alone(self) -> bool:
        """Whether the fleet has thresholds for anomalies, which hold for its own versions of the model alone."""
        schema, policy = self._schema(), self._context.trust.policy
        return bool(schema and schema.task == ANOMALY and policy and policy.noiseless_statistics)

    def wanted(self) -> tuple[int, int] | None:
        """The round whose sums are to be fetched, and their bytes at most; None if none are."""
        schema, named = self._schema(), self._named
        if not self._context.reads_sums or named is None or schema is None:
            return None
        from hushfleet.statistics import length

        return named.round, 8 * length(schema) + AROUND

    def on_fetched(self, data: bytes, now: float) -> list[Action]:
        """Keep what a result names.

        Raises:
            MalformedError: not the sums that the result names, or impossible ones.
        """
        from hushfleet.statistics import length

        context, schema, named = self._context, self._schema(), self._named
        if named is None or schema is None:
            return []
        frame = Frame.from_bytes(data, limit=len(data))
        if frame.hash(context.fleet) != named.delta:
            raise MalformedError("not the sums that the result names")
        sums = read_message(frame, Sums, context.fleet, context.trust.coordinator_at(now))
        # They are what was signed: there are no others to wait for.
        self._named = None
        if sums.plan != named.plan or sums.devices != len(positions(named.included)):
            raise MalformedError("the sums are of another round than their result")
        if sums.schema != context.trust.hash_of("schema"):
            return []
        numbers = sums.numbers()
        if len(numbers) != length(schema) or max(numbers) > sums.devices * sums.top:
            raise MalformedError("the sums are not those of so many devices under the schema")
        self._kept = _Kept(named.round, named.version, frame.body)
        return [Save(RECORD, self._kept.to_body())]

    def tell(self) -> list[Judged]:
        """What is known of the fleet, told once in a life of the process."""
        kept, schema = self._kept, self._schema()
        if kept is None or not kept.body or kept is self._told or schema is None or not self._context.reads_sums:
            return []
        self._told, sums = kept, Sums.from_body(kept.body)
        if sums.schema != self._context.trust.hash_of("schema"):
            return []
        import numpy as np

        from hushfleet.statistics import Numbers

        numbers = Numbers.split(schema, np.array(sums.numbers()) / sums.top)
        return [Judged(schema, kept.version, sums.devices, numbers)]
