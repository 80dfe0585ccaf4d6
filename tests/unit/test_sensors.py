"""From kept readings to a device's rows: mapping, units, labels by rule, by the clock and as told, targets, holdout."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_agent.sources.sensors as sensors_source
from edge_agent.sources.clock import SET
from edge_agent.sources.found import Found
from edge_agent.sources.labels import LabelSettings, Rule
from edge_agent.sources.quality import Cleaning
from edge_agent.sources.rows import LocalData
from edge_agent.sources.sensors import ChannelSettings, Sensors, SensorSettings
from edge_agent.sources.store import ReadingStore
from edge_agent.work_bench import WorkBench
from hushfleet.errors import ConfigurationError
from hushfleet.judgement import length
from hushfleet.statistics import Numbers
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.layers import Dense
from hushfleet.wire.schema import Channel, Schema, Standardised

BEGIN = 1_800_000_000.0
CHANNELS = (Channel("co2", "ppm", 300.0, 2300.0), Channel("temperature", "degC", -40.0, 60.0))
MAPPED = (
    ChannelSettings("co2", "room#/co2"),
    ChannelSettings("temperature", "room#/t", unit="degF", hold=3600.0),
)


def schema(**changed: Any) -> Schema:
    """Windows of four samples, one every ten seconds, every two samples."""
    windows = {"rate": 0.1, "samples": 4, "step": 2, "missing": 0.25, "mask": 0}
    task: dict[str, Any] = {"task": "classes", "classes": ("empty", "taken"), "target": 0, "horizon": 0}
    return Schema(bytes(16), 0, 1, 1, bytes(32), **({"channels": CHANNELS} | windows | task | changed))


def sensors(tmp_path: Path, label: LabelSettings | None = None, holdout: float = 0.0, **changed: Any) -> Sensors:
    """Ten minutes: co2 rises from 400 by 2 a reading, one every ten seconds; 68 degrees Fahrenheit all the while."""
    settings = SensorSettings(**({"channel": MAPPED, "label": label, "holdout": holdout} | changed))
    store = ReadingStore(tmp_path / "readings.db", settings.keep)
    for number in range(60):
        store.add("co2", BEGIN + 10 * number, 400.0 + 10 * number)
    store.add("temperature", BEGIN - 5, 68.0)
    return Sensors(settings, store)


def rows(found: Sensors, rules: Schema, seconds: float = 600.0) -> Found:
    return found.rows(rules, BEGIN + seconds)


def unjudged(data: LocalData) -> NDArray[np.float64]:
    """Nothing is said of a model of classes."""
    return np.zeros(length(schema()))


RULES = LabelSettings(rule=(Rule("taken", channel="co2", above=700.0),), otherwise="empty")


def test_channels_are_converted_scaled_and_labelled_by_rules(tmp_path: Path) -> None:
    found = rows(sensors(tmp_path, RULES), schema())
    x, y = found.data.training.x, found.data.training.y
    assert x.shape == (29, 8)
    assert x[0].tolist() == pytest.approx(
        [*((400 + 10 * at - 300) / 1000 - 1 for at in range(4)), *[0.2] * 4], abs=1e-6
    )
    means = [400 + 20 * number + 15 for number in range(29)]
    assert y.tolist() == [int(mean > 700) for mean in means]
    assert (found.refused, found.unlabelled) == (0, 0)
    assert found.counts["co2"].readings == 60
    assert found.measured == {"co2": 1.0, "temperature": 1.0}


def test_the_first_rule_that_fits_counts(tmp_path: Path) -> None:
    label = LabelSettings(rule=(Rule("empty", channel="co2", above=900.0), Rule("taken", channel="co2", above=700.0)))
    found = rows(sensors(tmp_path, label), schema())
    means = np.array([400 + 20 * number + 15 for number in range(29)])
    assert found.unlabelled == int((means <= 700).sum())
    assert found.data.training.y.tolist() == [int(mean <= 900) for mean in means[means > 700]]


@pytest.mark.parametrize(("begin", "end", "inside"), [(-60, 60, True), (60, 120, False)])
def test_hours_are_the_devices_own(tmp_path: Path, begin: int, end: int, inside: bool) -> None:
    """Some minutes around the windows, past midnight as well."""
    clock = [time.strftime("%H:%M", time.localtime(BEGIN + 60 * minutes)) for minutes in (begin, end)]
    label = LabelSettings(rule=(Rule("taken", begin=clock[0], end=clock[1]),), otherwise="empty")
    assert set(rows(sensors(tmp_path, label), schema()).data.training.y) == {int(inside)}


def test_labels_as_told_hold_for_a_while(tmp_path: Path) -> None:
    label = LabelSettings(address="switch#/state", values={"ON": "taken", "OFF": "empty"}, hold=100.0)
    found = sensors(tmp_path, label)
    for moment, told in ((100, "ON"), (300, "OFF"), (400, "ON"), (350, "what")):
        kept = label.told(told)
        assert (kept is None) == (told == "what")
        if kept:
            found.store.add(kept[0], BEGIN + moment, kept[1])
    came = rows(found, schema())
    ends = [30 + 20 * number for number in range(29)]
    wanted = {end: 1 if 100 <= end <= 200 or 400 <= end <= 500 else 0 if 300 <= end <= 400 else None for end in ends}
    assert came.data.training.y.tolist() == [label for label in wanted.values() if label is not None]
    assert came.unlabelled == sum(label is None for label in wanted.values())


def test_a_number_as_told_is_what_is_to_be_predicted(tmp_path: Path) -> None:
    label = LabelSettings(address="meter#/power", hold=1e6)
    found = sensors(tmp_path, label)
    assert label.told(7.5) == ("label", 7.5)
    found.store.add("label", BEGIN, 7.5)
    y = rows(found, schema(task="value", classes=())).data.training.y
    assert y.dtype == np.float32
    assert y.tolist() == [[7.5]] * 29


def test_a_forecast_needs_no_label(tmp_path: Path) -> None:
    data = rows(sensors(tmp_path), schema(task="forecast", classes=(), horizon=3)).data.training
    later = [(400 + 10 * (3 + 2 * number + 3) - 300) / 1000 - 1 for number in range(27)]
    assert data.y[:, 0].tolist() == pytest.approx(later, abs=1e-6)
    assert len(data.x) == 27


def test_a_device_describes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: BEGIN + 800)
    found = sensors(tmp_path, RULES)
    rules = schema()
    numbers = Numbers.split(rules, found.describe(rules, unjudged))
    co2, temperature = numbers.channels
    # Sixty readings and three samples for which the last one holds, of eighty samples.
    values = np.array([400.0 + 10 * number for number in range(60)] + [990.0] * 3) / 2000 - 0.15
    assert co2[:3].tolist() == pytest.approx([1, 17 / 80, values.mean()], abs=1e-6)
    assert co2[3:5].tolist() == pytest.approx([(values**2).mean(), values.mean() ** 2], abs=1e-6)
    assert co2[5:].tolist() == pytest.approx(np.histogram(values, 16, (0, 1))[0] / 63, abs=2 / 63)
    assert temperature[:5].tolist() == pytest.approx([1, 0, 0.6, 0.36, 0.36], abs=1e-6)
    assert numbers.rows.tolist() == [0, 1, 0, 0, 0]
    y = rows(found, rules, 800.0).data.training.y
    assert (numbers.labelled.tolist(), numbers.shares.tolist()) == ([1], [1 - y.mean(), y.mean()])


@pytest.mark.parametrize("wanted", ["numpy", "litert"])
def test_the_base_model_is_judged_on_the_rows_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Literal["numpy", "litert"]
) -> None:
    monkeypatch.setattr("time.time", lambda: BEGIN + 600)
    found, rules = sensors(tmp_path, holdout=0.3), schema(task="forecast", classes=(), horizon=3)
    model = ModelSpec(bytes(16), 0, 1, 1, "level", (Dense(8, 1, "none"),), bytes(32), bytes(32))
    bench, flat = WorkBench(found, wanted), np.linspace(-0.2, 0.3, 9, dtype=np.float32)
    numbers = Numbers.split(rules, found.describe(rules, lambda data: bench.judge(flat, model, rules, data)))
    kept = rows(found, rules).data.evaluation
    errors = (kept.y - kept.x @ flat[:8, None] - flat[8])[:, 0]
    assert len(errors) == 8
    assert numbers.judged.absolute() == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert numbers.judged.quantile(0.5) == pytest.approx(np.median(errors), rel=0.2)
    # Nothing is kept aside: nothing is said.
    found = Sensors(replace(found.settings, holdout=0.0), found.store)
    numbers = Numbers.split(rules, found.describe(rules, lambda data: bench.judge(flat, model, rules, data)))
    assert not numbers.judged.flat().any()


def test_a_standardised_channel_counts_in_deviations_and_is_described_on_its_range_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: BEGIN + 800)
    standardised = Standardised("co2", "ppm", 300.0, 2300.0, 700.0, 200.0)
    plain, rules = schema(), schema(channels=(standardised, CHANNELS[1]))
    found = sensors(tmp_path, RULES)
    x, y = rows(found, rules).data.training.x, rows(found, rules).data.training.y
    assert x[0, :4].tolist() == pytest.approx([(400 + 10 * at - 700) / 200 for at in range(4)], abs=1e-6)
    # Rules are in the channel's unit, whatever its scale.
    assert y.tolist() == rows(found, plain).data.training.y.tolist()
    assert found.describe(rules, unjudged) == pytest.approx(found.describe(plain, unjudged), abs=1e-6)


def test_a_device_without_labels_or_readings_of_one_channel_describes_the_rest(tmp_path: Path) -> None:
    settings = SensorSettings(channel=MAPPED)
    store = ReadingStore(tmp_path / "readings.db", settings.keep)
    with pytest.raises(ConfigurationError, match="no readings yet"):
        Sensors(settings, store).describe(schema(), unjudged)
    now = time.time()
    for number in range(60):
        store.add("co2", now - 600 + 10 * number, 1300.0)
    numbers = Numbers.split(schema(), Sensors(settings, store).describe(schema(), unjudged))
    assert numbers.channels[0, :3].tolist() == pytest.approx([1, 0, 0.5], abs=0.05)
    assert numbers.channels[1].tolist() == [0, 1, *[0] * 19]
    assert (numbers.labelled.tolist(), numbers.shares.tolist()) == ([0], [0, 0])
    assert numbers.rows.tolist() == [1, 0, 0, 0, 0]


def test_a_time_from_before_the_clock_was_set_makes_no_decades_of_windows(tmp_path: Path) -> None:
    """A device without a clock of its own starts in 1970; the first readings may be kept with later ones."""
    found = sensors(tmp_path)
    found.store.add("co2", 12.0, 400.0)
    found.store.add("temperature", 12.0, 68.0)
    came = rows(found, schema(task="anomaly", classes=()))
    assert (len(came.data.training), came.refused) == (29, 0)
    assert came.counts["co2"].readings == 60


def test_a_device_without_windows_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device declines its rounds with these words."""
    monkeypatch.setattr("time.time", lambda: BEGIN + 600)

    def lacks(name: str, rules: Schema, label: LabelSettings | None = None, **changed: Any) -> str:
        (tmp_path / name).mkdir()
        model = ModelSpec(bytes(16), 0, 1, 1, "level", (Dense(8, 1, "none"),), bytes(32), bytes(32))
        with pytest.raises(ConfigurationError, match="there are no windows to train on: ") as told:
            sensors(tmp_path / name, label, **changed).read(model, rules)
        return str(told.value).partition(": ")[2]

    anomaly = schema(task="anomaly", classes=())
    wet = replace(anomaly, channels=(Channel("humidity", "%", 0.0, 100.0),))
    assert lacks("silent", wet, channel=(ChannelSettings("humidity", "x"),)) == "no readings of 'humidity' are kept yet"
    low = replace(CHANNELS[0], low=1e6, high=2e6)
    assert "all 60 readings of 'co2' were left out, most as out of range" in lacks(
        "range", replace(anomaly, channels=(low, CHANNELS[1]))
    )
    assert "29 windows had too much imputed (3% of the samples of 'temperature' were measured" in lacks(
        "gaps", replace(anomaly, missing=0.0), channel=(MAPPED[0], replace(MAPPED[1], hold=20.0))
    )
    told = LabelSettings(address="switch#/state", values={"ON": "taken"})
    assert lacks("labels", schema(), told) == "29 windows had no label or target"


