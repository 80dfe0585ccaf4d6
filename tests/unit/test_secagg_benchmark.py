"""The benchmark of secure aggregation, on a tiny fleet and without the peer: it runs, adds up, writes what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hushfleet.codec import PLAIN_BITS, lanes
from hushfleet.encoding.steps import bits_for
from hushfleet.encoding.subset import coordinates
from hushfleet.secagg.residues import vector_length

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "secagg.py"
DEVICES, PARAMETERS = 6, 2_000
FIELDS = {"client_seconds", "member_seconds", "coordinator_seconds", "bytes_up", "bytes_down", "peak_rss_mb"}


def run(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--devices", str(DEVICES), "--parameters", str(PARAMETERS), *arguments]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment)


@pytest.mark.parametrize(
    ("codec", "coords", "bits"),
    [("plain", PARAMETERS, PLAIN_BITS), ("full", coordinates(PARAMETERS, 0.1), bits_for(DEVICES))],
)
def test_a_tiny_fleet_is_measured(tmp_path: Path, codec: str, coords: int, bits: int) -> None:
    done = run("--codec", codec, "--without-flower", "--json", tmp_path / "figures.json", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing is judged" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"hushfleet", "flower", "floor"}
    assert figures["flower"] is None
    for side in ("hushfleet", "floor"):
        assert set(figures[side]) == FIELDS
        assert all(value > 0 for value in figures[side].values())
    vector = vector_length(coords, bits, lanes(0))
    assert vector < figures["floor"]["bytes_up"] <= figures["hushfleet"]["bytes_up"] < vector + 500


def test_without_the_peer_it_says_what_to_do(tmp_path: Path) -> None:
    done = run("--json", tmp_path / "figures.json", cache=tmp_path)
    assert done.returncode == 1
    assert "--install-flower puts it there" in done.stderr
    assert not (tmp_path / "figures.json").exists()
