"""A device's own version of the fleet's model: when it is used, what it leaves alone, and who goes first."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden_fleet
import golden_round
import numpy as np
import pytest
from numpy.typing import NDArray

from broker.local import HOST, free_port
from edge_agent.budget import TUNING, WATT_HOUR, Budget, BudgetSettings, round_joules
from edge_agent.decisions import Decisions, DecisionSettings
from edge_agent.inference import Model
from edge_agent.local_mqtt import LocalBroker
from edge_agent.personal import PARTS, Tuned, fine_tuning, is_better, judgeable
from edge_agent.scoring import Scoring
from edge_agent.sources.rows import LocalData, Rows
from edge_agent.sources.sensors import Sensors, SensorSettings
from edge_agent.sources.store import ReadingStore
from edge_agent.training.numpy_trainer import NumpyTrainer
from edge_agent.work import Describe, Score, Train
from edge_agent.work_bench import WorkBench
from firmware_profiles import catalog
from hushfleet.journal import Journal
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.server import model_hash
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import read
from hushfleet.wire.layers import Dense, Layer
from hushfleet.wire.round import Plan
from hushfleet.wire.schema import Channel, Schema

LAYERS: tuple[Layer, ...] = (Dense(2, 6, "tanh"), Dense(6, 2))
SPEC = replace(read(golden_fleet.documents().documents["model"], ModelSpec), layers=LAYERS)
PLAN = replace(read(golden_round.played().plan, Plan), steps=20, batch=16, rate=0.2, momentum=0.5, proximal=0.0)
SCHEMA = Schema(
    bytes(16), 0, 1, 1, bytes(32), (Channel("flow", "L/min", 0.0, 100.0),), 1.0, 2, 1, 0.0, 0, "classes",
    ("low", "high"), 0, 0,
)  # fmt: skip
SEED = bytes(range(32))
DEADLINE = 30.0


def rows(count: int, seed: int, *, turned: bool = False) -> Rows:
    """Which of two numbers is larger; or here, against everybody else, which is smaller."""
    x = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    return Rows(x, (x[:, 0] > x[:, 1]).astype(np.int64) ^ int(turned))


def fleets() -> NDArray[np.float32]:
    """A model that has learned which is larger."""
    x, flat = rows(200, 1), initial_flat(LAYERS, bytes(32))
    return flat + NumpyTrainer(LAYERS, "softmax").train(flat, x.x, x.y, replace(PLAN, steps=200), SEED).delta


class Given:
    """A source of just these rows, which waits until it may be read."""

    def __init__(self, data: LocalData) -> None:
        self.data, self.may = data, threading.Event()

    def read(self, model: ModelSpec, schema: Schema | None) -> LocalData:
        assert self.may.wait(DEADLINE)
        return self.data

    def describe(self, schema: Schema, judge: Callable[[LocalData], NDArray[np.float64]]) -> NDArray[np.float64]:
        return judge(self.data)


def own(turned: bool, kept: int = 80) -> LocalData:
    return LocalData(rows(300, 2, turned=turned), rows(kept, 3, turned=turned), "softmax")


def tuned_on(data: LocalData, flat: NDArray[np.float32]) -> Tuned:
    work = fine_tuning(NumpyTrainer(LAYERS, "softmax"), flat, LAYERS, data, PLAN, SEED)
    for _ in range(PARTS):
        next(work)
    with pytest.raises(StopIteration) as end:
        next(work)
    found: Tuned = end.value.value
    return found


def test_a_device_that_is_unlike_the_fleet_gets_a_version_of_its_own() -> None:
    flat = fleets()
    before = flat.copy()
    found = tuned_on(own(turned=True), flat)
    assert found.better
    assert found.own < 0.5 < 1.0 < found.fleet
    assert found.rows == 80
    np.testing.assert_array_equal(flat, before)
    again = tuned_on(own(turned=True), flat)
    np.testing.assert_array_equal(found.flat, again.flat)


def test_a_device_that_is_like_the_fleet_stays_with_its_model() -> None:
    assert not tuned_on(own(turned=False), fleets()).better


def test_a_gain_counts_if_it_is_above_its_standard_error_and_above_the_margin() -> None:
    fleet, ripple = np.ones(160), np.tile(np.repeat([0.1, -0.1], 20), 4)
    # The error of the mean of eight stretches that are 0.1 off, this way and that, is 0.038.
    assert not is_better(fleet, fleet - 0.07 - ripple)
    assert is_better(fleet, fleet - 0.08 - ripple)
    assert not is_better(fleet, fleet - 0.049)
    assert is_better(fleet, fleet - 0.051)
    assert not is_better(fleet, fleet)
    assert not is_better(np.zeros(160), np.zeros(160))


def test_rows_that_share_their_moment_are_no_independent_witnesses() -> None:
    """One stretch of eight that is much better would be many rows that are."""
    fleet, one = np.ones(160), np.ones(160)
    one[:20] -= 0.9
    assert (fleet - one).mean() / ((fleet - one).std(ddof=1) / np.sqrt(160)) > 4
    assert not is_better(fleet, one)


def test_fewer_than_two_rows_a_stretch_tell_nothing() -> None:
    assert [judgeable(count) for count in (0, 15, 16)] == [False, False, True]


def test_training_for_a_round_waits_for_one_part_at_most_and_starts_from_the_fleets_model() -> None:
    flat, source, order = fleets(), Given(own(turned=True)), list[str]()
    bench, over = WorkBench(source, "numpy"), threading.Event()
    deltas: list[NDArray[np.float32]] = []

    def tuned(found: Tuned | str) -> None:
        assert not isinstance(found, str)
        assert found.better
        order.append("tuned")
        over.set()

    def trained(delta: NDArray[np.float32], report: object) -> None:
        deltas.append(delta)
        order.append("trained")

    bench.tune(flat, SPEC, None, PLAN, SEED, tuned)
    bench.train(Train(PLAN, bytes(32), flat, SEED), SPEC, None, trained, order.append)
    source.may.set()
    assert over.wait(DEADLINE)
    assert order == ["trained", "tuned"]
    bench.train(Train(PLAN, bytes(32), flat, SEED), SPEC, None, trained, lambda why: None)
    data, done = source.data.training, threading.Event()
    bench.score([], SPEC, None, lambda *_: done.set())
    assert done.wait(DEADLINE)
    expected = NumpyTrainer(LAYERS, "softmax").train(flat, data.x, data.y, PLAN, SEED).delta
    assert len(deltas) == 2
    for delta in deltas:
        np.testing.assert_array_equal(delta, expected)


def test_a_newer_version_takes_the_place_of_one_that_is_being_tuned() -> None:
    source, told, over = Given(own(turned=True)), list[str](), threading.Event()

    def newer(found: Tuned | str) -> None:
        told.append("newer")
        over.set()

    bench = WorkBench(source, "numpy")
    bench.tune(fleets(), SPEC, None, PLAN, SEED, lambda found: told.append("older"))
    bench.tune(fleets(), SPEC, None, PLAN, SEED, newer)
    source.may.set()
    assert over.wait(DEADLINE)
    assert told == ["newer"]


@pytest.mark.parametrize(
    ("data", "plan", "why"),
    [
        (own(turned=True, kept=15), PLAN, "15 rows kept aside are too few to judge it"),
        (own(turned=True), replace(PLAN, rate=3e38), "diverged"),
        (replace(own(turned=True), training=None), PLAN, "training failed: AttributeError"),  # type: ignore[arg-type]
    ],
)
def test_why_there_is_no_own_version_is_said(data: LocalData, plan: Plan, why: str) -> None:
    source, told, over = Given(data), list[str](), threading.Event()

    def done(found: Tuned | str) -> None:
        told.append(str(found))
        over.set()

    source.may.set()
    WorkBench(source, "numpy").tune(fleets(), SPEC, None, plan, SEED, done)
    assert over.wait(DEADLINE)
    assert why in told[0]


class Desk:
    """Scoring with real decisions, whose broker is not there."""

    def __init__(self, directory: Path, data: LocalData, *, tunes: bool = True) -> None:
        source = Given(data)
        source.may.set()
        directory.mkdir(exist_ok=True)
        store = ReadingStore(directory / "readings.db", SensorSettings().keep)
        settings = DecisionSettings(LocalBroker(HOST, free_port()))
        self.bench = WorkBench(source, "numpy")
        self.scoring = Scoring(self.bench, Journal("json"), lambda plan, model: tunes, lambda size: SEED[:size])
        self.decisions = Decisions(settings, Sensors(SensorSettings(), store), "pump", "pump", Journal("json"))
        self.scoring.decisions = self.decisions

    def score(
        self, version: int, flat: NDArray[np.float32], plan: Plan | None = PLAN, *, fitted: bool = True
    ) -> Model | None:
        """What is at work after a version was scored, and perhaps trained on."""
        self.scoring.start(Score(version, flat, fitted, plan, bytes(32)), SPEC, SCHEMA)
        for _ in range(PARTS + 3):
            done = threading.Event()
            self.bench.score([], SPEC, SCHEMA, lambda *_, done=done: done.set())
            assert done.wait(DEADLINE)
        return self.decisions.at_work()


def test_the_own_version_is_at_work_and_the_fleets_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, flat, used = Desk(tmp_path, own(turned=True)), fleets(), list[tuple[int, bool]]()
    use = Decisions.use

    def told(decisions: Decisions, model: Model, *others: Any) -> None:
        used.append((model.version, model.personalised))
        use(decisions, model, *others)

    monkeypatch.setattr(Decisions, "use", told)
    name = model_hash(flat)
    at_work = desk.score(4, flat)
    assert at_work
    assert (at_work.version, at_work.personalised) == (4, True)
    assert model_hash(flat) == name != model_hash(at_work.flat)
    shown: Any = desk.scoring.view()["personal"]
    assert (shown["version"], shown["rows"], shown["used"]) == (4, 80, True)
    assert shown["own"] < shown["fleet"]
    assert desk.decisions.view()["personalised"]
    # The next version is trained on from the fleet's, and takes the own one's place.
    at_work = desk.score(5, flat)
    assert at_work
    assert (at_work.version, at_work.personalised) == (5, True)
    np.testing.assert_array_equal(at_work.flat, tuned_on(own(turned=True), flat).flat)
    # Answers are of the fleet's version only until there is the first one of the device's own.
    assert used == [(4, False), (4, True), (5, True)]


@pytest.mark.parametrize(("turned", "tunes", "plan"), [(False, True, PLAN), (True, False, PLAN), (True, True, None)])
def test_the_fleets_version_is_at_work_otherwise(tmp_path: Path, turned: bool, tunes: bool, plan: Plan | None) -> None:
    desk, flat = Desk(tmp_path, own(turned=turned), tunes=tunes), fleets()
    at_work = desk.score(4, flat, plan)
    assert at_work
    assert (at_work.version, at_work.personalised) == (4, False)
    np.testing.assert_array_equal(at_work.flat, flat)


def test_a_version_is_not_held_against_one_of_other_layers_that_has_as_many_numbers(tmp_path: Path) -> None:
    """What the old numbers give under the new layers is nobody's loss."""
    desk, flat = Desk(tmp_path, own(turned=False, kept=15)), fleets()
    assert desk.score(4, flat)
    other = replace(SPEC, layers=(Dense(2, 6, "none"), Dense(6, 2)))
    # Under no activation what was learned is good; this one says nothing, and is at work all the same.
    desk.scoring.start(Score(5, np.zeros_like(flat), True, None, bytes(32)), other, SCHEMA)
    done = threading.Event()
    desk.bench.score([], SPEC, SCHEMA, lambda *_: done.set())
    assert done.wait(DEADLINE)
    at_work = desk.decisions.at_work()
    assert at_work
    assert at_work.version == 5