@pytest.mark.parametrize("task", ["classes", "forecast", "anomaly"])
def test_of_more_windows_than_memory_holds_some_are_used_that_are_evenly_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    found = sensors(tmp_path, RULES)
    horizon = 3 if task == "forecast" else 0
    rules = schema(task=task, classes=("empty", "taken") if task == "classes" else (), horizon=horizon)
    all_of_them = rows(found, rules).data.training
    monkeypatch.setattr(sensors_source, "rows_in", lambda memory, inputs: 5 if inputs == rules.inputs() else 1000)
    came = rows(found, rules)
    at = np.linspace(0, len(all_of_them) - 1, 5).astype(int)
    assert came.data.training.x.tolist() == all_of_them.x[at].tolist()
    assert came.data.training.y.tolist() == all_of_them.y[at].tolist()
    assert (came.unlabelled, came.spare) == (29 - len(all_of_them), len(all_of_them) - 5)


def test_older_samples_than_memory_holds_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sensors(tmp_path, RULES)
    newest = rows(found, schema()).data.training
    monkeypatch.setattr(sensors_source, "rows_in", lambda memory, inputs: 21)
    came = rows(found, schema())
    # The grid ends with the sample before the ten minutes are over; of its first window one sample is too old.
    assert came.data.training.x.tolist() == newest.x[-9:].tolist()
    assert came.data.training.y.tolist() == newest.y[-9:].tolist()


