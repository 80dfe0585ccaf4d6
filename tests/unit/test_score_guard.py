"""A new version's live scores beside those of the version before, and the way back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.inference import Model
from edge_agent.score_guard import PATIENCE, WINDOWS, Back, ScoreGuard
from hushfleet.wire.layers import Dense, Layer
from hushfleet.wire.schema import Channel, Schema

CHANNEL = (Channel("temperature", "degC", 0.0, 100.0),)
GENERATOR = np.random.default_rng(5)
FEED = GENERATOR.normal(0.0, 1.0, (WINDOWS, 2)).astype(np.float32)


def schema(task: str = "value") -> Schema:
    """Two samples of one channel."""
    classes = ("cold", "mild", "hot") if task == "classes" else ()
    windows = {"channels": CHANNEL, "rate": 1.0, "samples": 2, "step": 1, "missing": 0.0, "mask": 0}
    ahead = {"target": 0, "horizon": int(task == "forecast")}
    return Schema(bytes(16), 0, 1, 1, bytes(32), task=task, classes=classes, **windows, **ahead)  # type: ignore[arg-type]


def linear(version: int, factor: float, offset: float = 0.0) -> Model:
    """A number: the first sample times a factor, and an offset."""
    layers: tuple[Layer, ...] = (Dense(2, 1),)
    return Model(version, np.array([factor, 0.0, offset], np.float32), layers)


def thirds(version: int, *biases: float) -> Model:
    """Classes by the first sample: below, around and above zero, each as much more likely as its bias."""
    layers: tuple[Layer, ...] = (Dense(2, 3),)
    return Model(version, np.array([-4.0, 0.0, 4.0, 0.0, 0.0, 0.0, *biases], np.float32), layers)


def repeated(version: int, factor: float) -> Model:
    """An autoencoder that gives the window times a factor."""
    layers: tuple[Layer, ...] = (Dense(2, 2),)
    return Model(version, np.array([factor, 0.0, 0.0, factor, 0.0, 0.0], np.float32), layers)


def trial(
    before: Model, after: Model, rules: Schema, *, better: bool = False, feed: NDArray[np.float32] = FEED
) -> tuple[list[int | None], list[Back]]:
    """The version that each window was told by, and what was gone back from."""
    guard = ScoreGuard()
    guard.put(before, rules, False)
    guard.put(after, rules, better)
    told: list[int | None] = []
    backs: list[Back] = []
    for window in feed:
        said, back = guard.score(window)
        told.append(said["model"] if said else None)
        backs += [back] if back else []
    assert guard.at_work is (before if backs else after)
    return told, backs


def test_a_version_like_the_one_before_stays() -> None:
    for before, after, task in [
        (linear(3, 1.0), linear(4, 1.02, 0.01), "value"),
        (linear(3, 1.0), linear(4, 1.02, 0.01), "forecast"),
        (thirds(3, 0.0, 1.0, 0.0), thirds(4, 0.05, 1.0, 0.0), "classes"),
        (repeated(3, 0.5), repeated(4, 0.45), "anomaly"),
    ]:
        assert trial(before, after, schema(task)) == ([4] * WINDOWS, [])


@pytest.mark.parametrize(
    ("before", "after", "task", "why"),
    [
        (linear(3, 1.0), linear(4, 1.0, 1.0), "value", "moved by"),
        (linear(3, 1.0), linear(4, 5.0), "value", "moved by"),
        (linear(3, 1.0), linear(4, 0.0, 0.2), "forecast", "moved by"),
        (thirds(3, 0.0, 1.0, 0.0), thirds(4, 0.0, 1.0, 99.0), "classes", "moved by"),
        (repeated(3, 0.5), repeated(4, -0.5), "anomaly", "unlike"),
        (repeated(3, 0.99), repeated(4, 0.95), "anomaly", "unlike"),
    ],
)
def test_a_version_whose_scores_are_distributed_otherwise_is_gone_back_from(
    before: Model, after: Model, task: str, why: str
) -> None:
    told, (back,) = trial(before, after, schema(task))
    assert told == [4] * (WINDOWS - 1) + [3]
    assert (back.version, back.stays) == (4, 3)
    assert why in back.why
    # Where the device's own rows say that it is no worse, what has changed is what it has learned.
    assert trial(before, after, schema(task), better=True) == ([4] * WINDOWS, [])


def test_an_autoencoder_that_has_learned_much_stays() -> None:
    assert trial(repeated(3, 0.0), repeated(4, 0.99), schema("anomaly")) == ([4] * WINDOWS, [])


def test_one_that_told_all_windows_the_same_is_nothing_to_go_back_to() -> None:
    assert trial(linear(3, 0.0, 7.0), linear(4, 1.0), schema()) == ([4] * WINDOWS, [])
    assert trial(thirds(3, 99.0, 0.0, 0.0), thirds(4, 0.0, 1.0, 0.0), schema("classes")) == ([4] * WINDOWS, [])


@pytest.mark.parametrize("better", [False, True])
def test_at_the_first_score_that_is_no_number_the_version_before_tells_the_window(better: bool) -> None:
    feed = FEED.copy()
    feed[4, 0] = 3e30
    told, (back,) = trial(linear(3, 1.0), linear(4, 1e30), schema(), better=better, feed=feed)
    assert told == [4] * 4 + [3] * (WINDOWS - 4)
    assert back.why == "a score is no number"


def test_a_version_is_judged_beside_the_last_one_that_was_believed() -> None:
    guard, rules = ScoreGuard(), schema()
    guard.put(linear(1, 1.0), rules, False)
    guard.put(linear(2, 1.0, 1.0), rules, False)
    for window in FEED[:-1]:
        assert guard.score(window)[1] is None
    guard.put(linear(3, 1.0, 1.1), rules, False)
    backs = [back for back in (guard.score(window)[1] for window in FEED) if back]
    assert [(back.version, back.stays) for back in backs] == [(3, 1)]


def test_a_device_does_not_stay_behind_a_fleet_that_has_moved_on() -> None:
    guard, rules = ScoreGuard(), schema()
    guard.put(linear(1, 1.0), rules, False)
    at_work = []
    for version in range(2, PATIENCE + 4):
        guard.put(linear(version, 1.0, 2.0), rules, False)
        for window in FEED:
            guard.score(window)
        assert guard.at_work is not None
        at_work.append(guard.at_work.version)
    assert at_work == [1] * PATIENCE + [PATIENCE + 2, PATIENCE + 3]


def test_what_the_owners_went_back_to_and_another_schema_are_not_on_trial() -> None:
    for after, rules in [(linear(2, 9.0, 9.0), schema()), (linear(4, 9.0, 9.0), schema("forecast"))]:
        guard = ScoreGuard()
        guard.put(linear(3, 1.0), schema(), False)
        guard.put(after, rules, False)
        assert not any(guard.score(window)[1] for window in FEED)
        assert guard.at_work is after


@given(
    st.lists(
        st.one_of(st.floats(-100, 100, width=32), st.sampled_from(["same", "moved", "broken", "better"])), max_size=400
    )
)
def test_every_window_is_told_once_whatever_is_put_to_work_between(events: list[Any]) -> None:
    offsets = {"same": 0.0, "moved": 3.0, "broken": float("inf"), "better": 3.0}
    guard, rules, newest = ScoreGuard(), schema(), 1
    guard.put(linear(1, 1.0), rules, False)
    for event in events:
        if isinstance(event, str):
            newest += 1
            guard.put(linear(newest, 1.0, offsets[event]), rules, event == "better")
        else:
            said, back = guard.score(np.array([event, 0.0], np.float32))
            assert said is not None
            assert guard.at_work is not None
            assert said["model"] == guard.at_work.version
            assert back is None or back.stays == said["model"] < back.version == newest
