"""A disk that takes nothing any more: the service ends and says which file, nothing unsaved was confirmed or sent.

The limit is one on the size of files, set from outside while the service runs: every write beyond it fails.
"""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from fleet_fixture import COORDINATOR, Fleet, Witness

from hushfleet.wire import canonical

pytestmark = pytest.mark.integration

LATE, LATE_INDEX = "part-2", 6
FULL = "part-1"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("full"), rounds={"collect": 120}) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, *(name for name in fleet.devices if name != LATE))
        for index in range(1, LATE_INDEX):
            fleet.wait_for(COORDINATOR, "accepted", device=index, round=1)
        yield fleet


def check_end(fleet: Fleet, name: str) -> None:
    """It has ended with an error that names its store and what to do, and with no traceback."""
    assert fleet.processes[name].wait() == 1
    last = fleet.lines(name)[-1]
    assert last.startswith(f"hushfleet: {fleet.store_path(name)}")
    assert "look for a full disk" in last
    assert not any("Traceback" in line for line in fleet.lines(name))
    assert fleet.events(name, "stopped") == []


def test_the_coordinator_confirms_nothing_that_its_full_disk_has_not_taken(fleet: Fleet) -> None:
    fleet.processes[COORDINATOR].limit_files(1)
    fleet.start(LATE)
    check_end(fleet, COORDINATOR)
    fleet.wait_for(LATE, "uploading", round=1)
    assert fleet.events(LATE, "accepted") == []
    mark = fleet.mark()
    fleet.start(COORDINATOR)
    assert fleet.wait_for(COORDINATOR, "resumed", mark)["accepted"] == LATE_INDEX - 1
    ended = fleet.wait_for(COORDINATOR, "round", mark, round=1)
    assert (ended["outcome"], ended["uploads"]) == ("applied", 6)


def test_an_agent_sends_nothing_that_its_full_disk_has_not_taken(fleet: Fleet) -> None:
    with Witness(fleet) as witness:
        number = fleet.wait_for(FULL, "accepted", fleet.mark())["round"]
        fleet.processes[FULL].limit_files(1)
        check_end(fleet, FULL)
        with fleet.store(FULL) as store:
            answered = canonical.decode(store.get("participant/state") or b"")["answered"]
        index = fleet.index(FULL)
        sent = {at.round_number for at, _ in witness.seen("up", "upload").values() if at.device == index}
        assert answered >= number
        assert max(sent) <= answered
        mark = fleet.mark()
        fleet.start(FULL)
        back = fleet.wait_for(FULL, "accepted", mark)["round"]
        ended = fleet.wait_for(COORDINATOR, "round", round=back)
        assert (ended["outcome"], ended["uploads"]) == ("applied", 6)
        witness.check()


def test_a_status_that_cannot_be_written_is_said_and_nothing_else_happens(fleet: Fleet) -> None:
    in_the_way = fleet.state(FULL) / "status.json.part"
    mark = fleet.mark()
    while not in_the_way.is_dir():
        # The file of that name is there for an instant every two seconds.
        with suppress(FileExistsError):
            in_the_way.mkdir()
    try:
        told = fleet.wait_for(FULL, "status-not-written", mark)
        assert told["file"].endswith("status.json")
        fleet.wait_for(FULL, "accepted", mark)
    finally:
        in_the_way.rmdir()
