"""A model whose last layer is each device's own: what everyone shares is summed, and the rest leaves nobody."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from signed_fleet import START, FleetKeys, seeded
from test_statistics_rounds import some_numbers
from witness import Witness
from world import Crash, RoundSettings, World, make_fleet

from edge_agent.personal_head import RECORD, PersonalHead
from edge_agent.work import Describe, Score, Train
from hushfleet.codec import LocalReport
from hushfleet.learning.layers import initial_flat
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import read
from hushfleet.wire.layers import Dense, Layer

LAYERS: tuple[Layer, ...] = (Dense(16, 16, "tanh"), Dense(16, 3))
PARTICIPANTS = (5, 6, 7)


class Personal(World):
    """Devices train the whole model; what each adds to its own layer is told by nothing else."""

    def __init__(self, *, rounds: RoundSettings, crashes: Any = None, keys: FleetKeys | None = None) -> None:
        self.given: list[tuple[int, int, NDArray[np.float32]]] = []
        self.described: list[tuple[int, NDArray[np.float32], bool]] = []
        self.scored: list[tuple[int, Score]] = []
        keys = keys or make_fleet(3, 4, layers=LAYERS, personal=1)
        self.spec = read(keys.documents["model"], ModelSpec)
        super().__init__(keys, rounds=rounds, crashes=crashes)

    def own(self, index: int, number: int) -> NDArray[np.float32]:
        """What a round's training adds to a device's own layer."""
        count = initial_flat(self.spec.layers, self.spec.init).size - self.spec.parameters()
        return np.random.default_rng([index, number]).uniform(0.2, 0.3, count).astype(np.float32)

    def _execute(self, index: int, action: Any) -> None:
        if isinstance(action, Train):
            self.given.append((index, action.plan.round, action.flat))
        if isinstance(action, Describe):
            self.described.append((index, action.flat, action.fitted))
        if isinstance(action, Score):
            self.scored.append((index, action))
        super()._execute(index, action)

    def _trained(self, index: int, life: int, work: Train) -> None:
        if self._lives(index, life):
            shared = np.zeros(self.spec.parameters(), np.float32)
            shared[index] = 1.0 + work.plan.round % 64 / 256
            self.contributed[index, work.plan.round] = shared
            delta = np.concatenate([shared, self.own(index, work.plan.round)])
            report = LocalReport(1, 0.5, 1, 0.5, 1)
            self.perform(index, self.device(index).on_trained(work.plan_hash, delta, report, self.clock(index)))

    def head(self, index: int) -> NDArray[np.float32]:
        """A device's own layer, as its records have it."""
        spec_hash = self.keys.documents["model"].hash(self.keys.fleet)
        return PersonalHead(self.records[index]).whole(self.spec, spec_hash, np.zeros(0, np.float32))

    def expected(self, index: int, rounds: list[int]) -> NDArray[np.float32]:
        """Version 0's, and what the trainings of these rounds added."""
        found = initial_flat(self.spec.layers, self.spec.init)[self.spec.parameters() :]
        for number in rounds:
            found = found + self.own(index, number)
        return found


def settings(total: int, **named: Any) -> RoundSettings:
    return RoundSettings(collect=30, answer=8, recover=30, total=total, **named)


def secrets_of(world: Personal) -> set[bytes]:
    """Every two numbers that stand beside each other in what devices have of their own, and in what is added to it."""
    own = [world.head(index) for index in PARTICIPANTS]
    own += [world.own(index, number) for index in PARTICIPANTS for number in range(1, 10)]
    return {numbers[at : at + 2].astype("<f4").tobytes() for numbers in own for at in range(len(numbers) - 1)}


def holds(data: bytes, secrets: set[bytes]) -> bool:
    return any(secret in data for secret in secrets)


def test_shared_layers_are_summed_and_the_last_one_stays_where_it_is_over_rounds_and_a_restart() -> None:
    world = Personal(rounds=settings(5))
    world.run(world.rounds_ended(2))
    world.crash(5)
    world.start(5)
    world.run(world.rounds_ended(5))
    world.run_for(5)
    Witness(world).check()
    assert [(outcome["outcome"], outcome["version"]) for outcome in world.outcomes()] == [
        ("applied", number) for number in range(1, 6)
    ]
    d = world.spec.parameters()
    for index in PARTICIPANTS:
        np.testing.assert_array_equal(world.head(index), world.expected(index, [1, 2, 3, 4, 5]))
        given = {number: flat for who, number, flat in world.given if who == index}
        for number in range(1, 6):
            np.testing.assert_array_equal(given[number][d:], world.expected(index, [*range(1, number)]))
        assert all(np.any(one[:d] != other[:d]) for one, other in pairwise(given.values()))
    # Scored is the model with the layer that was trained here, which after a restart may be a round ahead.
    for index, score in world.scored:
        trained = (score.version, score.version + 1) if index in PARTICIPANTS else (0,)
        own = [world.expected(index, [*range(1, rounds + 1)]) for rounds in trained]
        assert any(np.array_equal(score.flat[d:], one) for one in own)
        assert score.fitted == (index in PARTICIPANTS)
    assert {index for index, _ in world.scored} > set(PARTICIPANTS)


