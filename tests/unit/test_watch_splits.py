"""The benchmark of all splits, run on one of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hushfleet.errors import ConfigurationError
from hushfleet_demo.watch_data import RECORDINGS

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "watch_splits.py"


def test_one_split_through_the_real_codec(tmp_path: Path) -> None:
    try:
        RECORDINGS.read()
    except ConfigurationError as error:
        pytest.skip(f"not run without the recordings: {error}")
    path = tmp_path / "splits.json"
    command = [sys.executable, str(BENCHMARK), "--splits", "1", "--json", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    means = json.loads(path.read_text())
    assert list(means) == ["splits", "federated", "alone", "pooled"]
    assert means["splits"] == 1
    assert means["alone"] + 0.08 < means["federated"] <= 1
    assert means["federated"] == pytest.approx(means["pooled"], abs=0.05)
    assert f"mean of 1: federated {means['federated']:.3f}" in said.stdout
