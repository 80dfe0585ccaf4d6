"""What one device says and hears when nothing fails: joining, each epoch, each round (docs/protocol.md, 3 and 4).

The order of things is that of edge_agent and coordinator; what breaks a link or a member comes on top.
"""

from dataclasses import dataclass, field
from functools import cached_property, partial

from hushfleet.mqtt.topics import Topics
from hushfleet.wire.round import KEYFRAME_EVERY, ROTATED
from planner.messages import Messages
from planner.packets import Count, fetch, hear, hear_all, opening, send, send_all, subscribe, total, unsubscribe

COORDINATOR_CHUNK = 16_384
"""Bytes of a chunk of what the coordinator sends, as its settings have it by default."""
RESULTS_KEPT = 20
"""Results that stay on the broker; with each newer one, the oldest is taken back before everyone's eyes."""
OFFLINE = b'{"state": "offline"}'
ONLINE = b'{"state": "online", "version": "0.1.0", "profile": "gateway-wifi"}'
"""What a device says of itself, as edge_agent.agent writes it."""


@dataclass(frozen=True)
class Traffic:
    """One device's part in the fleet's messages.

    Attributes:
        messages: the fleet's.
        member: whether the device is in the committee.
        coordinator_chunk: bytes of a chunk of what the coordinator sends.
        audit_rate: share of rounds in which a member is examined.
        topics: of a fleet; all have names of one length.
    """

    messages: Messages
    member: bool
    coordinator_chunk: int = COORDINATOR_CHUNK
    audit_rate: float = 0.25
    topics: Topics = field(default_factory=lambda: Topics(bytes(16)))

    @cached_property
    def a_round(self) -> Count:
        """A round, and its part of an epoch."""
        return self.round() + self.epoch() * (1 / self.messages.epoch_rounds)

    @cached_property
    def joining(self) -> Count:
        """From the first connection to version 0 of the model, which everyone computes; once."""
        names, said = self.topics, self.messages
        documents = ("committee", "policy", "model", "profile", *(("roster",) if self.member else ()))
        standing = [
            names.manifest(),
            names.date(),
            names.root(2),
            names.certificate(said.device),
            names.results(),
            names.plan(),
            names.downs(said.device),
            *((names.any_call(),) if self.member else ()),
        ]
        return total(
            [
                opening(names.state(said.device), OFFLINE, str(said.device)),
                send(names.state(said.device), ONLINE),
                *map(subscribe, standing),
                hear(names.manifest(), said.manifest),
                hear(names.date(), said.date),
                hear(names.certificate(said.device), said.certificate),
                *(
                    fetch(partial(names.document, name, 1), said.documents[name], self.coordinator_chunk)
                    for name in documents
                ),
            ]
        )

    @cached_property
    def catching_up(self) -> Count:
        """For a device that joins later, or was away: the results kept, a snapshot and, on average, what came since.

        The plain codec has a snapshot of the newest model, the rotated one of the last key frame.
        """
        names, said = self.topics, self.messages
        results = hear(names.result(said.round), said.result) * RESULTS_KEPT
        since = (KEYFRAME_EVERY - 1) / 2 if said.encoding.codec == ROTATED else 0.0
        deltas = self._fetched(partial(names.model, said.round, "delta"), said.delta) * since
        return results + deltas + self._fetched(partial(names.model, said.round, "snapshot"), said.snapshot)

    def epoch(self) -> Count:
        """For each committee: its transcript, and a member's part in the set-up."""
        names, said = self.topics, self.messages
        fetched = self._fetched(partial(names.transcript, said.epoch), said.transcript)
        return fetched + self._set_up() if self.member else fetched

    def _set_up(self) -> Count:
        names, said, epoch, me = self.topics, self.messages, self.messages.epoch, self.messages.device
        others, candidates = said.committee.members - 1, said.committee.candidates
        listened = [names.cards(epoch), names.list(epoch), names.keys(epoch), names.shares_to(epoch, me)]
        key = partial(names.key, epoch, me)
        empty = 1 + len(said.key) // said.chunk + (len(said.key) > said.chunk)
        return total(
            [
                hear(names.call(epoch), said.call),
                *map(subscribe, listened),
                send(names.card(epoch, me), said.card),
                hear(names.card(epoch, me), said.card) * candidates,
                hear(names.list(epoch), said.list),
                send_all(key, said.key, said.chunk),
                hear_all(key, said.key, said.chunk) * said.committee.members,
                send(names.share(epoch, me, 1), said.box) * others,
                hear(names.share(epoch, 1, me), said.box) * others,
                send(names.ready(epoch, me), said.ready),
                *map(unsubscribe, listened),
                # The call is taken back at the end of the set-up; what the member published, with the next one.
                hear(names.call(epoch), b""),
                send(names.card(epoch, me), b""),
                send(key(0), b"") * empty,
                send(names.share(epoch, me, 1), b"") * others,
                send(names.ready(epoch, me), b""),
            ]
        )

    def round(self) -> Count:
        """For each round in which the device takes part."""
        return self.before_upload() + self.upload() + self.after_upload()

    def before_upload(self) -> Count:
        """The plan."""
        return hear(self.topics.plan(), self.messages.plan) + Count(waits=0.5)

    def upload(self) -> Count:
        """Header, slices and both receipts."""
        names, said = self.topics, self.messages
        up = partial(names.up, 0, said.device, "upload", said.round)
        down = names.down(said.device, "receipt", said.round)
        slices = [send(up(number), piece) for number, piece in enumerate(said.slices, start=1)]
        return total([send(up(0), said.header), *slices, *(hear(down, one) for one in said.receipts)]) + Count(waits=1)

    def after_upload(self) -> Count:
        """A member's answer, the result, and the delta."""
        names, said = self.topics, self.messages
        counts = [
            hear(names.result(said.round), said.result),
            self._fetched(partial(names.model, said.round, "delta"), said.delta),
        ]
        if said.round > RESULTS_KEPT:
            counts.append(hear(names.result(said.round - RESULTS_KEPT), b""))
        if self.member:
            counts.append(self._answer())
        return total(counts)

    def _answer(self) -> Count:
        """The survivor set, the mask sum; and a share when another member is examined."""
        names, said, committee = self.topics, self.messages, self.messages.committee
        down = partial(names.down, said.device, "survivors", said.round)
        up = partial(names.up, 0, said.device, "masksum", said.round)
        examined = self.audit_rate * (committee.members - 1) / committee.members if committee.recoveries else 0.0
        help_another = hear(names.down(said.device, "request", said.round, part=1), said.request) + send_all(
            partial(names.up, 0, said.device, "share", said.round, part=1), said.share, said.chunk
        )
        return total(
            [
                hear_all(down, said.survivor_set, self.coordinator_chunk),
                send_all(up, said.mask_sum, said.chunk),
                help_another * examined,
                Count(waits=1),
            ]
        )

    def _fetched(self, topic: "partial[str]", data: bytes) -> Count:
        return fetch(topic, data, self.coordinator_chunk)