def test_a_version_that_was_left_is_not_put_to_work_by_the_failure_to_improve_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, own(turned=False, kept=15))
    good = desk.score(4, fleets())
    assert good
    assert desk.score(5, np.zeros_like(good.flat)) is good


def test_an_own_version_that_is_still_being_trained_does_not_come_after_a_later_version(tmp_path: Path) -> None:
    """As after a rollback, or where the day's energy paid for the training of the one before alone."""
    desk, flat = Desk(tmp_path, own(turned=True)), fleets()
    desk.scoring.start(Score(5, flat, True, PLAN, bytes(32)), SPEC, SCHEMA)
    at_work = desk.score(4, flat, plan=None)
    assert at_work
    assert (at_work.version, at_work.personalised) == (4, False)
    assert desk.scoring.view()["personal"] is None


def test_a_version_that_cannot_be_scored_is_put_to_work_as_where_there_are_no_rows(tmp_path: Path) -> None:
    desk = Desk(tmp_path, replace(own(turned=False), evaluation=None))  # type: ignore[arg-type]
    at_work = desk.score(4, fleets())
    assert at_work
    assert at_work.version == 4


def test_layers_that_nobody_has_trained_answer_nothing(tmp_path: Path) -> None:
    """A newcomer's own layers are those of version 0, until they are trained here: in a round, or for itself."""
    alike = Desk(tmp_path / "alike", own(turned=False))
    assert alike.score(4, fleets(), fitted=False) is None
    assert alike.score(5, fleets(), plan=None, fitted=False) is None
    unlike = Desk(tmp_path / "unlike", own(turned=True))
    at_work = unlike.score(4, fleets(), fitted=False)
    assert at_work
    assert at_work.personalised