def test_for_anomalies_a_window_is_its_own_target(tmp_path: Path) -> None:
    data = rows(sensors(tmp_path), schema(task="anomaly", classes=())).data.training
    assert data.x is data.y or np.array_equal(data.x, data.y)


def test_no_window_kept_aside_shares_samples_with_one_that_is_trained_on(tmp_path: Path) -> None:
    data = rows(sensors(tmp_path, RULES, holdout=0.25), schema()).data
    assert (len(data.training), len(data.evaluation)) == (21, 7)
    newest, first = data.training.x[-1, 3], data.evaluation.x[0, 0]
    assert newest < first


def test_what_is_left_out_is_counted_and_its_windows_are_refused(tmp_path: Path) -> None:
    found = sensors(tmp_path, RULES)
    for number in range(20, 30):
        found.store.add("co2", BEGIN + 10 * number + 1, 99_999.0)
    came = rows(found, schema())
    assert (came.counts["co2"].out_of_range, came.refused) == (10, 0)
    lame = rows(sensors(tmp_path / "lame", RULES, channel=(MAPPED[0], ChannelSettings("temperature", "x"))), schema())
    assert (len(lame.data.training), lame.refused) == (0, 29)
    assert lame.measured["temperature"] < 0.1


@pytest.fixture(autouse=True)
def _places(tmp_path: Path) -> None:
    (tmp_path / "lame").mkdir()


