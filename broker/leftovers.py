"""Which retained messages no live document or epoch explains, and whose they are. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.directory import FleetDirectory
from hushfleet.errors import MalformedError
from hushfleet.mqtt.topics import Parsed
from hushfleet.wire.committee import Call
from hushfleet.wire.framing import Frame, TableType, read_message
from hushfleet.wire.round import Plan

RESULTS_KEPT = 20
"""Rounds whose results stay on the broker."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A retained message that no live document or epoch explains.

    Attributes:
        topic: where it is.
        why: what is wrong with it, and whose it is as far as the topic tells.
    """

    topic: str
    why: str


def unexplained(found: Mapping[str, bytes], fleet: FleetDirectory, now: float) -> list[Leftover]:
    """The retained messages that no live document or epoch explains, ascending by topic.

    Args:
        found: payloads by topic.
        fleet: its newest documents.
        now: seconds since 1970 UTC.
    """
    parsed: dict[str, Parsed] = {}
    leftovers: list[Leftover] = []
    for topic in found:
        try:
            parsed[topic] = fleet.topics.parse(topic)
        except MalformedError:
            leftovers.append(Leftover(topic, "no topic of the fleet"))
    judge = _Judge(fleet, parsed, found, now)
    leftovers += [Leftover(topic, why) for topic, at in parsed.items() if (why := judge.objection(at))]
    return sorted(leftovers, key=lambda leftover: leftover.topic)


class _Judge:
    """Knows the live versions, epochs and rounds, and says what stands outside them."""

    def __init__(
        self, fleet: FleetDirectory, parsed: Mapping[str, Parsed], found: Mapping[str, bytes], now: float
    ) -> None:
        self._fleet = fleet
        self._devices = set(fleet.roster.by_index()) | {fleet.committee.coordinator().index}
        self._names = {cert.index: cert.device for cert in fleet.committee.certs}
        self._revoked = set(fleet.access().revoked)
        self._candidates = set(fleet.committee.candidates())
        manifest = fleet.trust.manifest
        self._documents = {(entry.name, entry.version) for entry in manifest.docs} if manifest else set()
        plan = self._signed(found.get(fleet.topics.plan()), Plan)
        oldest_epoch = plan.epoch if plan else 0
        self._newest_round = max((at.round_number for at in parsed.values() if at.kind == "result"), default=0)
        self._newest_sums = max((at.round_number for at in parsed.values() if at.kind == "sums"), default=0)
        self._called = {
            at.epoch
            for topic, at in parsed.items()
            if at.kind == "call" and (call := self._signed(found[topic], Call)) and call.not_after > now
        }
        transcripts = {at.epoch for at in parsed.values() if at.kind == "transcript"}
        self._epochs = self._called | {epoch for epoch in transcripts if epoch >= oldest_epoch}

    def _signed(self, data: bytes | None, table: type[TableType]) -> TableType | None:
        try:
            frame = Frame.from_bytes(data or b"")
            return read_message(frame, table, self._fleet.trust.fleet, self._fleet.trust.coordinator_key)
        except MalformedError:
            return None

    def objection(self, at: Parsed) -> str:
        """Why nothing explains this topic; empty if something does."""
        match at.kind:
            case "root":
                known = self._fleet.trust.pair[0]
                return f"there is no root {at.version}; the newest is {known}" if at.version > known else ""
            case "certificate":
                return "" if at.device in self._devices else f"there is no device {at.device} in the roster"
            case "document":
                known_document = (at.name, at.version) in self._documents
                return "" if known_document else f"the manifest does not list version {at.version} of {at.name}"
            case "call":
                return "" if at.epoch in self._called else "a call that is over, or not the coordinator's"
            case "list" | "transcript":
                return "" if at.epoch in self._epochs else f"epoch {at.epoch} is over"
            case "card" | "key" | "ready" | "share" | "complaint":
                return self._objection_to_member(at)
            case "sums":
                return "older than the newest statistics" if at.round_number < self._newest_sums else ""
            case "result":
                old = at.round_number + RESULTS_KEPT <= self._newest_round and at.round_number != self._newest_sums
                return f"older than the last {RESULTS_KEPT} results" if old else ""
            case "up":
                return f"{self._who(at.device)} has retained what it sent to the coordinator"
            case "down":
                return f"retained for {self._who(at.device)}, though nothing to a device ever is"
            case "state":
                gone = at.device not in self._devices or at.device in self._revoked
                return f"the state of {self._who(at.device)}" if gone else ""
            case _:
                return ""

    def _objection_to_member(self, at: Parsed) -> str:
        if at.device not in self._candidates:
            return f"{self._who(at.device)} is no candidate"
        if at.epoch not in self._epochs:
            return f"{self._who(at.device)} has left it from epoch {at.epoch}, which is over or was never called"
        if at.kind == "share" and at.to not in self._candidates:
            return f"{self._who(at.device)} wrote to {self._who(at.to)}, which is no candidate"
        return ""

    def _who(self, index: int) -> str:
        name = f" ({self._names[index]})" if index in self._names else ""
        state = "" if index in self._devices else ", not in the roster"
        return f"device {index}{name}{state}{', revoked' if index in self._revoked else ''}"
