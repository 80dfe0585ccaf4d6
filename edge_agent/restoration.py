"""A vault that was put back from a copy: what it takes no part in from then on (docs/protocol.md, section 3). No I/O.

It does not know what it signed after the copy was made. All of that began before it was put back; so it answers nothing
that may have begun before, whoever shows it. The record `device/restored` holds the time at which it was found.
"""

from hushfleet.actions import Action, Save, Store
from hushfleet.plans import clock_skew
from hushfleet.wire.committee import Call
from hushfleet.wire.documents import Policy
from hushfleet.wire.round import Plan

RECORD = "device/restored"
DAY = 86_400


class Restoration:
    """When this vault was last put back from a copy, if ever."""

    def __init__(self, store: Store) -> None:
        saved = store.get(RECORD)
        self.at = int.from_bytes(saved, "little") if saved else None

    def begin(self, time: float) -> list[Action]:
        """It was found now; `time` in seconds since 1970."""
        self.at = int(time)
        return [Save(RECORD, self.at.to_bytes(8, "little"))]

    def recent(self, time: float, policy: Policy | None) -> bool:
        """Whether rounds that are under way now may have begun before it."""
        return self.at is not None and (policy is None or time <= self.at + clock_skew(policy))

    def covers_plan(self, plan: Plan, policy: Policy) -> bool:
        """Whether this plan may have been answered already, by clocks that differ."""
        return self.at is not None and plan.opens <= self.at + clock_skew(policy)

    def covers_numbers(self, time: float) -> bool:
        """Whether this device may have described itself within a day on whatever base is its model now."""
        return self.at is not None and time < self.at + DAY

    def covers_call(self, call: Call, policy: Policy) -> bool:
        """Whether this call may have been answered already.

        A call bears no time of its own, but its epoch ends not later than the policy's age after it.
        """
        return self.at is not None and call.not_after <= self.at + policy.epoch_age
