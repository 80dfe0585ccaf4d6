"""The benchmark of large rounds, in small: it runs through a real broker, and the coordinator's memory stays flat."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "large_round.py"
FEW, MANY = 10, 600
PARAMETERS = 25_000
"""50 KB an upload: 30 MB that the coordinator could hold in the larger round, and does not."""


def test_memory_does_not_grow_with_the_uploads(tmp_path: Path) -> None:
    rounds = tmp_path / "rounds.json"
    options = ["--devices", FEW, "--devices", MANY, "--parameters", PARAMETERS, "--json", rounds]
    plot = tmp_path / "plot.png"
    command = [sys.executable, SCRIPT, *options, "--plot", plot]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=115, env=os.environ)
    assert done.returncode == 0, done.stderr
    few, many = json.loads(rounds.read_text())
    assert (few["devices"], many["devices"]) == (FEW, MANY)
    assert many["messages"] == 2 * MANY
    assert many["ratio"] > 0
    uploads = (MANY - FEW) * many["bytes_an_upload"] / 2**20
    assert many["coordinator_peak_rss_mb"] - few["coordinator_peak_rss_mb"] < uploads / 2
    assert plot.read_bytes().startswith(b"\x89PNG")
