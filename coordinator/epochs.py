"""The usable epochs: which committee serves which round, and when a new one is due (docs/protocol.md, 3). No I/O.

The record `epoch/{epoch}` holds the joined transcript and the keys of its members.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from coordinator.context import Context
from hushfleet.actions import RETAINED, Action, Erase, Save, clear, retain
from hushfleet.errors import RefusedError
from hushfleet.mqtt.inbox import publishes
from hushfleet.plans import LARGEST_TRANSCRIPT, check_transcript
from hushfleet.secagg.committee import commitments, round_points
from hushfleet.wire.committee import CommitteeKey, Transcript
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Bytes, Frame, Frames, Table


@dataclass(frozen=True, slots=True)
class _Record(Table):
    KIND: ClassVar[str] = "epoch"
    transcript: Bytes
    keys: Frames


@dataclass(frozen=True, slots=True)
class Epoch:
    """A usable committee.

    Attributes:
        transcript: joined, with every member's signature.
        hash: the transcript's.
        frame: its exact bytes.
        points: each member's `points`, in T's order.
    """

    transcript: Transcript
    hash: bytes
    frame: bytes
    points: tuple[bytes, ...]

    @property
    def threshold(self) -> int:
        """t = c − f."""
        return len(self.points) - self.transcript.f

    def members(self) -> tuple[int, ...]:
        """T, ascending."""
        return self.transcript.committee_indices()

    def end(self) -> int:
        """The first round after the epoch."""
        return self.transcript.first + self.transcript.rounds

    def round_points(self, round_number: int) -> bytes:
        """S_{1,k} ‖ … ‖ S_{c,k} of a round."""
        return round_points(self.points, self.threshold, self.transcript.round_index(round_number))

    def commitments(self, member: int, round_number: int) -> list[bytes]:
        """A_{h,k,0} … A_{h,k,t−1} of a member and round."""
        points = self.points[self.members().index(member)]
        return commitments(points, self.threshold)[self.transcript.round_index(round_number)]

    def usable(self, policy: Policy, certified: Collection[int], opens: int) -> bool:
        """Whether a plan that opens then may name it under the newest documents and with the candidates certified."""
        try:
            check_transcript(self.transcript, policy, opens)
        except RefusedError:
            return False
        return set(self.members()) <= set(certified) and opens < self.transcript.not_after


class Epochs:
    """Every epoch that may still serve a round: at most two."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._epochs: dict[int, Epoch] = {}
        self._question: tuple[object, ...] = ()
        self._due = False
        for key, value in context.store.scan("epoch/"):
            self._epochs[int(key.removeprefix("epoch/"))] = self._read(_Record.from_body(value))

    def _read(self, record: _Record) -> Epoch:
        frame = Frame.from_bytes(record.transcript, LARGEST_TRANSCRIPT)
        keys = [CommitteeKey.from_body(Frame.from_bytes(key, len(key)).body) for key in record.keys]
        return Epoch(
            Transcript.from_body(frame.body),
            frame.hash(self._context.fleet),
            record.transcript,
            tuple(key.points for key in keys),
        )

    def numbered(self, number: int) -> Epoch | None:
        """The epoch of that number."""
        return self._epochs.get(number)

    def end(self) -> int:
        """The first round after every epoch; 0 if there is none."""
        return max((epoch.end() for epoch in self._epochs.values()), default=0)

    def add(self, transcript: Frame, keys: Sequence[bytes]) -> list[Action]:
        """Keep and publish a joined transcript with its members' key frames."""
        names, record = self._context.topics, _Record(transcript.to_bytes(), tuple(keys))
        epoch = self._read(record)
        number = epoch.transcript.epoch
        self._epochs[number] = epoch
        actions: list[Action] = [Save(f"epoch/{number:010}", record.to_body())]
        for publish in publishes(lambda chunk: names.transcript(number, chunk), record.transcript, self._context.chunk):
            actions += retain(publish)
        return actions

    def serving(self, next_round: int, opens: int, closes: int) -> tuple[Epoch, int] | None:
        """The oldest usable epoch with rounds and time left for a plan of these times, and the round it serves next."""
        documents, certified = self._context.documents(), self._context.trust.candidates(opens)
        for number in sorted(self._epochs):
            epoch = self._epochs[number]
            if epoch.end() <= next_round or closes >= epoch.transcript.not_after:
                continue
            if epoch.usable(documents.policy, certified, opens):
                return epoch, max(next_round, epoch.transcript.first)
        return None

    def due(self, next_round: int, now: float) -> bool:
        """No usable epoch, or only one, with a quarter of its rounds or of its time left.

        It is asked with every message: an answer holds for its second, while epochs and documents stay the same.
        """
        question = (next_round, int(now), self._context.trust.pair, tuple(self._epochs))
        if question != self._question:
            self._question, self._due = question, self._is_due(next_round, int(now))
        return self._due

    def _is_due(self, next_round: int, now: int) -> bool:
        documents, certified = self._context.documents(), self._context.trust.candidates(now)
        usable = [
            epoch
            for epoch in self._epochs.values()
            if epoch.end() > next_round and epoch.usable(documents.policy, certified, now)
        ]
        if len(usable) != 1:
            return not usable
        transcript = usable[0].transcript
        rounds_left = usable[0].end() - max(next_round, transcript.first)
        time_left = transcript.not_after - now
        return rounds_left * 4 <= transcript.rounds or time_left * 4 <= documents.policy.epoch_age

    def retire(self, next_round: int, now: float) -> list[Action]:
        """Drop epochs whose rounds or time are over, here and on the broker."""
        actions: list[Action] = []
        for number, epoch in list(self._epochs.items()):
            if epoch.end() <= next_round or epoch.transcript.not_after <= now:
                del self._epochs[number]
                actions += [Erase(f"epoch/{number:010}"), *self._unpublish(number)]
        return actions

    def _unpublish(self, number: int) -> list[Action]:
        names, store = self._context.topics, self._context.store
        prefix = names.transcript(number, 0).removesuffix("0")
        return [action for key, _ in store.scan(RETAINED + prefix) for action in clear(key.removeprefix(RETAINED))]
