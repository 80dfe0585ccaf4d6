"""What the model says of a window, and how it is announced."""

import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from broker.local import HOST, free_port
from edge_agent.decisions import Decisions, DecisionSettings
from edge_agent.inference import Bounds, Model, Topics, discovery, is_better_left, score
from edge_agent.local_mqtt import LocalBroker, LocalMqtt
from edge_agent.sources.sensors import Sensors
from hushfleet.errors import ConfigurationError
from hushfleet.journal import Journal
from hushfleet.judgement import Judgement, judge
from hushfleet.wire.layers import Dense
from hushfleet.wire.schema import Channel, Schema, Standardised

TOPICS = Topics("hushfleet", "homeassistant", "gateway-7", "hushfleet_00ff_7")


def schema(**changed: Any) -> Schema:
    """Two samples of one channel, 0 to 100 degrees."""
    windows = {"rate": 0.1, "samples": 2, "step": 1, "missing": 0.0, "mask": 0}
    task: dict[str, Any] = {"task": "classes", "classes": ("cold", "hot"), "target": 0, "horizon": 0}
    channels = {"channels": (Channel("temperature", "degC", 0.0, 100.0),)}
    return Schema(bytes(16), 0, 1, 1, bytes(32), **(channels | windows | task | changed))


def model(weights: list[list[float]], biases: list[float]) -> Model:
    """One dense layer."""
    flat = np.array([*np.ravel(weights), *biases], np.float32)
    return Model(9, flat, (Dense(len(weights), len(biases)),))


WINDOW = np.array([0.5, -0.5], np.float32)


def test_classes_have_a_name_and_a_confidence() -> None:
    said = score(schema(), model([[1.0, 0.0], [0.0, 0.0]], [0.0, 2.0]), WINDOW)
    assert said == {"value": "hot", "confidence": round(1 / (1 + np.exp(-1.5)), 4), "model": 9, "personalised": False}


def test_a_version_of_the_devices_own_says_so() -> None:
    mine = replace(model([[2.0], [0.0]], [21.0]), personalised=True)
    said = score(schema(task="value", classes=()), mine, WINDOW)
    assert said == {"value": 22.0, "model": 9, "personalised": True}


def test_a_number_is_told_as_it_is() -> None:
    assert score(schema(task="value", classes=()), model([[2.0], [0.0]], [21.0]), WINDOW) == {
        "value": 22.0,
        "model": 9,
        "personalised": False,
    }


def test_a_forecast_is_in_the_channels_unit_and_says_how_far_ahead() -> None:
    said = score(schema(task="forecast", classes=(), horizon=3), model([[1.0], [0.0]], [0.0]), WINDOW)
    assert said == {"value": 75.0, "ahead": 30.0, "model": 9, "personalised": False}
    standardised = (Standardised("temperature", "degC", 0.0, 100.0, 20.0, 4.0),)
    forecast = schema(task="forecast", classes=(), horizon=3, channels=standardised)
    assert score(forecast, model([[1.0], [0.0]], [0.0]), WINDOW) == {
        "value": 22.0,
        "ahead": 30.0,
        "model": 9,
        "personalised": False,
    }


def test_an_anomaly_is_how_unlike_the_window_is_what_the_model_makes_of_it() -> None:
    same, other = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]
    anomaly = schema(task="anomaly", classes=())
    assert score(anomaly, model(same, [0.0, 0.0]), WINDOW) == {"value": 0.0, "model": 9, "personalised": False}
    assert score(anomaly, model(other, [0.0, 0.0]), WINDOW) == {"value": 0.25, "model": 9, "personalised": False}


@pytest.mark.parametrize("task", ["classes", "value"])
def test_what_is_no_number_is_not_told(task: str) -> None:
    outputs = 2 if task == "classes" else 1
    broken = model([[float("nan")] * outputs, [0.0] * outputs], [0.0] * outputs)
    assert score(schema(task=task, classes=("cold", "hot") if task == "classes" else ()), broken, WINDOW) is None


@pytest.mark.parametrize(
    ("loss", "before", "left"),
    [
        (0.5, 0.5, False),
        (1.0, 0.5, False),
        (1.01, 0.5, True),
        (0.1, 0.0, False),
        (0.11, 0.0, True),
        (float("nan"), 1.0, True),
    ],
)
def test_a_version_that_is_much_worse_here_is_left(loss: float, before: float, left: bool) -> None:
    assert is_better_left(loss, before) == left


@pytest.mark.parametrize("task", ["classes", "value", "forecast", "anomaly"])
def test_home_assistant_learns_what_there_is(task: str) -> None:
    """Required: device with an identifier, origin with a name, components with platform and unique_id."""
    rules = schema(
        task=task, classes=("cold", "hot") if task == "classes" else (), horizon=3 if task == "forecast" else 0
    )
    config = json.loads(discovery(rules, TOPICS))
    assert config["device"]["identifiers"] == ["hushfleet_00ff_7"]
    assert config["origin"]["name"] == "hushfleet"
    assert (config["state_topic"], config["availability_topic"]) == (
        "hushfleet/gateway-7/state",
        "hushfleet/gateway-7/availability",
    )
    components = config["components"]
    assert set(components) == {"told", "model", "personalised", *(["confidence"] if task == "classes" else [])}
    own = components.pop("personalised")
    assert (own["platform"], own["unique_id"]) == ("binary_sensor", "hushfleet_00ff_7_personalised")
    assert {component["platform"] for component in components.values()} == {"sensor"}
    unique = {component["unique_id"] for component in components.values()}
    assert len(unique) == len(components)
    assert all(one.startswith("hushfleet_00ff_7_") for one in unique)
    assert components["told"].get("options") == (["cold", "hot"] if task == "classes" else None)
    assert components["told"].get("unit_of_measurement") == ("°C" if task == "forecast" else None)
    # What has no unit is drawn as a number only with a class of state; one is not for what is yet to come.
    drawn = "measurement" if task in ("value", "anomaly") else None
    assert components["told"].get("state_class") == drawn
    assert TOPICS.config == "homeassistant/device/hushfleet_00ff_7/config"


