"""Large rounds through a real Mosquitto: what they cost the coordinator, beside the floor, and what memory they take.

    python benchmarks/large_round.py --json large_round.json

Broker with TLS as in production, coordinator with its ledger, and a committee of four agents are processes of their
own; one more speaks for all participants, whose uploads are prepared before the clock starts. The floor then receives
the very same messages through the same broker (large_round_floor.py). Seconds are processor seconds of one process,
from the first upload until the last one is durable.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from goals import Goal
from large_round_fleet import MEMBERS, Load, make_fleet
from process_figures import memory, processor_seconds

from hushfleet.actions import Publish
from hushfleet.errors import HushfleetError
from hushfleet_demo.local_fleet import HOST, LocalFleet, Process

HERE = Path(__file__).parent
GOAL_AT, GOAL = 10_000, 3.0
"""With so many devices the coordinator may take so many times the floor's processor seconds."""


def measure(directory: Path, devices: int, parameters: int, size: int) -> dict[str, float]:
    """One round and its floor.

    Raises:
        HushfleetError: a service could not be started.
        RuntimeError, TimeoutError: the round did not end as it must.
    """
    with LocalFleet(directory, lambda *_: None) as local:
        participants = make_fleet(local, devices, parameters)
        local.start_broker()
        coordinator = local.start_coordinator()
        for number in range(1, MEMBERS + 1):
            local.start_agent(f"member-{number}")
        load = Load(local, participants, parameters, size)
        try:
            messages = load.prepare()
            figures = _coordinator_side(coordinator, load, messages)
            coordinator.stop()
            coordinator.wait()
            floor = _floor_side(local, load, messages)
        finally:
            load.close()
    return {
        "devices": devices,
        "messages": len(messages),
        "bytes_an_upload": sum(len(message.payload) for message in messages) / devices,
        **figures,
        **floor,
        "ratio": figures["coordinator_seconds"] / floor["floor_seconds"],
    }


def _coordinator_side(coordinator: Process, load: Load, messages: Sequence[Publish]) -> dict[str, float]:
    before, began = processor_seconds(coordinator.pid), time.monotonic()
    load.send(messages)
    load.await_receipts()
    after, ended = processor_seconds(coordinator.pid), time.monotonic()
    load.check_model()
    return {
        "coordinator_seconds": after - before,
        "receipts_after_seconds": ended - began,
        "model_after_seconds": time.monotonic() - began,
        "coordinator_peak_rss_mb": memory(coordinator.pid, "VmHWM"),
    }


def _floor_side(local: LocalFleet, load: Load, messages: Sequence[Publish]) -> dict[str, float]:
    """The coordinator has gone: the floor takes its place at the broker."""
    bundle, facts = local.fleet / "devices" / "coordinator", local.directory / "facts.json"
    place = {
        "host": HOST,
        "port": local.port,
        "client": "0",
        "authority": str(bundle / "ca.pem"),
        "certificate": str(bundle / "tls.pem"),
        "key": str(bundle / "tls.key"),
        "store": str(local.directory / "floor.db"),
    }
    facts.write_text(json.dumps(place | load.facts()))
    command = [sys.executable, str(HERE / "large_round_floor.py"), str(facts)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as floor:
        assert floor.stdout is not None
        try:
            if floor.stdout.readline().strip() != "ready":
                raise RuntimeError("the floor's receiver did not start; its last words stand above")
            load.send(messages)
            figures: dict[str, float] = json.loads(floor.stdout.readline())
        finally:
            floor.kill()
    return {"floor_seconds": figures["seconds"]}


def plot(rounds: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the coordinator's memory over the number of devices, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    devices = [one["devices"] for one in rounds]
    uploads = [one["devices"] * one["bytes_an_upload"] / 2**20 for one in rounds]
    axes.semilogx(devices, uploads, "--", color="0.6", label="all uploads together")
    axes.semilogx(devices, [one["coordinator_peak_rss_mb"] for one in rounds], "o-", label="coordinator, peak resident")
    axes.set(xlabel="devices that upload", ylabel="MB", ylim=(0, None), xticks=devices)
    axes.set_xticklabels([f"{number:,}" for number in devices])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def line(round_: dict[str, Any]) -> str:
    """One round in words."""
    return (
        f"{round_['devices']:,} devices, {round_['messages']:,} messages, {round_['bytes_an_upload']:,.0f} bytes an"
        f" upload: coordinator {round_['coordinator_seconds']:.2f} s CPU, floor {round_['floor_seconds']:.2f} s,"
        f" {round_['ratio']:.2f} times; coordinator's peak {round_['coordinator_peak_rss_mb']:.0f} MB"
    )


@click.command()
@click.option("--devices", type=click.IntRange(6, 16_383), multiple=True, default=(100, 1_000, 10_000),
              show_default=True, help="Participants; several times for several rounds.")  # fmt: skip
@click.option("--parameters", type=click.IntRange(2), default=5_000, show_default=True, help="Of the model.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the figures here.")
@click.option("--slice", "size", type=click.IntRange(256, 61_440), default=61_440, show_default=True,
              help="Bytes of a message's slice.")  # fmt: skip
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw the coordinator's memory, as PNG.")
def main(devices: tuple[int, ...], parameters: int, json_path: Path, size: int, plot_path: Path | None) -> None:
    """The coordinator's processor time and memory in large rounds through a real broker."""
    rounds: list[dict[str, float]] = []
    for number in devices:
        with tempfile.TemporaryDirectory(prefix="hushfleet-bench-") as directory:
            try:
                rounds.append(measure(Path(directory), number, parameters, size))
            except (HushfleetError, RuntimeError, TimeoutError) as error:
                raise click.ClickException(str(error)) from None
        click.echo(line(rounds[-1]))
        if number == GOAL_AT:
            click.echo(Goal("the coordinator over its floor", rounds[-1]["ratio"], GOAL, at_least=False).line())
    try:
        if plot_path is not None:
            plot(rounds, plot_path)
        json_path.write_text(json.dumps(rounds, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
