"""The owners replace all their keys while a real fleet trains: SIGHUP, three roots, a device that slept meanwhile."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_fixture import COORDINATOR, Fleet, command

from hushfleet.wire.documents import Manifest
from hushfleet.wire.framing import Frame

pytestmark = pytest.mark.integration

AWAY = "part-2"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    # Five of six are enough, so that rounds end while one is away.
    with Fleet(tmp_path, rounds={"total": 1_000, "enough": 0.8, "patience": 0.3}) as made:
        made.broker.start()
        yield made


def rotate(fleet: Fleet, version: int) -> None:
    """All keys anew, and the coordinator told of it, as an operator does."""
    done = command("fleet", "rotate", fleet.owner, "--root", "--signer", "--freshness")
    assert done.returncode == 0, done.stderr
    assert f"root: version {version}, " in done.stdout
    fleet.processes[COORDINATOR].signal(signal.SIGHUP)
    fleet.wait_for(COORDINATOR, "documents", manifest=[version, version])


def test_three_rotations_under_way_and_a_device_that_slept_through_them(fleet: Fleet) -> None:
    fleet.start(COORDINATOR, *fleet.devices)
    fleet.wait_for(AWAY, "accepted", round=1)
    fleet.stop(AWAY)
    for version in (2, 3, 4):
        rotate(fleet, version)
        fleet.wait_for(COORDINATOR, "round", fleet.mark(), outcome="applied")
    fleet.kill(COORDINATOR)
    since = fleet.mark()
    fleet.start(COORDINATOR, AWAY)
    fleet.wait_for(AWAY, "accepted", since)
    fleet.wait_for(COORDINATOR, "round", since, outcome="applied", uploads=6)
    dated = command("fleet", "date", fleet.owner, "--days", "60")
    assert dated.returncode == 0, dated.stderr
    since = fleet.mark()
    fleet.processes[COORDINATOR].signal(signal.SIGHUP)
    until = dated.stdout.split()[-1]
    fleet.wait_for(COORDINATOR, "documents", since, manifest=[4, 4], until=until)
    fleet.wait_for(COORDINATOR, "round", fleet.mark(), outcome="applied", uploads=6)
    assert {told["outcome"] for told in fleet.events(COORDINATOR, "round")} == {"applied"}
    assert {told["epoch"] for told in fleet.events(COORDINATOR, "plan")} == {1}
    assert fleet.stop(*fleet.everyone) == [0] * len(fleet.everyone)
    for name in fleet.everyone:
        with fleet.store(name) as store:
            manifest = Manifest.from_body(Frame.from_bytes(store.get("trust/manifest") or b"").body)
            dates = store.get("trust/date")
        assert (manifest.root, manifest.version) == (4, 4)
        assert dates == (fleet.owner / "documents/date").read_bytes()
        assert not fleet.events(name, "declined")
        assert not fleet.events(name, "internal-error")
