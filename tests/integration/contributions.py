"""A real fleet whose device i contributes the vector e_i, and an oracle that judges it by its sums.

A linear model and one row: features e_i, a target far away. The gradient is the same number in coordinate i and in the
bias, and 0 elsewhere, so that the clipped update is clip/√2 in these two. In an opened sum every coordinate of a device
that is in it once holds that, every other one 0: a lost, doubled, wrong or invented upload shows by its device.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import ceil, floor, sqrt

from fleet_fixture import COORDINATOR, DEADLINE, Event, Fleet, Witness

from broker.directory import FleetDirectory
from hushfleet.codec import FIXED_POINT, unpack_opened
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import ACCEPTED, APPLIED, OUTCOMES, RESULT_REASONS, VOID, Delta, Receipt, Result

WIDTH = 255
"""Features; with the bias 256 parameters: an upload of three chunks."""
FAR = 1e6
KEPT = 100
"""Rounds for which it is remembered what was said in them."""


class ContributingFleet(Fleet):
    """Device i's update is e_i."""

    layers = (f'{{ in = {WIDTH}, out = 1, act = "none" }}',)
    head = "mean_squared"
    clip = 1.0

    @staticmethod
    def data(number: int) -> str:
        """One row."""
        header = [*(f"x{column}" for column in range(WIDTH)), "label"]
        return f"{','.join(header)}\n{','.join(str(int(column == number + 1)) for column in range(WIDTH))},{FAR}\n"


class Oracle(Witness):
    """Judges a fleet by what passes the broker and by what its services say; `faults` is to stay empty."""

    def __init__(self, fleet: ContributingFleet) -> None:
        super().__init__(fleet)
        self.faults: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.judged = 0
        self._indices = {name: index for index, name in enumerate(fleet.devices, start=1)}
        self._topics, self._clip = fleet.topics, fleet.clip
        self._fleet_id = FleetDirectory.load(fleet.owner).trust.fleet
        self._results: dict[int, Result] = {}
        self._deltas: dict[int, tuple[bytes, Delta]] = {}
        self._accepted: dict[int, set[int]] = defaultdict(set)
        self._included: dict[int, set[int]] = {}
        self._model: tuple[int, bytes] | None = None
        self._passed: dict[tuple[int, object], bytes] = {}
        self._told: Counter[tuple[int, str, str]] = Counter()

    @property
    def newest(self) -> int:
        """The newest round whose result has passed."""
        with self._heard:
            return max(self._results, default=0)

    def await_result(self, number: int) -> None:
        """Return once the result of this round and the model that it made have passed."""
        with self._heard:
            assert self._heard.wait_for(
                lambda: number in self._results and self._results[number].version in self._deltas, DEADLINE
            ), f"no result of round {number}"

    # What passes the broker.

    def _keep(self, topic: str, payload: bytes) -> None:
        if not payload or "/state/" in topic:
            return
        at = self._topics.parse(topic)
        with self._heard:
            match at.kind, at.name:
                case "result", _:
                    self._once(at.round_number, topic, payload)
                    self._results[at.round_number] = read(Frame.from_bytes(payload), Result)
                case "model", "delta":
                    self._deltas[at.version] = (payload, read(Frame.from_bytes(payload), Delta))
                case "up", "upload" | "masksum":
                    self._once(at.round_number, topic, payload)
                case "down", "survivors":
                    self._once(at.round_number, (at.name, at.chunk), payload)
                case "down", "receipt":
                    receipt = read(Frame.from_bytes(payload), Receipt)
                    if receipt.state == ACCEPTED:
                        self._accept(receipt.round, at.device)
            self._heard.notify_all()

    def _once(self, number: int, subject: object, payload: bytes) -> None:
        if self._passed.setdefault((number, subject), payload) != payload:
            self.faults.append(f"two different messages as {subject} in round {number}")

    def _accept(self, number: int, device: int) -> None:
        self._accepted[number].add(device)
        if number in self._included and device not in self._included[number]:
            self.faults.append(f"round {number}: the upload of device {device} was accepted, then lost")

    # What services say.

    def hear(self, told: Iterable[tuple[str, str, Event]]) -> None:
        """Take what services have said."""
        with self._heard:
            for teller, line, event in told:
                kind, number = event.get("event", ""), event.get("round", 0)
                if kind == "accepted":
                    self._accept(number, event["device"] if teller == COORDINATOR else self._indices[teller])
                if kind in ("uploading", "answered", "frozen") or (kind, teller) == ("round", COORDINATOR):
                    self._told[number, teller, kind] += 1
                    if self._told[number, teller, kind] > 1:
                        self.faults.append(f"{teller} says it twice: {line}")
                if kind in ("epoch-ready", "setup-failed"):
                    self.outcomes[kind] += 1
                if teller == COORDINATOR and event.get("recovered"):
                    self.outcomes["with recoveries"] += 1
                if kind == "internal-error" or not event:
                    self.faults.append(f"{teller}: {line}")

    # Judgement.

    def judge(self, upto: int) -> None:
        """Judge every round up to this one that is not judged yet."""
        with self._heard:
            for number in range(self.judged + 1, upto + 1):
                self._judge(number)
                self.judged = number
            self._forget(self.judged - KEPT)

    def _judge(self, number: int) -> None:
        result = self._results.get(number)
        if result is None:
            self.faults.append(f"round {number}: no result has passed")
            return
        self.outcomes[OUTCOMES[result.outcome]] += 1
        if result.outcome == VOID:
            why = RESULT_REASONS[result.reason]
            self.faults.append(f"round {number}: nobody lies here, and yet its sum does not hold together: {why}")
        if self._model not in (None, (result.base, result.base_hash)):
            self.faults.append(f"round {number} does not begin with the model of the one before")
        self._model = result.version, result.version_hash
        if result.outcome == APPLIED:
            self._included[number] = {index for index in self._indices.values() if result.includes(index)}
            if lost := self._accepted[number] - self._included[number]:
                self.faults.append(f"round {number}: the uploads of {sorted(lost)} were accepted, then lost")
            self._weigh(number, result)

    def _weigh(self, number: int, result: Result) -> None:
        """Look at every coordinate of the sum."""
        if result.version not in self._deltas:
            self.faults.append(f"round {number}: no delta to version {result.version} has passed")
            return
        payload, delta = self._deltas[result.version]
        included = self._included[number]
        if Frame.from_bytes(payload).hash(self._fleet_id) != result.delta:
            self.faults.append(f"round {number}: the delta that passed is another")
        each = self._clip / sqrt(2) / delta.step
        for index, value in enumerate(unpack_opened(delta.body, delta.bits, WIDTH + 1).tolist()):
            times = len(included) if index == WIDTH else int(index in included)
            if not times * floor(each) <= value <= times * ceil(each):
                self.faults.append(f"round {number}: {value / each:.3f} uploads of device {index}, not {times}")
        if (delta.weight, result.metrics.examples) != (FIXED_POINT * len(included), len(included)):
            self.faults.append(f"round {number}: {len(included)} uploads of weight 1 and one row do not give its lanes")

    def _forget(self, number: int) -> None:
        oldest = self._model[0] - KEPT if self._model else 0
        self._results = {at: result for at, result in self._results.items() if at >= number}
        self._deltas = {version: delta for version, delta in self._deltas.items() if version >= oldest}
        self._passed = {key: payload for key, payload in self._passed.items() if key[0] >= number}
        self._told = Counter({key: count for key, count in self._told.items() if key[0] >= number})