@pytest.mark.parametrize(("rate", "seconds"), [(50.0, 60), (0.1, 60), (0.01, 600)])
def test_a_score_that_is_not_followed_by_another_expires(rate: float, seconds: int) -> None:
    components = json.loads(discovery(schema(rate=rate, step=2, task="anomaly", classes=()), TOPICS, judged=True))[
        "components"
    ]
    expiring = {key: component.get("expire_after") for key, component in components.items()}
    always = {"model": None, "personalised": None}
    assert expiring == always | dict.fromkeys(set(components) - set(always), seconds)


def judged_by(rules: Schema, outputs: list[float]) -> Judgement:
    """What a fleet says whose models should have said 0."""
    told = np.repeat(np.array(outputs)[:, None], rules.outputs(), axis=1)
    return Judgement.split(rules, judge(rules, [(told, np.zeros_like(told))]))


def test_an_alarm_is_what_is_more_unlike_than_most_of_the_fleets_windows() -> None:
    anomaly = schema(task="anomaly", classes=())
    bounds = Bounds.of(anomaly, 7, judged_by(anomaly, [0.1] * 98 + [1.0] * 2), alarm=0.98, band=0.8)
    assert (bounds.schema, bounds.version, bounds.low) == (anomaly, 7, 0.0)
    assert bounds.high == pytest.approx(0.01, rel=0.2)
    assert bounds.beside(0.009) == {"alarm": False, "threshold": float(f"{bounds.high:.6g}"), "judged": 7}
    assert bounds.beside(0.02)["alarm"] is True


def test_a_number_has_bounds_that_hold_for_most_of_the_fleets_errors_and_a_forecast_has_them_in_its_unit() -> None:
    # Of ten rows one is right 0.4 lower, the others 0.2 higher.
    outputs = [0.4] + [-0.2] * 9
    for rules, unit in (
        (schema(task="value", classes=()), 1.0),
        (schema(task="forecast", classes=(), horizon=3), 50.0),
        (
            schema(
                task="forecast",
                classes=(),
                horizon=3,
                channels=(Standardised("temperature", "degC", 0.0, 100.0, 20.0, 4.0),),
            ),
            4.0,
        ),
    ):
        bounds = Bounds.of(rules, 3, judged_by(rules, outputs), alarm=0.99, band=0.9)
        assert bounds.low == pytest.approx(-0.4 * unit, rel=0.2)
        assert bounds.high == pytest.approx(0.2 * unit, rel=0.2)
        low, high = (pytest.approx(10 + bound, rel=1e-5) for bound in (bounds.low, bounds.high))
        assert bounds.beside(10.0) == {"low": low, "high": high, "judged": 3}


ANOMALY = schema(task="anomaly", classes=())
SAME = model([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])


@pytest.mark.parametrize(
    ("version", "rules", "alarms"),
    [
        (9, replace(ANOMALY, task="classes", classes=("cold", "hot")), False),
        (9, replace(ANOMALY, version=2), False),
        (8, ANOMALY, True),
        (6, ANOMALY, False),
    ],
)
def test_bounds_hold_under_the_schema_they_were_taken_under_until_the_owners_leave_their_version(
    version: int, rules: Schema, alarms: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another schema for the same model spec errors are of other things."""

    class Windows:
        def newest(self, schema: Schema, now: float, last: int | None) -> tuple[int, Any]:
            return (last or 0) + 1, WINDOW

    told: list[dict[str, Any]] = []

    def say(link: LocalMqtt, topic: str, payload: bytes) -> bool:
        told.append(json.loads(payload))
        return True

    monkeypatch.setattr(LocalMqtt, "say", say)
    settings, windows = DecisionSettings(LocalBroker(HOST, free_port())), cast(Sensors, Windows())
    decisions = Decisions(settings, windows, "pump", "pump", Journal("json"))
    decisions.judged(ANOMALY, 7, judged_by(ANOMALY, [0.1] * 4))
    for one, by in ((SAME, ANOMALY), (replace(SAME, version=version), rules)):
        decisions.use(one, by, [])
        decisions.step(0.0)
    decisions.close()
    assert ["alarm" in said for said in told] == [True, alarms]


@pytest.mark.parametrize(("task", "more"), [("anomaly", {"alarm"}), ("forecast", {"low", "high"})])
def test_home_assistant_learns_of_alarms_and_bounds_once_there_are_any(task: str, more: set[str]) -> None:
    rules = schema(task=task, classes=(), horizon=int(task == "forecast"))
    before, after = (json.loads(discovery(rules, TOPICS, judged))["components"] for judged in (False, True))
    assert set(after) - set(before) == more
    assert before.items() <= after.items()
    kinds = {one: (after[one]["platform"], after[one].get("device_class")) for one in more}
    assert set(kinds.values()) == {("binary_sensor", "problem") if task == "anomaly" else ("sensor", None)}
    assert {after[one].get("unit_of_measurement") for one in more} == {None if task == "anomaly" else "°C"}
    assert all(f"value_json.{one}" in after[one]["value_template"] for one in more)
    assert len({one["unique_id"] for one in after.values()}) == len(after)


@pytest.mark.parametrize("topic", ["", "/a", "a/", "a/+", "#", "$SYS", "a\0"])
def test_what_cannot_begin_a_topic_is_named(topic: str) -> None:
    with pytest.raises(ConfigurationError, match="topic"):
        DecisionSettings(topic=topic)
