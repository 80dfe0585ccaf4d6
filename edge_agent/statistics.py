"""A device's part in statistics rounds: whether it may take part, and its vector (docs/protocol.md, 5.1). No I/O.

The record `participant/statistics` says when it did, on which base. A device describes itself once for each base model,
and once a day from the same base, so that a coordinator cannot collect many sums of the same numbers; nor from one that
a rollback leads back to.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edge_agent.bases import Bases, unpacked, with_base
from edge_agent.context import Context
from edge_agent.restoration import DAY, Restoration
from hushfleet.actions import Action, Save
from hushfleet.errors import RefusedError
from hushfleet.hashing import digest
from hushfleet.plans import PlanRefusedError, VerifiedPlan
from hushfleet.wire.framing import U64, Table
from hushfleet.wire.round import BASE_USED_UP, DATA, POLICY, Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.secagg.residues import Vector

RECORD = "participant/statistics"
NOISELESS = "without noise: the owners signed noiseless_statistics"


@dataclass(frozen=True, slots=True)
class _Described(Table):
    """The newest statistics round that was answered, and the newest bases of such rounds.

    Attributes:
        bases: each with when that was, by this device's own clock.
    """

    KIND: ClassVar[str] = "described"
    round: U64 = 0
    bases: Bases = b""


class Statistics:
    """Built anew from its record at every start."""

    def __init__(self, context: Context, restoration: Restoration) -> None:
        self._context, self._restoration = context, restoration
        saved = context.store.get(RECORD)
        self._last = _Described.from_body(saved) if saved else _Described()

    def view(self) -> dict[str, object] | None:
        """For the device's owner: the newest round in which it described itself."""
        return {"round": self._last.round, "noise": NOISELESS} if self._last.round else None

    def check(self, plan: Plan, now: float) -> None:
        """Whether this device can and may answer a verified statistics plan.

        Raises:
            PlanRefusedError: with the reason for a decline.
        """
        from hushfleet.statistics import Digits, coordinates

        trust, time = self._context.trust, self._context.trust.time(now)
        schema, policy = trust.schema, trust.policy
        if schema is None or policy is None or schema.model != plan.model:
            raise PlanRefusedError(DATA, "statistics follow a schema, and the owners have signed none for this model")
        if plan.coords != coordinates(schema, Digits.of(policy.largest_survivor_set)):
            raise PlanRefusedError(POLICY, "the plan's coordinates are not the numbers that the schema asks for")
        # A clock that was set back since then says nothing, and locks nobody out.
        before = unpacked(self._last.bases).get(plan.base_hash)
        if before is not None and 0 <= time - before < DAY:
            raise PlanRefusedError(BASE_USED_UP, "this device has described itself on this base model already")
        if self._restoration.covers_numbers(time):
            raise PlanRefusedError(BASE_USED_UP, "the vault was put back from a copy, and may have described itself")

    def encode(
        self, verified: VerifiedPlan, numbers: "NDArray[np.float64]", now: float
    ) -> tuple["Vector", list[Action]]:
        """The vector before masking, and what is to be saved with it.

        Raises:
            RefusedError: a number is not from 0 to 1, or there are more or fewer than the plan asks for.
        """
        from hushfleet.codec import expanded
        from hushfleet.statistics import Digits, encode_statistics

        plan, digits = verified.plan, Digits.of(verified.policy.largest_survivor_set)
        if len(numbers) * digits.count != plan.coords:
            raise RefusedError("the plan asks for another number of numbers")
        seed, draw = digest("chks", verified.hash), expanded(self._context.draw)
        vector = encode_statistics(numbers, digits=digits, checksum_seed=seed, draw=draw)
        bases = with_base(self._last.bases, plan.base_hash, int(self._context.trust.time(now)))
        self._last = _Described(plan.round, bases)
        return vector, [Save(RECORD, self._last.to_body())]
