"""`hushfleet coordinator statistics`: what an operator reads of an opened round, and when there is none."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from described_statistics import schema_of

from coordinator.cli import coordinator
from coordinator.statistics import EXPORT, NOISELESS, Opened, described
from hushfleet.errors import ConfigurationError
from hushfleet.judgement import judge
from hushfleet.statistics import Digits, describe
from hushfleet.wire.schema import ANOMALY, FORECAST, Channel


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.toml"
    path.write_text('bundle = "bundle"\ndocuments = "documents"\nledger = "state/ledger.db"\n')
    (tmp_path / "state").mkdir()
    return path


def opened(number: int, devices: int, silent: bool = False) -> Opened:
    """So many devices of a schema of two channels and two classes, all alike; on some the second channel is silent."""
    schema, top = schema_of(2, 2), Digits.of(31).top
    values = [np.array([0.2, 0.4]), np.zeros(0) if silent else np.array([0.5])]
    outputs = np.array([[2.3, 0.0], [1.3, 0.0], [0.0, 1.3], [0.5, 0.0]])
    judged = judge(schema, [(outputs, np.array([0, 0, 1, 1]))])
    numbers = describe(schema, 50, np.array([0, 1, 1, 1]), values, [0.5, float(silent)], judged)
    sums = np.rint(numbers * top).astype("<i8") * devices
    return Opened(number, 1_800_000_000, 3, devices, top, schema.to_body(), sums.tobytes())


def export(config: Path, *rounds: Opened) -> None:
    told = [described(one, before) for before, one in zip([None, *rounds], rounds, strict=False)]
    (config.parent / "state" / EXPORT).write_text(json.dumps(told))


def shown(config: Path, *options: str) -> str:
    answer = CliRunner().invoke(coordinator, ["statistics", str(config), *options], catch_exceptions=False)
    assert answer.exit_code == 0
    return answer.output


def test_before_the_first_round_the_way_to_one_is_told(config: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"statistics_every under \[rounds\].*noiseless_statistics"):
        CliRunner().invoke(coordinator, ["statistics", str(config)], catch_exceptions=False)


def test_the_newest_round_is_shown_with_drift_and_in_words_without_noise(config: Path) -> None:
    export(config, opened(1, 4), opened(22, 5))
    lines = shown(config).splitlines()
    assert lines[0] == "round 22, 2027-01-15 08:00 UTC: the sum over 5 devices, each counted once"
    assert lines[1] == f"noise {NOISELESS}"
    assert lines[2].endswith("below 100: 5")
    first = next(line for line in lines if line.startswith("channel 0"))
    assert first.split()[2:7] == ["V", "5", "50.0%", "0.3", "0.1"]
    assert first.split()[8:] == ["0.00", "0", "█", "█", "1"]
    assert next(line for line in lines if line.startswith("  class 1")).split()[2:4] == ["75.0%", "0.0%"]
    assert [told["round"] for told in json.loads(shown(config, "--json"))] == [1, 22]


def test_how_the_base_model_does_on_rows_kept_aside_is_shown(config: Path) -> None:
    export(config, opened(1, 4))
    lines = shown(config).splitlines()
    at = lines.index("model version 3 on rows kept aside by 4 devices")
    # Two of two rows of the one class are right, one of two of the other; its odds are 2.3, 1.3, -1.3 and 0.5,
    # each in a bin of its own.
    assert lines[at + 1] == "  accuracy 75.0%, macro F1 0.7333, area under the curve 1"
    assert lines[at + 2].split() == ["class", "0", "F1", "0.8", "area", "1"]
    (told,) = json.loads(shown(config, "--json"))
    assert told["model"]["classes"]["class 1"] == {"f1": pytest.approx(2 / 3), "auc": pytest.approx(1)}


def of_errors(task: str, errors: list[float], channel: Channel) -> Opened:
    """Two devices whose models are wrong by just so much."""
    schema, top = replace(schema_of(1, 0, task), channels=(channel,)), Digits.of(31).top
    right = np.array(errors)[:, None]
    judged = judge(schema, [(np.zeros_like(right), right)])
    numbers = describe(schema, 50, np.zeros(0, np.int64), [np.array([0.5])], [0.0], judged)
    return Opened(7, 0, 12, 2, top, schema.to_body(), (np.rint(numbers * top).astype("<i8") * 2).tobytes())


def test_errors_of_a_forecast_are_in_its_channels_unit(config: Path) -> None:
    export(config, of_errors(FORECAST, [0.1, 0.3, -0.2, 0.4], Channel("wind", "m/s", 0.0, 40.0)))
    (told,) = json.loads(shown(config, "--json"))
    assert (told["model"]["version"], told["model"]["devices"], told["model"]["unit"]) == (12, 2, "m/s")
    assert told["model"]["mae"] == pytest.approx(20 * 0.25, abs=1e-3)
    assert told["model"]["pinball"]["0.9"] == pytest.approx(20 * (0.9 * 0.8 + 0.1 * 0.2) / 4, abs=1e-3)
    assert told["model"]["quantiles"]["0.05"] == pytest.approx(-4, rel=0.2)
    assert told["model"]["quantiles"]["0.95"] == pytest.approx(8, rel=0.2)
    text = shown(config)
    assert "  mean absolute error 5 m/s\n  pinball loss m/s at 0.1: " in text
    assert "  quantiles of the error m/s: 0.01: -" in text


def test_of_an_anomaly_the_quantiles_of_the_squared_differences_are_told(config: Path) -> None:
    export(config, of_errors(ANOMALY, [0.1] * 98 + [2.0] * 2, Channel("wind", "m/s", 0.0, 40.0)))
    (told,) = json.loads(shown(config, "--json"))
    assert (told["model"]["unit"], "mae" in told["model"]) == (None, False)
    assert told["model"]["quantiles"]["0.5"] == pytest.approx(0.01, rel=0.2)
    assert told["model"]["quantiles"]["0.99"] == pytest.approx(4, rel=0.2)
    assert "  quantiles of the error: 0.5: 0.0" in shown(config)


def test_the_schema_is_printed_for_fleet_toml_and_a_channel_that_nobody_measures_stays_plain(config: Path) -> None:
    export(config, opened(1, 4, silent=True))
    assert "100.0%" in shown(config)
    first, second = tomllib.loads(shown(config, "--schema"))["channels"]
    assert first == {"name": "channel 0", "unit": "V", "low": 0.0, "high": 1.0, "mean": 0.3, "sd": 0.1}
    assert second == {"name": "channel 1", "unit": "V", "low": 0.0, "high": 1.0}


def test_rounds_of_other_channels_are_not_compared() -> None:
    other = schema_of(1, 2)
    numbers = describe(other, 50, np.zeros(1, np.int64), [np.array([0.5])], [0.0])
    top = Digits.of(31).top
    before = Opened(1, 1, 0, 1, top, other.to_body(), np.rint(numbers * top).astype("<i8").tobytes())
    told = described(opened(2, 4), before)
    assert [told["channels"][0]["drift"], told["labels"]["drift"]] == [None, None]
