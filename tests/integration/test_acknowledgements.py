"""Real services under strace: nothing leaves before its sync, and a failing disk ends a service before it promises.

One fleet lives through all of it; `make soak ACKS=…` counts far more acknowledgements.
"""

import re
import time
from collections.abc import Iterator

import pytest
from acknowledgements import TracedFleet
from fleet_fixture import COORDINATOR, DEADLINE
from order import Order, require_strace

pytestmark = pytest.mark.integration

ACKNOWLEDGEMENTS = 500
KINDS = {"puback", "receipt", "masksum", "share", "upload", "survivors", "plan", "result"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedFleet]:
    require_strace()
    with TracedFleet(tmp_path_factory.mktemp("traced")) as fleet:
        fleet.broker.start()
        fleet.start(*fleet.everyone)
        yield fleet


def test_no_acknowledgement_leaves_before_the_sync_of_what_it_promises(fleet: TracedFleet) -> None:
    deadline = time.monotonic() + 100
    while fleet.left().total() < ACKNOWLEDGEMENTS or not fleet.left().keys() >= KINDS:
        assert time.monotonic() < deadline, f"only {fleet.left()}"
        fleet.wait_for(COORDINATOR, "round", fleet.mark())
    assert fleet.too_early() == []


@pytest.mark.parametrize(("name", "sync"), [(COORDINATOR, 1), (COORDINATOR, 5), ("both-1", 4), ("part-1", 3)])
def test_a_failing_disk_ends_a_service_before_it_promises_anything(fleet: TracedFleet, name: str, sync: int) -> None:
    order = again(fleet, name, failing=sync)
    assert fleet.processes[name].wait() == 1
    assert order.syncs <= sync
    last = fleet.lines(name)[-1]
    assert re.match(rf"hushfleet: {fleet.store_path(name)}: the disk refuses .* \(dmesg\), and start again", last)
    assert not [line for line in fleet.lines(name) if "Traceback" in line]
    assert fleet.too_early() == []
    mark = fleet.mark()
    again(fleet, name)
    fleet.wait_for(COORDINATOR, "round", mark, outcome="applied", uploads=6)


@pytest.mark.parametrize("name", [COORDINATOR, "both-2"])
def test_an_acknowledgement_that_is_planted_too_early_is_seen(fleet: TracedFleet, name: str) -> None:
    order = again(fleet, name, planted=["--early"])
    deadline = time.monotonic() + DEADLINE
    while not order.early:
        assert time.monotonic() < deadline
        fleet.wait_for(COORDINATOR, "round", fleet.mark())
    assert {kind for kind, _ in order.early} == {"puback"}
    again(fleet, name)


def again(fleet: TracedFleet, name: str, *, failing: int = 0, planted: list[str] | None = None) -> Order:
    """Start a service again, with a fault or without; its new trace."""
    if fleet.processes[name].running:
        fleet.stop(name)
    fleet.failing = {name: failing} if failing else {}
    fleet.planted = {name: planted} if planted else {}
    fleet.start(name)
    return fleet.orders[-1][1]
