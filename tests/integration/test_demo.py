"""The demo as a newcomer runs it: to its end, and interrupted."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hushfleet.errors import ConfigurationError
from hushfleet.learning.layers import forward
from hushfleet_demo import home, turbines, wind
from hushfleet_demo.outcome import Outcome, read_evidence
from hushfleet_demo.packaged import Packaged
from hushfleet_demo.turbines_data import RECORDINGS as TURBINES
from hushfleet_demo.turbines_data import load_turbines
from hushfleet_demo.watch_data import RECORDINGS as WATCH
from hushfleet_demo.wind_data import RECORDINGS as WIND

pytestmark = pytest.mark.integration


def needs(recordings: Packaged) -> None:
    try:
        recordings.read()
    except ConfigurationError as error:
        pytest.skip(f"not run without the recordings: {error}")


def processes_below(directory: Path) -> list[str]:
    """Command lines of the processes that work below this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "hushfleet", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def test_it_trains_through_both_accidents_and_reports_what_it_measured(tmp_path: Path) -> None:
    needs(WATCH)
    report = tmp_path / "report.json"
    few = ("--rounds", "24", "--choices", "2")
    demo = start("--report", str(report), "--output", str(tmp_path), "--keep", str(tmp_path / "kept"), *few)
    said, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, said
    found = json.loads(report.read_text())
    assert (found["devices"], found["rounds"]) == (10, 24)
    assert found["broker"].startswith("mosquitto version")
    # The killed member may miss the next survivor set, too, and is recovered again.
    assert (found["dropouts"], found["recoveries"] >= 1) == (1, True)
    assert found["accuracy"]["federated_unseen"] > found["accuracy"]["local_unseen"] + 0.05
    # A tenth of the coordinates, four bits each, eight lanes.
    assert found["bits_per_parameter"] == pytest.approx(8 * (320 * 4 // 8 + 64) / 2823)
    assert found["bytes"]["up_per_device_round"] * 8 > found["bits_per_parameter"] * found["parameters"]
    assert (tmp_path / "watch.png").read_bytes().startswith(b"\x89PNG")
    assert processes_below(tmp_path / "kept") == []


def test_four_turbines_expect_the_power_of_a_new_one(tmp_path: Path) -> None:
    needs(TURBINES)
    report, kept = tmp_path / "report.json", tmp_path / "kept"
    few = ("--rounds", "4", "--choices", "2")
    demo = start("turbines", "--report", str(report), "--output", str(tmp_path), "--keep", str(kept), *few)
    said, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, said
    assert "gives up a rule of safety: tiny_fleet = true" in said
    found = json.loads(report.read_text())
    assert set(found) == {field.name for field in fields(Outcome)}
    assert (found["devices"], found["rounds"], found["all_splits"]["splits"]) == (4, 4, 2)
    assert 0 < found["accuracy"]["federated_unseen"] < 0.05
    assert 0 < found["all_splits"]["pooled"] < found["all_splits"]["federated"] < found["all_splits"]["alone"] < 0.05
    assert (tmp_path / "turbines.png").read_bytes().startswith(b"\x89PNG")
    assert "alarms at R80711" in said
    model = read_evidence(kept / "evidence", *turbines.TASK.form(4)).model
    error = turbines.TASK.judge(model, turbines.Turbines().judged())
    assert found["accuracy"]["federated_unseen"] == pytest.approx(error)
    check_masked_errors(kept / "logs")
    check_threshold(kept / "state" / "coordinator" / "statistics.json", model)
    check_export(kept / "configuration" / "coordinator.toml", tmp_path / "exported", model)


def test_twelve_stations_forecast_the_wind_of_a_new_one(tmp_path: Path) -> None:
    needs(WIND)
    report, kept = tmp_path / "report.json", tmp_path / "kept"
    few = ("--rounds", "3", "--choices", "1")
    demo = start("wind", "--report", str(report), "--output", str(tmp_path), "--keep", str(kept), *few)
    said, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, said
    found = json.loads(report.read_text())
    assert (found["devices"], found["rounds"], found["all_splits"]["splits"]) == (12, 3, 1)
    assert "tomorrow is as today  " in said
    model = read_evidence(kept / "evidence", *wind.TASK.form(12)).model
    error = wind.TASK.judge(model, wind.Wind().judged())
    assert found["accuracy"]["federated_unseen"] == pytest.approx(error)
    assert 0.05 < error < 0.1
    assert (tmp_path / "wind.png").read_bytes().startswith(b"\x89PNG")


def test_six_homes_from_their_sensors_into_home_assistants_topics(tmp_path: Path) -> None:
    report, kept = tmp_path / "report.json", tmp_path / "kept"
    few = ("--rounds", "3", "--choices", "1")
    demo = start("home", "--report", str(report), "--output", str(tmp_path), "--keep", str(kept), *few)
    said, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, said
    found = json.loads(report.read_text())
    assert set(found) == {field.name for field in fields(Outcome)}
    assert (found["devices"], found["rounds"], found["all_splits"]["splits"]) == (6, 3, 1)
    assert "all homes are simulated" in said
    words = " ".join(said.split())
    for name in ("living room/air#/co2", "[[sensors.channel]]", "birch co2 ahead", "willow co2 ahead"):
        assert name in words
    assert f"Home Assistant at {home.NEW} starts again and says so: the agent announces itself again" in words
    shown = r"co2 ahead \d+ ppm \(\d+ to \d+\)(, personalised)?"
    assert re.search(rf"meanwhile unavailable, then {shown} by model version 3", words)
    assert "the agent is killed, and all its entities are unavailable" in words
    # The homes have gone on since: some of the newest windows were not yet there when the agent looked.
    model = read_evidence(kept / "evidence", *home.TASK.form(6)).model
    assert found["accuracy"]["federated_unseen"] == pytest.approx(
        home.TASK.judge(model, home.SimulatedHomes().judged()), rel=0.02
    )
    assert (tmp_path / "home.png").read_bytes().startswith(b"\x89PNG")
    assert processes_below(kept) == []


def check_threshold(told: Path, model: Any) -> None:
    """What the masked sums tell of the finished model is what all turbines' rows tell together."""
    first, last = json.loads(told.read_text())
    assert (first["model"]["version"], last["model"]["version"], last["devices"]) == (0, 4, 4)
    judged = [turbine.between(*turbines.JUDGED) for turbine in load_turbines()]
    errors = [(rows.y - forward(model, turbines.TASK.layers, rows.x))[:, 0] for rows in judged]
    assert last["model"]["mae"] == pytest.approx(np.mean([np.abs(one).mean() for one in errors]), rel=1e-3)
    low = np.quantile(np.concatenate(errors), 0.01)
    assert last["model"]["quantiles"]["0.01"] == pytest.approx(low, rel=0.2)


def check_export(coordinator: Path, directory: Path, model: Any) -> None:
    """The newest model comes out of the ledger as it was opened, and measured."""
    width = turbines.TASK.layers[0].inputs
    rows = directory.with_suffix(".csv")
    rows.write_text("\n".join([",".join([*(f"c{n}" for n in range(width)), "power"]), ",".join(["0.5"] * (width + 1))]))
    options = ["--head", "mean_squared", "--rows", str(rows), "--label", "power"]
    command = [sys.executable, "-m", "hushfleet", "coordinator", "export", str(coordinator), str(directory), *options]
    said = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
    assert "model.npz" in said
    arrays = np.load(directory / "model.npz")
    np.testing.assert_array_equal(np.concatenate([arrays[name].ravel() for name in arrays]), model)
    told = json.loads((directory / "model.json").read_text())
    assert (told["version"], told["files"][0]["measured"] is not None) == (4, True)


def check_masked_errors(logs: Path) -> None:
    """What the coordinator opens is the mean error over all rows that the four keep aside."""
    rounds = [event for event in events(logs / "coordinator.log", "round") if "evaluation_loss" in event]
    opened = {event["version"] - 1: event["evaluation_loss"] for event in rounds}
    scores: dict[int, list[tuple[float, int]]] = {}
    for log in logs.glob("R8*.log"):
        for event in events(log, "score"):
            scores.setdefault(event["version"], []).append((event["error"], event["rows"]))
    told = {version: found for version, found in scores.items() if len(found) == 4 and version in opened}
    assert told
    for version, found in told.items():
        mean = sum(error * rows for error, rows in found) / sum(rows for _, rows in found)
        assert opened[version] == pytest.approx(mean, abs=1e-5)


def events(log: Path, kind: str) -> list[dict[str, Any]]:
    # A runtime that trains may write lines of its own between those of the journal.
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [event for event in lines if event["event"] == kind]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_stops_everything_it_started(tmp_path: Path, number: signal.Signals) -> None:
    needs(WATCH)
    kept = tmp_path / "kept"
    demo = start("--output", str(tmp_path), "--keep", str(kept))
    log = kept / "logs" / "coordinator.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and '"event": "round"' in log.read_text()):
        assert time.monotonic() < deadline, "no round ended"
        assert demo.poll() is None, demo.communicate()[0]
        time.sleep(0.05)
    assert len(processes_below(kept)) >= 12
    demo.send_signal(number)
    demo.communicate(timeout=40)
    assert demo.returncode != 0
    assert processes_below(kept) == []
