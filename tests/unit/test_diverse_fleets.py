"""Devices that differ: the fleets of the benchmark, and what any device's rows can do to the sum."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bytes_federation import HushfleetSums
from bytes_sizes import messages
from bytes_tasks import Rows, Task
from bytes_training import train_together
from diverse_fleets import Bench, everyone, plot, score, some
from diverse_tasks import CLASSES, few_classes, own_scale, rare_class, short_of_rows, with_newcomer
from diverse_turbines import fleets, newcomers, turbines

from edge_agent.sources.rows import Judge, LocalData
from edge_agent.sources.rows import Rows as OwnRows
from edge_agent.work import Train
from edge_agent.work_bench import WorkBench
from hushfleet import codec
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.local import train
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.layers import Dense
from hushfleet.wire.schema import Schema
from hushfleet_demo.turbines import JUDGED

LAYERS = (Dense(6, 16, "relu"), Dense(16, CLASSES))


def rows(count: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    x = generator.standard_normal((count, 6)) + np.eye(CLASSES, 6)[labels] * 3
    return Rows(x.astype(np.float32), labels)


def task(**changed: Any) -> Task:
    devices = [rows(140, seed) for seed in range(4)]
    numbers = {"steps": 5, "batch": 16, "rate": 0.1, "momentum": 0.5, "clip": 2.0}
    return Task("a test", LAYERS, devices, rows(50, 9), **(numbers | changed))


def seen(devices: Any) -> list[tuple[float, ...]]:
    return sorted((*x.tolist(), float(y)) for one in devices for x, y in zip(one.x, one.y, strict=True))


@pytest.mark.parametrize("classes", [1, 2, CLASSES])
def test_every_row_goes_to_one_device_and_no_device_has_more_classes(classes: int) -> None:
    fleet = few_classes(task(), classes)
    assert len(fleet.devices) == 4 * -(-CLASSES // classes)
    assert seen(fleet.devices) == seen(task().devices)
    assert max(len(np.unique(one.y)) for one in fleet.devices) == classes


def test_a_rare_class_has_a_twentieth_of_its_rows_and_the_others_have_all() -> None:
    for before, after in zip(task().devices, rare_class(task(), 3, 20).devices, strict=True):
        counts = np.bincount(before.y, minlength=CLASSES)
        counts[3] = -(-counts[3] // 20)
        assert np.bincount(after.y, minlength=CLASSES).tolist() == counts.tolist()


def test_devices_with_a_scale_of_their_own_have_mean_0_and_deviation_1() -> None:
    fleet = own_scale(few_classes(task(), 1))
    assert all(one.x.dtype == np.float32 for one in fleet.devices)
    assert np.abs([one.x.mean(axis=0) for one in fleet.devices]).max() < 1e-5
    assert np.abs([one.x.std(axis=0) - 1 for one in fleet.devices]).max() < 1e-4


def test_some_devices_have_few_rows() -> None:
    assert [len(one.y) for one in short_of_rows(task(), 3, 20).devices] == [20, 20, 20, 140]


def test_a_newcomer_has_the_first_half_of_each_class_and_is_judged_on_the_other() -> None:
    fleet, later = with_newcomer(task(), 3)
    assert seen([fleet.devices[3], later]) == seen(task().devices[3:])
    assert seen(fleet.devices[:3]) == seen(task().devices[:3])
    assert (np.bincount(later.y) - np.bincount(fleet.devices[3].y)).tolist() == [
        count % 2 for count in np.bincount(task().devices[3].y)
    ]
    fleet, later = with_newcomer(task(), 3, alone=6)
    assert [6 in one.y for one in (*fleet.devices, later)] == [False, False, False, True, True]


def test_a_score_counts_each_class_by_itself() -> None:
    layers = (Dense(CLASSES, CLASSES),)
    flat = np.concatenate([np.eye(CLASSES).ravel(), np.zeros(CLASSES)]).astype(np.float32)
    told, true = np.array([0, 1, 1, 2, 3, 4, 5, 6]), np.array([0, 1, 2, 2, 3, 4, 5, 6])
    judged = Task("", layers, [], Rows(np.eye(CLASSES, dtype=np.float32)[told], true), 1, 1, 0.1, 0.0, 1.0)
    found = score(flat, judged, judged.test)
    assert found.accuracy == 7 / 8
    assert found.recalls.tolist() == [1, 1, 0.5, 1, 1, 1, 1]
    assert found.macro_f1 == pytest.approx((5 + 2 * 2 / 3) / CLASSES)


def test_a_part_of_the_devices_is_drawn_anew_in_every_round() -> None:
    fleet = few_classes(task(), 1)
    drawn = [some(fleet, 0.25)(number) for number in range(60)]
    assert {len(one) for one in drawn} == {7}
    assert set().union(*drawn) == set(everyone(fleet)(1))


@pytest.mark.parametrize("proximal", [0.0, 0.5])
@pytest.mark.parametrize("balanced", [False, True])
def test_together_devices_take_the_steps_that_each_takes_alone(proximal: float, balanced: bool) -> None:
    fleet = rare_class(task(proximal=proximal, balanced=balanced), 2, 20)
    flat, seeds = initial_flat(LAYERS, bytes(32)), [bytes([index]) for index in range(4)]
    for one, seed, ours in zip(fleet.devices, seeds, train_together(flat, fleet, seeds), strict=True):
        real = train(flat, LAYERS, one.x, one.y, head="softmax", steps=5, batch=16, rate=0.1, momentum=0.5,
                     proximal=proximal, balanced=balanced, order_seed=seed)  # fmt: skip
        assert ours.delta == pytest.approx(real.delta, abs=1e-6)


def test_every_question_is_answered_by_as_many_runs_as_are_announced(tmp_path: Path) -> None:
    told: list[str] = []
    bench = Bench([task()], 12, told.append)
    found = list(bench.rows())
    assert len(told) == bench.runs()
    assert {row.question for row in found} == {"skew", "scale", "rare", "rows", "joining", "alone"}
    for row in found:
        assert None not in (row.accuracy, row.macro_f1, row.lowest_recall)
        assert 0 <= (row.accuracy or 0.0) <= 1
    assert all(0 <= row.void <= 1 for row in found)
    assert {(row.rare_recall is None) for row in found if row.question == "alone"} == {False}
    plot(found, tmp_path / "skew.png")
    assert (tmp_path / "skew.png").stat().st_size > 10_000


def test_each_turbine_has_a_season_or_a_range_of_wind_of_its_own() -> None:
    here = turbines()
    made = fleets(here)
    sizes = {fleet: [len(rows) for rows in devices] for fleet, devices in made.items()}
    assert [len(rows) for rows in made["all rows each"]] == [len(one.between(0, JUDGED[0])) for one in here.recordings]
    # A year and a half: two of the four seasons twice.
    assert all(2_000 < count < 4_500 for count in sizes["one season each"])
    assert all(2_500 < count < 3_500 for count in sizes["one range of wind each"])
    winds = [rows.x[:, 0] for rows in made["one range of wind each"]]
    assert all(below.max() <= above.min() for below, above in pairwise(winds))
    devices, later = next(newcomers(here))
    assert len(devices[-1]) < 17 * 24 + 1 < len(devices[0])
    assert len(later) > 4_000


def test_who_is_away_keeps_its_residual_and_who_joins_has_none() -> None:
    fleet = task()
    sums = HushfleetSums(fleet, "default", messages("default", LAYERS, 4))
    flat, asleep = initial_flat(LAYERS, bytes(32)), [0.0]
    for number in range(1, 7):
        places = [0, 1] if 3 <= number <= 4 else [0, 1, 2]
        here = train_together(flat, fleet, [bytes([number, place]) for place in range(4)])
        flat = sums.apply(flat, [here[place] for place in places], number, places)
        residuals = [one.vector() for one in sums._residuals]
        assert residuals[3] is None
        assert residuals[2] is not None
        if number == 2:
            asleep = residuals[2].tolist()
        if number in (3, 4):
            assert residuals[2].tolist() == asleep
    assert sums.void == 0


class Made:
    """A source of so many made-up rows of these classes."""

    def __init__(self, count: int, classes: int) -> None:
        x = np.random.default_rng(count).standard_normal((count, 6), np.float32)
        whole = OwnRows(x, np.arange(count) % classes)
        self.data = LocalData(whole, OwnRows(whole.x[:0], whole.y[:0]), "softmax")

    def read(self, model: ModelSpec, schema: Schema | None) -> LocalData:
        return self.data

    def describe(self, schema: Schema, judge: Judge) -> Any:
        raise AssertionError


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("count", "classes"), [(20, CLASSES), (1_000_000, CLASSES), (20, 1), (3, 1), (1, 1)])
def test_no_devices_rows_move_the_sum_by_more_than_one_update(count: int, classes: int, balanced: bool) -> None:
    """Of twenty windows or a million, of all classes or one: finite, and cut to the clipping norm with weight 1."""
    flat, clip, largest, seed = initial_flat(LAYERS, bytes(32)), 0.5, 16, bytes(32)
    plan: Any = SimpleNamespace(steps=40, batch=32, rate=0.5, momentum=0.9, proximal=0.0)
    model: Any = SimpleNamespace(layers=LAYERS)
    bench = WorkBench(Made(count, classes), "numpy", balanced=balanced)
    delta, report = bench.train_now(Train(plan, bytes(32), flat, bytes(32)), model, None)
    assert np.isfinite(delta).all()
    assert report.examples == 40 * min(32, count)
    assert np.linalg.norm(delta) > 2 * clip
    step = codec.plain_step(clip, largest)
    vector = codec.encode_plain(
        delta, 1.0, report, clip=clip, step=step, largest_survivor_set=largest, checksum_seed=seed, draw=bytes
    )
    opened = codec.open_plain(vector, 1, coords=flat.size, clip=clip, step=step, largest_weight=1.0, checksum_seed=seed)
    assert opened.weight == codec.FIXED_POINT
    body = codec.pack_opened(opened.residues, codec.PLAIN_BITS)
    after = codec.apply_delta(flat, body, bits=codec.PLAIN_BITS, step=step, weight=opened.weight, rate=1.0)
    assert np.linalg.norm(after - flat) == pytest.approx(clip, rel=0.01)