@pytest.mark.parametrize("fitted", [False, True])
def test_layers_that_nobody_has_trained_tell_the_fleet_nothing(fitted: bool) -> None:
    """Else a newcomer's rows would be what the fleet's model errs on most."""
    source, told, over = Given(own(turned=False)), list[NDArray[np.float64]](), threading.Event()
    source.may.set()

    def done(numbers: NDArray[np.float64]) -> None:
        told.append(numbers)
        over.set()

    work = Describe(PLAN, bytes(32), fleets(), fitted)
    WorkBench(source, "numpy").describe(work, SPEC, SCHEMA, done, lambda why: over.set())
    assert over.wait(DEADLINE)
    assert [numbers.any() for numbers in told] == [fitted]


GATEWAY = catalog.load("gateway-nb-iot")


def test_where_energy_has_a_limit_a_part_of_it_pays_for_own_versions(tmp_path: Path) -> None:
    assert GATEWAY.compute is not None
    assert GATEWAY.energy is not None
    cost = PARTS * PLAN.steps * round_joules(GATEWAY.compute, GATEWAY.energy, PLAN, SPEC, 0)[0]

    def budget(settings: BudgetSettings) -> Budget:
        return Budget(settings, GATEWAY, tmp_path / "energy.json", lambda why: None, lambda: 1_700_049_600.0)

    limited = budget(BudgetSettings(energy=2.5 * cost / TUNING / WATT_HOUR))
    assert [limited.pays_for_tuning(PLAN, SPEC, PARTS) for _ in range(3)] == [True, True, False]
    assert all(budget(BudgetSettings()).pays_for_tuning(PLAN, SPEC, PARTS) for _ in range(10))
    assert not budget(BudgetSettings(hours=("03:00-03:01",))).pays_for_tuning(PLAN, SPEC, PARTS)
