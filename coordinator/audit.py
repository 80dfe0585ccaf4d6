"""Whom to examine, and what an examination comes to: cleared, or blamed with evidence (docs/protocol.md, 4). No I/O.

Records, kept over the rounds:

    audit/cleared              when each member was last found right, for the order of suspicion
    blame/{round}/{member}     evidence that anyone can judge from the fleet's root alone
"""

from dataclasses import dataclass
from typing import ClassVar

from coordinator.context import Context
from coordinator.opening import Opening
from hushfleet.actions import RETAINED, Action, Export, Save
from hushfleet.evidence import Evidence
from hushfleet.wire.framing import Bytes, Table
from hushfleet.wire.round import Plan

CLEARED, BLAME = "audit/cleared", "blame/"
_ENTRY = 12


@dataclass(frozen=True, slots=True)
class _Cleared(Table):
    """`member u32 ‖ round u64` for each member ever cleared."""

    KIND: ClassVar[str] = "cleared"
    entries: Bytes


class Audit:
    """The order of suspicion, built anew from its records at every start."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._cleared: dict[int, int] = {}
        saved = context.store.get(CLEARED)
        if saved is not None:
            packed = _Cleared.from_body(saved).entries
            for at in range(0, len(packed), _ENTRY):
                entry = packed[at : at + _ENTRY]
                self._cleared[int.from_bytes(entry[:4], "little")] = int.from_bytes(entry[4:], "little")

    def by_chance(self, opening: Opening, rate: float) -> list[Action]:
        """With probability `rate`, by a private coin, examine a random member that has answered."""
        members = sorted(opening.examinable())
        if not members or opening.spare() < 1 or self._below(2**32) >= rate * 2**32:
            return []
        return opening.examine(members[self._below(len(members))])

    def _below(self, bound: int) -> int:
        return int.from_bytes(self._context.draw(16), "little") % bound

    def after_failure(self, opening: Opening) -> list[Action]:
        """A check failed: examine whom nobody has cleared yet, or who was cleared longest ago; empty if none can be."""
        members = opening.examinable()
        if not members or opening.spare() < 1:
            return []
        return opening.examine(min(members, key=lambda member: (self._cleared.get(member, 0), member)))

    def conclude(self, opening: Opening, plan: Plan, plan_frame: bytes, transcript: bytes) -> list[Action]:
        """What the examinations of a round came to; called once, at its end."""
        actions: list[Action] = []
        if opening.cleared:
            self._cleared |= dict.fromkeys(opening.cleared, plan.round)
            packed = b"".join(
                member.to_bytes(4, "little") + number.to_bytes(8, "little")
                for member, number in sorted(self._cleared.items())
            )
            actions.append(Save(CLEARED, _Cleared(packed).to_body()))
        for member, blame in opening.blamed.items():
            evidence = self._evidence(plan_frame, transcript, blame).to_body()
            actions += [Save(f"{BLAME}{plan.round:020}/{member:010}", evidence), _kept(plan.round, member, evidence)]
            for other in opening.members():
                actions += self._context.down(other, "blame", plan.round, blame, part=member)
        return actions

    def _evidence(self, plan_frame: bytes, transcript: bytes, blame: bytes) -> Evidence:
        store, names, trust = self._context.store, self._context.topics, self._context.trust
        newest = trust.root.version if trust.root else 0
        return Evidence(
            tuple(store.get(RETAINED + names.root(version)) or b"" for version in range(1, newest + 1)),
            store.get("trust/manifest") or b"",
            store.get("trust/doc/committee") or b"",
            plan_frame,
            transcript,
            blame,
        )

    def kept(self) -> list[Action]:
        """All evidence ever found, for a runner that starts: a crash may have kept it from its place."""
        found: list[Action] = []
        for key, evidence in self._context.store.scan(BLAME):
            _, number, member = key.split("/")
            found.append(_kept(int(number), int(member), evidence))
        return found


def _kept(number: int, member: int, evidence: bytes) -> Export:
    return Export(f"blame-round-{number}-member-{member}.evidence", evidence)
