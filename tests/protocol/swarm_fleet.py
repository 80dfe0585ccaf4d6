"""One simulated fleet of the swarm: drawn from its seed, driven through its faults, judged."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

from signed_fleet import FleetKeys, make_fleet
from swarm import ROUNDS_A_SEED, Outcome, command
from witness import GRACE, Witness
from world import Crash, Faults, RoundSettings, World

from edge_agent.device import SEEN, Seen
from hushfleet.actions import Publish
from hushfleet.mqtt.chunks import HEADER_MARK
from hushfleet.secagg.sealing import unseal
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import APPLIED, VOID, MaskSum, Request, Survivors

ROUNDS = RoundSettings(collect=20, answer=6, recover=14, enough=0.6, patience=4.0, pause=15.0)
ROUND_SECONDS = ROUNDS.collect + ROUNDS.answer + ROUNDS.recover


@dataclass(frozen=True)
class Dice:
    """What a seed drew.

    Attributes:
        participants, members, recoveries, epoch_rounds: the fleet.
        faults: of the network.
        crash_rate: crashes per machine and round.
        sleep_rate: naps of a minute or more per device and round.
        wipe_rate: brokers restarted empty per round.
        slow: training takes up to longer than a plan is open.
        liar: the coordinator asks members for more than it may: a second set, too many shares.
    """

    participants: int
    members: int
    recoveries: int
    epoch_rounds: int
    faults: Faults
    crash_rate: float
    sleep_rate: float
    wipe_rate: float
    slow: bool
    liar: bool

    @classmethod
    def throw(cls, chance: random.Random) -> "Dice":
        """First which faults there are, then how often."""

        def some(largest: float) -> float:
            return chance.uniform(0, largest) if chance.random() < 0.5 else 0.0

        members = chance.randint(3, 6)
        return cls(
            participants=chance.randint(2, 6),
            members=members,
            recoveries=chance.randint(1, 2) if members > 4 else 1,
            epoch_rounds=chance.randint(2, 6),
            faults=Faults(some(0.05), some(0.3), some(0.3), chance.uniform(0.1, 8.0)),
            crash_rate=some(0.6),
            sleep_rate=some(0.3),
            wipe_rate=some(0.3),
            slow=chance.random() < 0.5,
            liar=chance.random() < 0.3,
        )


class Swarm:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(f"swarm {seed}")
        self.dice = Dice.throw(self.chance)
        self.world = World(
            self._fleet(), seed=seed, rounds=ROUNDS, faults=self.dice.faults, chunk=self.chance.choice((256, 4096))
        )
        self.end = self.world.now + 60 + ROUNDS_A_SEED * self.chance.uniform(4, ROUND_SECONDS)
        if self.dice.slow:
            self.world.training_time = lambda index, plan: self.chance.uniform(0.5, 1.3 * ROUNDS.collect)
        self._lies = 0
        self._lied: set[bytes] = set()
        self._singles: set[bytes] = set()
        if self.dice.liar:
            self.world.tamper = self._lie

    def _fleet(self) -> FleetKeys:
        dice = self.dice
        return make_fleet(
            dice.participants,
            dice.members,
            both=min(1, dice.members),
            seed=self.seed % 50,
            epoch_rounds=dice.epoch_rounds,
            recoveries=dice.recoveries,
            committee_min=max(3, dice.members - 1),
            # A liar's rounds may be aborted again and again; the limit on one base would then end training for a day.
            uploads_per_base=1000,
            audit_rate=self.chance.choice((0.0, 0.25, 1.0)),
        )

    def run(self) -> Outcome:
        """Faults, then none; then everything that must hold is checked."""
        world = self.world
        for index in world.keys.credentials:
            self._misfortunes(index)
        self._wipes()
        try:
            world.run_for(self.end - world.now)
            self._heal()
            self._check()
        except Exception as error:
            # An error that comes out of a role is a finding as well.
            raise AssertionError(f"{type(error).__name__}: {error}\n  {command(self.seed)}\n  {self.dice}") from error
        log = sha256(repr([(sent.time, sent.topic, sent.payload) for sent in world.broker.log]).encode())
        return Outcome(Counter(str(outcome["outcome"]) for outcome in world.outcomes()), log.hexdigest())

    # Faults.

    def _misfortunes(self, index: int) -> None:
        """Crashes at any of this machine's actions, and naps with or without its session."""
        world, dice, chance = self.world, self.dice, self.chance
        span = self.end - world.now
        rounds = span / ROUND_SECONDS
        for _ in range(self._number(dice.crash_rate * rounds)):
            sent = chance.choice((None, 0, 1, 2, 3, 5, 8))
            crash = Crash(sent, chance.uniform(0.1, 20), chance.random() < 0.7)
            world.at(world.now + chance.uniform(0, span), lambda crash=crash: self._crash_soon(index, crash))  # type: ignore[misc]
        if index:
            for _ in range(self._number(dice.sleep_rate * rounds)):
                at = world.now + chance.uniform(0, span)
                keep = chance.random() < 0.5
                world.at(at, lambda keep=keep: world.crash(index, keep_session=keep))  # type: ignore[misc]
                world.at(at + chance.uniform(5, 200), lambda: world.start(index))

    def _number(self, expected: float) -> int:
        return int(expected) + (self.chance.random() < expected % 1)

    def _crash_soon(self, index: int, crash: Crash) -> None:
        if self.world.now < self.end:
            self.world.crashes[index, self.world.events[index] + self.chance.randint(1, 12)] = crash

    def _wipes(self) -> None:
        world, span = self.world, self.end - self.world.now
        for _ in range(self._number(self.dice.wipe_rate * span / ROUND_SECONDS)):
            world.at(world.now + self.chance.uniform(0, span), world.restart_broker)

    def _lie(self, sender: int, publish: Publish) -> Iterable[Publish]:
        """A coordinator that shows a set of one first, another set after, and asks for a share of every member."""
        whole = publish.topic.endswith("/0") and not publish.payload.startswith(HEADER_MARK)
        if sender or self._lies > 40 or "/survivors/" not in publish.topic or not whole:
            yield publish
            return
        self._lies += 1
        keys = self.world.keys
        coordinator = keys.credentials[0].identity()
        frame = Frame.from_bytes(publish.payload, len(publish.payload))
        shown = read(frame, Survivors)
        single = coordinator.frame(replace(shown, entries=shown.entries[:132]), keys.fleet)
        self._lied.add(single.to_bytes())
        self._singles.add(single.hash(keys.fleet))
        yield replace(publish, payload=single.to_bytes())
        yield publish
        if len(shown.entries) > 132 * 2:
            other = coordinator.frame(replace(shown, entries=shown.entries[132:]), keys.fleet)
            self._lied.add(other.to_bytes())
            yield replace(publish, payload=other.to_bytes())
        for lost in range(1, self.dice.members + 1):
            request = coordinator.frame(Request(0, shown.plan, frame.hash(keys.fleet), lost), keys.fleet)
            yield replace(publish, topic=publish.topic.replace("/survivors/", "/request/"), payload=request.to_bytes())

    # Judgement.

    def _heal(self) -> None:
        """No more faults; everyone is back but one member, and a round must still be brought to its end."""
        world = self.world
        world.faults, world.crashes = Faults(), {}
        # With three members the policy asks for all of them in every set-up.
        away = self.chance.randint(1, self.dice.members) if self.dice.members > 3 and not self.dice.liar else 0
        for index in world.keys.credentials:
            world.start(index)
        world.run_for(2 * ROUND_SECONDS + GRACE)
        if away:
            world.crash(away, keep_session=True)
        before = self._applied()
        # A set-up that failed is tried again after at most an hour; an epoch without the absent needs one, too.
        world.run(lambda world: self._applied() > before + 1, deadline=3 * 3600.0)
        world.start(away or 1)
        world.run_for(GRACE)

    def _applied(self) -> int:
        return sum(outcome["outcome"] == "applied" for outcome in self.world.outcomes())

    def _check(self) -> None:
        # What the liar itself says twice is no news; what others answer to it is.
        log = self.world.broker.log
        log[:] = [sent for sent in log if sent.payload not in self._lied]
        witness = Witness(self.world)
        witness.check()
        for number, result in witness.results.items():
            assert result.outcome != VOID, f"round {number} is void, but nobody lied"
            if result.outcome == APPLIED:
                included = sum(byte.bit_count() for byte in result.included)
                assert included >= 2, f"round {number} opened {included} uploads"
        self._check_answers(witness)
        self._check_recoveries(witness)
        self._check_erasure()

    def _check_answers(self, witness: Witness) -> None:
        """No member cancels the masks of one device alone."""
        secret = self.world.keys.credentials[0].seal_secret
        assert secret is not None
        for sent in self.world.broker.log:
            at = witness.topics.parse(sent.topic)
            if at.kind == "up" and at.name == "masksum" and at.chunk == 0 and not sent.payload.startswith(HEADER_MARK):
                answer = read(Frame.from_bytes(unseal(sent.payload, secret), len(sent.payload)), MaskSum)
                assert answer.set not in self._singles, f"member {at.device} opened one device's upload"

    def _check_recoveries(self, witness: Witness) -> None:
        """No member gives shares of more than f others in one round."""
        helped: dict[tuple[int, int], set[int]] = defaultdict(set)
        for sent in self.world.broker.log:
            at = witness.topics.parse(sent.topic)
            if at.kind == "up" and at.name == "share" and at.part is not None:
                helped[at.device, at.round_number].add(at.part)
        for (member, number), lost in helped.items():
            assert len(lost) <= self.dice.recoveries, f"member {member} gave shares of {lost} in round {number}"

    def _check_erasure(self) -> None:
        """No secret of a round outlives what a member has verified of its end."""
        for index in range(1, self.dice.members + 1):
            records = self.world.records[index]
            saved = records.get(SEEN)
            seen = Seen.from_body(saved) if saved else Seen()
            ended = seen.round if seen.ended() else seen.round - 1
            alive = [key for key, _ in records.scan("sheet/") if int(key.rpartition("/")[2]) <= ended]
            assert not alive, f"member {index} has seen the end of round {ended} and keeps {alive}"
