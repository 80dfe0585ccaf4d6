"""What an agent takes of a gateway: storage, memory, the time to start, and what it does while nothing happens.

    python benchmarks/agent_footprint.py --json FILE [--codec plain] [--idle 120] [--rounds 5]

The project's wheel goes into a virtual environment of its own, with its dependencies and without pip; from there runs
one agent of a real fleet: Mosquitto with TLS, a coordinator, four members. It is idle when it is connected and has the
fleet's documents, but too few others are there for a round. Then they come, and a model of 100,000 parameters is
trained. `rss_training_mb` is the most that was ever resident, `rss_idle_mb` what is when the idle time ends.

`bytes_written_per_idle_day` is what the kernel counts as written to storage (write_bytes of /proc/PID/io, whole pages)
during the idle time, times what that is of a day: a file system's own journal is not in it. `idle_core_percent` is the
processor time of the idle time, in percent of one core.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
from goals import Goal
from process_figures import memory, processor_seconds, written

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

from fleet_fixture import COORDINATOR, DEADLINE, Fleet

PROJECT = Path(__file__).parents[1]
INPUTS, HIDDEN, CLASSES = 90, 990, 10
PARAMETERS = (INPUTS + 1) * HIDDEN + (HIDDEN + 1) * CLASSES
ROWS = 200
AGENT = "part-1"
STARTS = 5
DAY = 86_400
IDLE_GOAL, TRAINING_GOAL = 35, 60
"""MB."""
IDLE_CORE_GOAL = 1
"""Percent."""
IMPORT = """
import time
began = time.process_time()
import hushfleet.cli, edge_agent.cli, edge_agent.agent
print(time.process_time() - began)
"""
_PROFILE = """\
name = "small"
description = "A gateway on this machine"
memory = 512

[link]
class = "ethernet"
chunk = 4096
window = 4
keepalive = 60
"""


class FootprintFleet(Fleet):
    """A fleet whose model has 100,000 parameters, and one of whose agents runs from an installation of its own."""

    layers = (
        f'{{ in = {INPUTS}, out = {HIDDEN}, act = "relu" }}',
        f'{{ in = {HIDDEN}, out = {CLASSES}, act = "none" }}',
    )
    profile = _PROFILE

    def __init__(self, directory: Path, python: Path, codec: str, idle: float, rounds: int) -> None:
        self.python = python
        # The committee's candidates come when the agent has been idle.
        self.setup = dict(zip(("cards", "keys", "ready"), (round(idle + n * DEADLINE) for n in (1, 2, 3)), strict=True))
        super().__init__(directory, participants=1, rounds={"codec": codec, "total": rounds})

    @staticmethod
    def data(number: int) -> str:
        """Rows of 90 features and a label of 10 classes."""
        lines = [",".join([*(f"x{column}" for column in range(INPUTS)), "label"])]
        for row in range(ROWS):
            label = (row + number) % CLASSES
            cells = [
                f"{(row * 7 + column * 3 + number) % 11 / 11 + (column % CLASSES == label):.4f}"
                for column in range(INPUTS)
            ]
            lines.append(",".join([*cells, str(label)]))
        return "\n".join(lines) + "\n"

    def command(self, name: str) -> list[str | Path]:
        """The command that runs a service."""
        if name != AGENT:
            return super().command(name)
        return [self.python.with_name("hushfleet"), "agent", "run", self.configuration(name)]


def install(directory: Path) -> Path:
    """Build the wheel and install it with its dependencies; the interpreter of the virtual environment.

    Raises:
        subprocess.CalledProcessError: one of these steps failed; what it said stands above.
    """
    pip = [sys.executable, "-m", "pip", "-q", "--no-input", "--disable-pip-version-check"]
    source, venv, wheels = directory / "source", directory / "venv", directory / "wheels"
    python = venv / "bin" / "python"
    # A build leaves files beside its source, which the next one would take in.
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"))
    for command in (
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)],
        [sys.executable, "-m", "venv", "--without-pip", str(venv)],
    ):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (wheel,) = wheels.glob("hushfleet-*.whl")
    subprocess.run([*pip, "--python", str(python), "install", str(wheel)], check=True, stdin=subprocess.DEVNULL)
    return python


def installed(python: Path) -> dict[str, float]:
    """What the installation takes, and the median of several starts' processor time for all that an agent imports."""
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    seconds = [
        float(subprocess.run([python, "-c", IMPORT], check=True, capture_output=True, text=True).stdout)
        for _ in range(STARTS)
    ]
    return {
        "install_mb": sum(file.stat().st_blocks * 512 for file in packages.rglob("*") if file.is_file()) / 2**20,
        "distributions": len([*packages.glob("*.dist-info")]),
        "import_seconds": median(seconds),
    }


def running(directory: Path, python: Path, codec: str, idle: float, rounds: int) -> dict[str, float]:
    """The agent's memory and its writing, idle and in a fleet's rounds."""
    with FootprintFleet(directory, python, codec, idle, rounds) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, AGENT)
        agent = fleet.processes[AGENT].pid
        fleet.wait_for(AGENT, "state", state="ready")
        before, used, began = written(agent), processor_seconds(agent), time.monotonic()
        with click.progressbar(range(max(1, round(idle))), label="idle", file=sys.stderr) as seconds:
            for second in seconds:
                time.sleep(max(0.0, began + (second + 1) * idle / max(1, round(idle)) - time.monotonic()))
        elapsed = time.monotonic() - began
        found = {
            "rss_idle_mb": memory(agent, "VmRSS"),
            "bytes_written_per_idle_day": (written(agent) - before) * DAY / elapsed,
            "idle_core_percent": 100 * (processor_seconds(agent) - used) / elapsed,
        }
        if "numpy" in Path(f"/proc/{agent}/maps").read_text():
            raise click.ClickException("the idle agent has loaded numpy; its memory is not that of an idle one")
        fleet.start(*fleet.members)
        for number in range(1, rounds + 1):
            fleet.wait_for(AGENT, "round", round=number, outcome="applied", included=True)
            click.echo(f"round {number} of {rounds}", err=True)
        fleet.wait_for(AGENT, "score", version=rounds)
        return found | {"rss_training_mb": memory(agent, "VmHWM")}


def goals(figures: dict[str, Any]) -> list[Goal]:
    """What the project set itself."""
    return [
        Goal("resident while idle, MB", figures["rss_idle_mb"], IDLE_GOAL, False),
        Goal("resident at most, 100,000 parameters, MB", figures["rss_training_mb"], TRAINING_GOAL, False),
        Goal("of one core while idle, %", figures["idle_core_percent"], IDLE_CORE_GOAL, False),
    ]


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the figures here.")
@click.option("--codec", type=click.Choice(["plain", "thrift", "default", "fast"]), default="default",
              show_default=True, help="Of the uploads.")  # fmt: skip
@click.option("--idle", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds to be idle.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="To train in.")
def main(json_path: Path, codec: str, idle: float, rounds: int) -> None:
    """An agent's storage, memory, start and idle hours, from an installation of its own in a real fleet."""
    with tempfile.TemporaryDirectory(prefix="hushfleet-bench-") as directory:
        try:
            python = install(Path(directory))
        except subprocess.CalledProcessError:
            raise click.ClickException("the wheel cannot be built or installed; why stands above") from None
        figures = installed(python) | running(Path(directory) / "fleet", python, codec, idle, rounds)
    for name, value in figures.items():
        click.echo(f"{name:28}{value:,.2f}")
    click.echo("\n".join(goal.line() for goal in goals(figures)))
    try:
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {json_path}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
