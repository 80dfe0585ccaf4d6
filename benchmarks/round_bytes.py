"""What a round costs besides its update, and what a new connection costs: a real fleet, counted at the agents' sockets.

    python benchmarks/round_bytes.py [--rounds 8] [--json FILE]

A model of 88 parameters, so that nearly everything is fixed cost; Mosquitto with TLS, a coordinator, five participants
of whom four are the committee. A round is what the byte ledgers of the agents say, on average without the one with the
set-up: from its result to the next one's. Then nothing happens, and the devices' bytes are counted again: after the
coordinator was killed and started, after a device's connection was cut, and after a device was started again.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

from fleet_fixture import COORDINATOR, Fleet
from link_tools import Cable

PARTICIPANT, MEMBER = "part-1", "both-1"
QUIET, LONGEST = 5.0, 60.0
"""Seconds without a byte until nothing happens any more, and for which that is waited for."""

Count = dict[str, list[float]]
"""Bytes sent and received by item."""


class SmallFleet(Fleet):
    """A tiny model, and chunks into which every message fits."""

    layers = ('{ in = 16, out = 4, act = "relu" }', '{ in = 4, out = 4, act = "none" }')
    profile = (
        'name = "small"\ndescription = "A gateway on this machine"\nmemory = 512\n'
        '[link]\nclass = "ethernet"\nchunk = 4096\nwindow = 4\nkeepalive = 3600\n'
    )

    def today(self, name: str) -> Count:
        """A device's spending today."""
        return _items(json.loads((self.state(name) / "status.json").read_text())["bytes"]["today"])

    def rounds(self, name: str) -> list[Count]:
        """A device's spending in the rounds that its ledger has kept."""
        return [*json.loads((self.state(name) / "bytes.json").read_text())["rounds"].values()]

    def settled(self) -> dict[str, Count]:
        """What each device has spent when nothing happens any more."""
        since, seen = time.monotonic(), {name: self.today(name) for name in self.devices}
        until = since + LONGEST
        while time.monotonic() < min(until, since + QUIET):
            time.sleep(0.2)
            if (now := {name: self.today(name) for name in self.devices}) != seen:
                since, seen = time.monotonic(), now
        return seen


def measure(rounds: int) -> dict[str, dict[str, Count]]:
    """Bytes by occasion, device and item."""
    found: dict[str, dict[str, Count]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="hushfleet-rounds-") as directory,
        SmallFleet(Path(directory), participants=1, rounds={"total": rounds}) as fleet,
        Cable(fleet.port) as cable,
    ):
        fleet.broker.start()
        fleet.configure_agent(PARTICIPANT, port=cable.port)
        fleet.start(*fleet.everyone)
        fleet.wait_for(COORDINATOR, "all-rounds-run", deadline=120)
        before = fleet.settled()
        # The first kept may be the round with the set-up, and its result arrives while devices still read.
        kept = {name: fleet.rounds(name)[-min(5, rounds - 2) :] for name in (PARTICIPANT, MEMBER)}
        found["round"] = {name: _mean(counts) for name, counts in kept.items()}
        fleet.configure_coordinator(pause=3600)
        for occasion in ("coordinator started", "coordinator killed and started", "device cut", "device started"):
            match occasion:
                case "coordinator started":
                    fleet.start(COORDINATOR)
                case "coordinator killed and started":
                    fleet.kill(COORDINATOR)
                    fleet.start(COORDINATOR)
                case "device cut":
                    cable.cut()
                case "device started":
                    fleet.stop(PARTICIPANT)
                    fleet.start(PARTICIPANT)
            after = fleet.settled()
            found[occasion] = {PARTICIPANT: _difference(after[PARTICIPANT], before[PARTICIPANT])}
            before = after
    return found


def _items(table: dict[str, dict[str, list[float]]]) -> Count:
    return {item: pair for items in table.values() for item, pair in items.items()}


def _mean(counts: list[Count]) -> Count:
    items = dict.fromkeys(item for count in counts for item in count)
    zero = [0.0, 0.0]
    return {item: [sum(one.get(item, zero)[way] for one in counts) / len(counts) for way in (0, 1)] for item in items}


def _difference(after: Count, before: Count) -> Count:
    return {item: [after[item][way] - before[item][way] for way in (0, 1)] for item in after}


def _tell(found: dict[str, dict[str, Count]]) -> None:
    for occasion, devices in found.items():
        for name, count in devices.items():
            role = "participant" if name == PARTICIPANT else "participant and member"
            click.echo(f"\n{occasion}, {role}: sent, received")
            for item, (sent, received) in count.items():
                if sent or received:
                    click.echo(f"{item:<18}{sent:>9,.0f}{received:>9,.0f}")
            total = [sum(pair[way] for pair in count.values()) for way in (0, 1)]
            click.echo(f"{'total':<18}{total[0]:>9,.0f}{total[1]:>9,.0f}")


@click.command()
@click.option("--rounds", type=click.IntRange(4), default=8, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(rounds: int, json_path: Path | None) -> None:
    """What a round costs besides its update, and what a new connection costs; a minute."""
    found: dict[str, Any] = measure(rounds)
    _tell(found)
    if json_path:
        json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
