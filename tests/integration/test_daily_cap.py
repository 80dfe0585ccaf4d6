"""One device of a real federation behind a cable that counts: its ledger, its cap, and the hours of its profile."""

import json
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from fleet_fixture import COORDINATOR, Fleet, command
from link_tools import Cable, eventually

from edge_agent.metered import MeteredSettings, metered_interface

pytestmark = pytest.mark.integration

DEVICE = "part-1"
CAP = 90_000
"""Bytes: a join and a few rounds."""
TODAY = round(time.time()) // 86_400 * 86_400


class CappedFleet(Fleet):
    """One whose first participant has a profile of its own."""

    def limit(self, cable: Cable, lines: str) -> None:
        """Put the device behind the cable, with these lines in its profile."""
        profile = self.configuration("limited")
        profile.write_text(self.profile.replace('"small"', '"limited"') + lines)
        path = self.configure_agent(DEVICE, port=cable.port)
        path.write_text(path.read_text().replace('"profile.toml"', '"limited.toml"'))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.state(DEVICE) / "status.json").read_text())
        return status


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CappedFleet]:
    """A fleet at work, all but one device, for which no round waits."""
    rounds = {"enough": 0.7, "patience": 1.5}
    with CappedFleet(tmp_path_factory.mktemp("capped"), participants=1, rounds=rounds) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, *fleet.members)
        yield fleet


def carried(status: dict[str, Any]) -> tuple[int, int]:
    """Bytes sent and received today."""
    figures = [pair for items in status["bytes"]["today"].values() for pair in items.values()]
    return sum(sent for sent, _ in figures), sum(received for _, received in figures)


def start_at(fleet: CappedFleet, monkeypatch: pytest.MonkeyPatch, clock: str) -> None:
    """Start the device where it is this time of the day, of the same day whenever it is called."""
    hours, minutes, seconds = map(int, clock.split(":"))
    ahead = TODAY + 3600 * hours + 60 * minutes + seconds - round(time.time())
    minutes, seconds = divmod(abs(ahead), 60)
    monkeypatch.setenv("TZ", f"HERE{'-' if ahead > 0 else '+'}{minutes // 60}:{minutes % 60}:{seconds}")
    fleet.start(DEVICE)


def test_the_ledger_is_what_passed_the_cable_and_the_cap_holds(
    fleet: CappedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cable(fleet.port) as cable:
        fleet.limit(cable, f"daily_bytes = {CAP}\n")
        start_at(fleet, monkeypatch, "06:00:00")
        fleet.wait_for(DEVICE, "round", included=True, deadline=100)
        fleet.processes[COORDINATOR].signal(signal.SIGSTOP)
        # On a fast machine a round takes less time than the first status, and the last results still come.
        eventually((fleet.state(DEVICE) / "status.json").exists)

        def shown() -> bool:
            up, down = cable.bytes_up, cable.bytes_down
            told = command("agent", "status", fleet.configuration(DEVICE)).stdout
            return re.search(rf"^total +{up:,} +{down:,} ", told, re.MULTILINE) is not None

        eventually(lambda: carried(fleet.status()) == (cable.bytes_up, cable.bytes_down) and shown())
        fleet.processes[COORDINATOR].signal(signal.SIGCONT)

        asleep = fleet.wait_for(DEVICE, "asleep", deadline=100)
        assert f"of the {CAP} bytes a day" in asleep["why"]
        assert asleep["until"].endswith("00:00:00")
        eventually(lambda: "asleep until" in (fleet.status()["trouble"] or ""))
        assert "asleep until" in command("agent", "status", fleet.configuration(DEVICE)).stdout
        assert CAP - 30_000 < cable.bytes_up + cable.bytes_down <= CAP

        mark, before = fleet.mark(), cable.connections
        fleet.kill(DEVICE)
        start_at(fleet, monkeypatch, "12:00:00")
        fleet.wait_for(DEVICE, "asleep", mark)
        fleet.stop(DEVICE)
        assert cable.connections == before

        start_at(fleet, monkeypatch, "23:59:54")
        mark = fleet.mark()
        fleet.wait_for(DEVICE, "asleep", mark)
        assert fleet.wait_for(DEVICE, "connected", mark)["session"]
        fleet.wait_for(DEVICE, "round", mark)
        fleet.stop(DEVICE)


def test_in_its_sleep_window_it_is_not_connected(fleet: CappedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cable(fleet.port) as cable:
        fleet.limit(cable, '[schedule]\nasleep = ["05:00-05:01"]\n')
        mark = fleet.mark()
        start_at(fleet, monkeypatch, "05:00:54")
        asleep = fleet.wait_for(DEVICE, "asleep", mark)
        assert cable.connections == 0
        assert (asleep["until"][-8:], "hours" in asleep["why"]) == ("05:01:00", True)
        fleet.wait_for(DEVICE, "connected", mark)
        fleet.stop(DEVICE)


def test_on_a_metered_link_it_sits_rounds_out_and_says_so(fleet: CappedFleet) -> None:
    """All that this machine reaches the world over is metered; what the connection itself carries is counted."""
    interface = metered_interface(MeteredSettings(("*",)))
    if interface is None:
        pytest.skip("this machine has no default route")
    config = fleet.configure_agent(DEVICE)
    config.write_text(config.read_text() + '\n[budget]\nmetered = ["*"]\n')
    mark = fleet.mark()
    fleet.start(DEVICE)
    declined = fleet.wait_for(DEVICE, "declined", mark)
    assert f"on the metered link {interface}, where 0 of the 0 MB a month" in declined["why"]
    line = rf"^metered +0\.\d\d of 0 MB in \d{{4}}-\d\d; on {interface} now$"
    status = partial(command, "agent", "status", fleet.configuration(DEVICE))
    eventually(lambda: re.search(line, status().stdout, re.MULTILINE) is not None)
    fleet.stop(DEVICE)