def test_nothing_that_was_sent_kept_elsewhere_or_said_holds_a_devices_own_layer() -> None:
    world = Personal(rounds=settings(3))
    world.run(world.rounds_ended(3))
    world.run_for(5)
    secrets = secrets_of(world)
    # Whoever has the device has it, and so the search can find it.
    for index in PARTICIPANTS:
        assert [key for key, value in world.records[index].data.items() if holds(value, secrets)] == [RECORD]
    others = [index for index in world.records if index not in PARTICIPANTS]
    assert not holds(b"".join(value for index in others for value in world.records[index].data.values()), secrets)
    assert len(world.broker.log) > 100
    assert not holds(b"".join(sent.payload for sent in world.broker.log), secrets)
    said = f"{world.notes}{[repr(score) for score in world.scored]}{vars(world.device(5).participant.head)}"
    values = {f"{value:.6g}"[:6] for index in PARTICIPANTS for value in world.head(index).tolist()}
    assert not any(value in said for value in values)
    assert not any(repr(secret)[2:-1] in said for secret in secrets)


def test_the_layer_stays_whatever_becomes_of_the_round() -> None:
    world = Personal(rounds=settings(2))
    world.training_time = lambda index, plan: 1.0 if plan.round > 1 or index == 5 else 200.0
    world.run(world.rounds_ended(2))
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["aborted", "applied"]
    np.testing.assert_array_equal(world.head(5), world.expected(5, [1, 2]))
    # What came too late for an upload is not kept: nothing was made of it.
    np.testing.assert_array_equal(world.head(6), world.expected(6, [2]))
    Witness(world).check()


def test_a_round_moves_the_layer_no_further_than_an_update_is_long() -> None:
    """However a plan had it trained: the shared layers can be rolled back, one's own cannot."""
    world = Personal(rounds=settings(2))
    clip, usual = read(world.keys.documents["policy"], Policy).clip, world.own
    world.own = lambda index, number: usual(index, number) * np.float32(1e30 if number == 1 else 1)  # type: ignore[method-assign]
    world.run(world.rounds_ended(2))
    begin = initial_flat(world.spec.layers, world.spec.init)[world.spec.parameters() :]
    for index in PARTICIPANTS:
        wild = usual(index, 1) * (clip / np.linalg.norm(usual(index, 1)))
        np.testing.assert_allclose(world.head(index), begin + wild + usual(index, 2), rtol=1e-5)


def test_a_crash_before_the_upload_is_kept_takes_what_was_trained_with_it() -> None:
    world = Personal(rounds=settings(1))
    world.run(world.noted(5, "uploading"))
    event = world.events[5]
    for sent in (None, 0):
        again = Personal(rounds=settings(1), crashes={(5, event): Crash(sent)})
        again.run(again.rounds_ended(1))
        assert again.starts[5] == 2
        trainings = [number for index, number, _ in again.given if index == 5]
        assert trainings == ([1, 1] if sent is None else [1])
        np.testing.assert_array_equal(again.head(5), again.expected(5, [1]))
        Witness(again).check()


def test_another_model_spec_erases_it() -> None:
    world = Personal(rounds=settings(4))
    world.run(world.rounds_ended(2))
    model = world.keys.owner.model_spec("another", LAYERS, seeded("another")(32), version=2, issued=START)
    world.keys = world.keys.next_version(2, model=model)
    world.conductor.offer(world.keys.signed())
    world.run(lambda world: world.device(5).context.trust.pair == (1, 2))
    world.run_for(3)
    assert all(RECORD not in world.records[index].data for index in PARTICIPANTS)


def test_the_rotated_codec_carries_the_shared_layers_too() -> None:
    world = Personal(rounds=settings(2, codec="default"))
    world.run(world.rounds_ended(2))
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["applied"] * 2
    for index in PARTICIPANTS:
        np.testing.assert_array_equal(world.head(index), world.expected(index, [1, 2]))


def test_a_statistics_round_judges_the_model_with_the_layer_that_was_trained_here() -> None:
    layers = (Dense(16, 8, "tanh"), Dense(8, 16))
    keys = make_fleet(3, 4, layers=layers, personal=1, noiseless_statistics=1).with_schema()
    world = Personal(rounds=settings(3, statistics_every=2), keys=keys)
    world.numbers = lambda index, plan: some_numbers(keys, index)
    world.run(world.rounds_ended(5))
    first, second = world.described[: len(PARTICIPANTS)], world.described[len(PARTICIPANTS) :]
    # Statistics, two rounds of training, statistics, one more of training.
    for found, trained in ((first, []), (second, [2, 3])):
        assert {index for index, _, _ in found} == set(PARTICIPANTS)
        for index, flat, fitted in found:
            assert fitted == bool(trained)
            np.testing.assert_array_equal(flat[world.spec.parameters() :], world.expected(index, trained))
