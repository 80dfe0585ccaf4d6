"""What statistics rounds of a simulated fleet must open: exactly the sum of the numbers each device drew that round.

The sums go out under their own topic, the result that names them under another, in any order after a crash: they are
judged once both were seen.
"""

import random
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from world import FleetKeys, World

from hushfleet.actions import RETAINED
from hushfleet.judgement import judge
from hushfleet.mqtt.inbox import Inbox
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.statistics import Digits, describe, for_everyone
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Plan, Result, Sums
from hushfleet.wire.schema import Schema

LARGEST_SUMS = 1 << 20
"""Bytes of published sums, at most."""
ROUNDING = 1e-3
"""Steps by which a sum of floating point numbers may be off."""


def schema_of(keys: FleetKeys) -> Schema:
    """The schema that the owners signed."""
    return read(keys.documents["schema"], Schema)


def drawn(keys: FleetKeys, seed: object) -> Callable[[int, Plan], NDArray[np.float64]]:
    """What a device says of itself in a round: other readings and errors in each, the same whenever it is asked."""
    schema = schema_of(keys)

    def numbers(index: int, plan: Plan) -> NDArray[np.float64]:
        chance = random.Random(repr(("numbers", seed, index, plan.round)))
        values = [np.array([chance.random() for _ in range(chance.randrange(4))]) for _ in schema.channels]
        errors = np.array([[2 ** chance.uniform(-12, 4)] for _ in range(chance.randrange(4))]).reshape(-1, 1)
        missing = [chance.random() for _ in schema.channels]
        judged = judge(schema, [(errors, np.zeros_like(errors))])
        return describe(schema, chance.randrange(20_000), np.zeros(0, np.int64), values, missing, judged)

    return numbers


def spread(shifts: Iterable[NDArray[np.float64]]) -> list[NDArray[np.float64] | float]:
    """All that members who may have shifted a sum, each or not, can come to."""
    found = list(shifts)
    return [sum(some, 0.0) for chosen in range(len(found) + 1) for some in combinations(found, chosen)]


def retained_sums(world: World, number: int) -> bytes | None:
    """The whole message that the coordinator retains of a round's sums, by its records."""
    chunks, inbox = Topics(world.keys.fleet).sums(number, 0).removesuffix("0"), Inbox()
    data = None
    for key, payload in world.records[0].scan(RETAINED + chunks):
        data = inbox.offer(number, int(key.rpartition("/")[2]), payload, LARGEST_SUMS)
    return data


class OpenedNumbers:
    """The statistics rounds of one fleet, as they were published.

    Attributes:
        published: the sums, by round.
        left: by round, the version that its sums are over, where a rollback left it.
    """

    def __init__(self, world: World) -> None:
        self._world, self._inbox = world, Inbox()
        self.digits = Digits.of(read(world.keys.documents["policy"], Policy).largest_survivor_set)
        self.published: dict[int, Sums] = {}
        self._hashes: dict[int, bytes] = {}
        self._named: dict[int, tuple[Result, list[int]]] = {}
        self.left: dict[int, int] = {}

    def see_sums(self, at: Parsed, payload: bytes) -> bool:
        """Take a chunk of published sums; whether they are whole now."""
        data = self._inbox.offer(at.round_number, at.chunk, payload, LARGEST_SUMS)
        if data is None:
            return False
        frame = Frame.from_bytes(data, limit=len(data))
        self.published[at.round_number] = read(frame, Sums)
        self._hashes[at.round_number] = frame.hash(self._world.keys.fleet)
        return True

    def see_result(self, result: Result, included: list[int]) -> None:
        """Take an applied result of a statistics plan, which names its sums."""
        self._named[result.round] = result, included

    def wrong(self, plan: Plan, shifts: Iterable[NDArray[np.float64]]) -> str | None:
        """What is wrong with a round whose sums and result were both seen.

        Args:
            plan: the round's.
            shifts: what members may have added to the sums, in units of 1/top.
        """
        number = plan.round
        if number not in self._named or number not in self.published:
            return None
        (result, included), sums = self._named[number], self.published[number]
        if result.delta != self._hashes[number]:
            return f"round {number} does not name the sums that are published"
        if (sums.plan, sums.devices, sums.top) != (result.plan, len(included), self.digits.top):
            return f"round {number} publishes the sums of another round or of other devices"
        exact = np.sum([self._world.numbers(index, plan) for index in included], axis=0) * sums.top
        told = np.array(sums.numbers(), np.float64)
        shifted = (np.rint(exact + shift).astype(np.int64) for shift in spread(shifts))
        if not any(np.abs(told - self.without_few(one)).max() < len(included) + ROUNDING for one in shifted):
            return f"round {number} opened other sums than those of {included}"
        return None

    def without_few(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """These without what too few have told."""
        keys = self._world.keys
        fewest = read(keys.documents["policy"], Policy).smallest_survivor_set
        return for_everyone(sums, schema_of(keys), fewest, self.digits.top)

    def leave(self, version: int) -> None:
        """The model went back to that version: sums over later ones are taken back."""
        for number in [number for number, (result, _) in self._named.items() if result.version > version]:
            self.left[number] = self._named.pop(number)[0].version

    def unpublished(self) -> list[int]:
        """The newest round that names sums, if they never left."""
        newest = max(self._named, default=0)
        return [newest] if newest and newest not in self.published else []

    def mistold(self) -> list[str]:
        """Which devices were told of a version what no round opened of it."""
        wrong = []
        for index, judged in self._world.judged.items():
            for told in judged:
                versions = self.left | {number: result.version for number, (result, _) in self._named.items()}
                rounds = [number for number, version in versions.items() if version == told.version]
                opened = [self.published[number] for number in rounds if number in self.published]
                flat = told.sums.flat()
                if not any(np.array_equal(np.array(sums.numbers()) / sums.top, flat) for sums in opened):
                    wrong.append(f"device {index} was told what nobody opened of version {told.version}")
        return wrong