@pytest.mark.parametrize(
    ("changed", "rules", "why"),
    [
        ({"channel": MAPPED[:1]}, {}, r"needs the channel 'temperature' \(degC\); add a \[\[sensors.channel\]\]"),
        (
            {"channel": (MAPPED[0], ChannelSettings("temperature", "t", unit="Pa"))},
            {},
            "channel 'temperature': 'Pa' cannot",
        ),
        ({"label": None}, {}, r"learns from labels; say where they come from under \[sensors.label\]"),
        ({"label": LabelSettings(rule=(Rule("full", begin="00:00", end="01:00"),))}, {}, "knows no class 'full'"),
        ({"label": LabelSettings(address="a", values={"ON": "full"})}, {}, "knows no class 'full'"),
        (
            {"label": LabelSettings(rule=(Rule("taken", channel="co", above=1.0),))},
            {},
            "no channel 'co'; did you mean 'co2'",
        ),
        (
            {"label": LabelSettings(rule=(Rule("taken", begin="00:00", end="01:00"),))},
            {"task": "value"},
            "knows no class",
        ),
    ],
)
def test_settings_that_do_not_fit_the_schema_are_named(
    tmp_path: Path, changed: dict[str, Any], rules: dict[str, Any], why: str
) -> None:
    classes = {} if rules.get("task", "classes") == "classes" else {"classes": ()}
    with pytest.raises(ConfigurationError, match=why):
        rows(sensors(tmp_path, **({"label": RULES} | changed)), schema(**rules, **classes))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: SensorSettings((MAPPED[0], MAPPED[0])), "two channels have the same name"),
        (lambda: SensorSettings((ChannelSettings("label/a", "x"),)), "no channel can be called 'label'"),
        (lambda: LabelSettings(), "told at an address or made by rules, one of the two"),
        (lambda: LabelSettings(address="a", rule=(Rule("b", begin="00:00", end="01:00"),)), "one of the two"),
        (lambda: Rule("a", channel="co2"), "a channel needs above or below"),
        (lambda: Rule("a", above=1.0), "these need a channel"),
        (lambda: Rule("a", begin="06:00"), "from and to belong together"),
        (lambda: Rule("a", begin="6:00", end="24:00"), "'6:00' is no time of day"),
        (lambda: Rule("a"), "a rule needs a channel with above or below, or from and to"),
    ],
)
def test_settings_that_contradict_themselves_are_named(make: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make()


def test_text_becomes_a_number_as_the_settings_say() -> None:
    one = ChannelSettings("door", "door#/contact", values={"open": 1.0, "closed": 0.0}, cleaning=Cleaning())
    assert (one.number("open"), one.number("closed"), one.number("ajar"), one.number(3.0)) == (1.0, 0.0, None, 3.0)
    # A number may be a code for another one, however it is written.
    code = ChannelSettings("valve", "valve#", values={"0": 1.0, "1": 0.0})
    assert [code.number(value) for value in (0.0, 1.0, 2.0)] == [1.0, 0.0, 2.0]
    settings = SensorSettings((one, ChannelSettings("again", "door#/contact")))
    assert [channel.name for channel in settings.addresses()["door#/contact"]] == ["door", "again"]


def test_an_hour_that_there_was_twice_makes_no_windows(tmp_path: Path) -> None:
    """The clock is set back by five minutes, and what came before and after stands at one time."""
    found, rules = sensors(tmp_path, RULES), schema(missing=0.0)
    before = rows(found, rules)
    found.store.add(SET, BEGIN + 200, 100.0)
    for number in range(10):
        found.store.add("co2", BEGIN + 200 + 10 * number, 2000.0)
    after = rows(found, rules)
    assert after.counts["co2"].clock_set_back == 2 * 10 + 1
    assert after.refused > before.refused
    assert len(after.data.training) < len(before.data.training)
    seen = after.data.training.x[:, :4]
    assert not (seen > CHANNELS[0].scaled(1100.0)).any()
