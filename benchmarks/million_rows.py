"""What a device takes to train that has a million rows: peak memory and processor time of one round's work.

    python benchmarks/million_rows.py --json million.json

Each source in a process of its own, through what an agent reads rows with, scores the model and takes twenty steps:
* csv: a file of a million rows with 20 columns;
* sensors: a million windows of 60 samples, one a second, made of twelve days of readings of one channel.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from process_figures import memory

from edge_agent.sources.csv import CsvRows, CsvSource
from edge_agent.sources.labels import LabelSettings, Rule
from edge_agent.sources.rows import Source
from edge_agent.sources.sensors import ChannelSettings, Sensors, SensorSettings
from edge_agent.sources.store import ReadingStore
from edge_agent.work import Train
from edge_agent.work_bench import WorkBench
from hushfleet.learning.layers import initial_flat
from hushfleet.wire.layers import Dense
from hushfleet.wire.schema import Channel, Schema

MILLION = 1_000_000
COLUMNS, CLASSES, SAMPLES = 20, 7, 60
SCHEMA = Schema(
    bytes(16), 0, 1, 1, bytes(32), channels=(Channel("co2", "ppm", 300.0, 2300.0),), rate=1.0, samples=SAMPLES, step=1,
    missing=0.25, mask=0, task="classes", classes=("empty", "taken"), target=0, horizon=0,
)  # fmt: skip
"""A window begins every second, and is a minute long."""
CHANNELS = (ChannelSettings("co2", "office#/co2"),)
RULES = LabelSettings(rule=(Rule("taken", channel="co2", above=1300.0),), otherwise="empty")
SOURCES = ("csv", "sensors")


def make(kind: str, directory: Path) -> None:
    """Write a source's million rows."""
    chance = np.random.default_rng(0)
    if kind == "csv":
        lines = [",".join(f"{value:.4f}" for value in row) for row in chance.standard_normal((1_000, COLUMNS))]
        with (directory / "rows.csv").open("w") as file:
            file.write(",".join([*(f"f{column}" for column in range(COLUMNS)), "label"]) + "\n")
            file.writelines(f"{lines[number % 1_000]},{number % CLASSES}\n" for number in range(MILLION))
        return
    begin, values = time.time() - MILLION - SAMPLES, chance.uniform(300, 2300, MILLION + SAMPLES)
    store = ReadingStore(directory / "readings.db", SensorSettings().keep)
    for number, value in enumerate(values.tolist()):
        store.add("co2", begin + number, value)
        if number % 60 == 0:
            store.tick(begin + number)
    store.close()


def source(kind: str, directory: Path) -> tuple[Source, Any]:
    """The source, as an agent opens it, and the model that its rows are for."""
    if kind == "csv":
        layers = (Dense(COLUMNS, 64, "relu"), Dense(64, CLASSES))
        return CsvRows(CsvSource(directory / "rows.csv", "label", holdout=0.2), "softmax"), SimpleNamespace(
            layers=layers
        )
    settings = SensorSettings(channel=CHANNELS, label=RULES)
    layers = (Dense(SAMPLES, 64, "relu"), Dense(64, 2))
    return Sensors(settings, ReadingStore(directory / "readings.db", settings.keep)), SimpleNamespace(layers=layers)


def work(kind: str, directory: Path) -> dict[str, float]:
    """Do a round's work in this process; its figures."""
    found, model = source(kind, directory)
    plan: Any = SimpleNamespace(steps=20, batch=32, rate=0.05, momentum=0.5, proximal=0.0)
    bench, flat = WorkBench(found, "numpy"), initial_flat(model.layers, bytes(32))
    before, began = memory(os.getpid(), "VmHWM"), time.process_time()
    _, report = bench.train_now(Train(plan, bytes(32), flat, bytes(32)), model, SCHEMA)
    return {
        "rows_scored": report.evaluated,
        "peak_mb": memory(os.getpid(), "VmHWM"),
        "before_mb": before,
        "cpu_seconds": time.process_time() - began,
    }


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--work", "kind", type=click.Choice(SOURCES), hidden=True)
@click.option("--directory", type=click.Path(path_type=Path), hidden=True)
def main(json_path: Path | None, kind: str | None, directory: Path | None) -> None:
    """Peak memory and processor time of a round on a device with a million rows, by source."""
    if kind and directory:
        click.echo(json.dumps(work(kind, directory)))
        return
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="hushfleet-million-") as made:
        for one in SOURCES:
            click.echo(f"{one}: writing a million rows")
            make(one, Path(made))
            command = [sys.executable, __file__, "--work", one, "--directory", made]
            figures[one] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found = figures[one]
            click.echo(
                f"{one}: peak {found['peak_mb']:.0f} MB, {found['before_mb']:.0f} before; "
                f"{found['cpu_seconds']:.1f} s of processor time, {found['rows_scored']:.0f} rows scored"
            )
    if json_path is None:
        return
    try:
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {json_path}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
