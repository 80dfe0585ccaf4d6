"""What `make bench` runs: every benchmark there is, all figures in one file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "benchmarks"
RUN = SCRIPTS / "run.py"
FAKE = """
import json, sys
from pathlib import Path
Path(sys.argv[-1]).write_text(json.dumps(sys.argv[1:-1]))
"""


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """The runner beside scripts that write their arguments as their figures."""
    (tmp_path / "run.py").write_text(RUN.read_text())
    names = ("watch_splits", "secagg", "large_round", "goodput", "round_bytes", "agent_footprint", "decision_latency")
    for name in (
        *names,
        "trainers",
        "step_reckoning",
        "bytes_to_accuracy",
        "server_optimizers",
        "diverse_fleets",
        "million_rows",
    ):
        assert (SCRIPTS / f"{name}.py").exists()
        (tmp_path / f"{name}.py").write_text(FAKE)
    return tmp_path


def run(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "run.py", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)


def test_without_arguments_all_figures_go_to_the_build_directory(fakes: Path) -> None:
    done = run(fakes)
    assert done.returncode == 0, done.stderr
    figures = json.loads((fakes / "build" / "benchmarks.json").read_text())
    assert figures == {
        "watch_splits": ["--json"],
        "secagg": ["--install-flower", "--json"],
        "secagg_full": ["--codec", "full", "--install-flower", "--json"],
        "large_round": ["--json"],
        "goodput": ["--json"],
        "round_bytes": ["--json"],
        "agent_footprint": ["--json"],
        "decision_latency": ["--json"],
        "trainers": ["--json"],
        "step_reckoning": ["--json"],
        "bytes_to_accuracy": ["--quick", "--json"],
        "server_optimizers": ["--json"],
        "diverse_fleets": ["--json"],
        "million_rows": ["--json"],
    }


def test_some_of_them_another_file_and_no_peer(fakes: Path) -> None:
    done = run(fakes, "--only", "secagg", "--without-flower", "--json", "figures.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((fakes / "figures.json").read_text()) == {"secagg": ["--without-flower", "--json"]}


def test_one_that_fails_is_named(fakes: Path) -> None:
    (fakes / "large_round.py").write_text("raise SystemExit('no broker here')")
    done = run(fakes)
    assert done.returncode == 1
    assert "no broker here" in done.stderr
    assert "large_round failed" in done.stderr
    assert not (fakes / "build").exists()
