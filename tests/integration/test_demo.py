"""The demo as a newcomer runs it: to its end, and interrupted."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hushfleet.errors import ConfigurationError
from hushfleet_demo import data

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True, scope="module")
def _recordings() -> None:
    try:
        data.load_people()
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
    report = tmp_path / "report.json"
    demo = start("--report", str(report), "--output", str(tmp_path), "--rounds", "24", "--keep", str(tmp_path / "kept"))
    said, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, said
    found = json.loads(report.read_text())
    assert (found["devices"], found["rounds"]) == (10, 24)
    assert found["broker"].startswith("mosquitto version")
    # The killed member may miss the next survivor set, too, and is recovered again.
    assert (found["dropouts"], found["recoveries"] >= 1) == (1, True)
    assert found["accuracy"]["federated_unseen"] > found["accuracy"]["local_unseen"] + 0.05
    # An upload cannot be smaller than its residues: 16 bits a parameter.
    assert found["bytes"]["up_per_device_round"] > 2 * found["parameters"]
    assert (tmp_path / "watch.png").read_bytes().startswith(b"\x89PNG")
    assert processes_below(tmp_path / "kept") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_stops_everything_it_started(tmp_path: Path, number: signal.Signals) -> None:
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
