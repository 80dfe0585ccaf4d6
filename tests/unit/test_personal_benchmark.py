"""The benchmark of versions of one's own, on one person."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hushfleet.errors import ConfigurationError
from hushfleet_demo.watch_data import RECORDINGS

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "personal.py"


def test_one_person_is_judged(tmp_path: Path) -> None:
    try:
        RECORDINGS.read()
    except ConfigurationError as error:
        pytest.skip(f"not run without the recordings: {error}")
    path = tmp_path / "personal.json"
    command = [sys.executable, str(BENCHMARK), "--case", "watch, new", "--devices", "1", "--json", str(path)]
    subprocess.run(command, check=True, timeout=100, stdout=subprocess.PIPE)
    (means,) = json.loads(path.read_text()).values()
    assert set(means) == {"federated", "alone", "tuned", "guarded", "used", "head", "head_guarded"}
    assert means["guarded"] == means["tuned" if means["used"] else "federated"] > means["alone"]
