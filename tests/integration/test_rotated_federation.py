"""The rotated codec over a real broker: key frames, a device killed, one that comes late; FedAdam; unlike devices."""

import signal
from pathlib import Path

import pytest
from fleet_fixture import CLASSES, COORDINATOR, PARAMETERS, Fleet, Witness, rows

from hushfleet.wire import canonical

pytestmark = pytest.mark.integration

ROUNDS = 18
LATE, KILLED = "part-2", "part-1"
MANY = "both-2"


class UnlikeFleet(Fleet):
    """One device has twenty rows, one more than its memory holds, the others a single class each; all balance them."""

    @staticmethod
    def data(number: int) -> str:
        if number < 2:
            return rows(number, (20, 17_000)[number])
        header, *lines = rows(number, 80).splitlines()
        mine = f",{number % CLASSES}"
        return "\n".join([header, *(line for line in lines if line.endswith(mine))]) + "\n"

    def source(self, name: str) -> str:
        # A mebibyte holds 16,384 rows of 16 features.
        return "balanced = true\n" + super().source(name) + ("memory = 1\n" if name == MANY else "")


def test_everyone_ends_with_one_model_the_killed_and_the_late_too(tmp_path: Path) -> None:
    # Four of six are enough: one comes late, one is killed.
    rounds = {"total": ROUNDS, "enough": 0.6, "patience": 0.3, "codec": "default"}
    with Fleet(tmp_path, policy={"epoch_rounds": 32}, rounds=rounds) as fleet:
        fleet.broker.start()
        with Witness(fleet) as witness:
            fleet.start(COORDINATOR, *(name for name in fleet.devices if name != LATE))
            fleet.wait_for(KILLED, "uploading", round=3)
            fleet.processes[KILLED].signal(signal.SIGKILL)
            fleet.processes[KILLED].wait()
            fleet.start(KILLED)
            fleet.wait_for(COORDINATOR, "round", round=17)
            fleet.start(LATE)
            fleet.wait_for(COORDINATOR, "stopped")
            last = fleet.events(COORDINATOR, "round")[-1]["version"]
            for name in fleet.devices:
                fleet.wait_for(name, "score", version=last)
            fleet.stop(*fleet.devices)
            witness.check()
        outcomes = [told["outcome"] for told in fleet.events(COORDINATOR, "round")]
        assert outcomes.count("applied") == last > 16, outcomes
        models = {fleet.model(name) for name in (COORDINATOR, *fleet.devices)}
        assert len(models) == 1
        first, newest = fleet.events(COORDINATOR, "round")[0], fleet.events(COORDINATOR, "round")[-1]
        assert newest["loss"] < first["loss"]


def test_everyone_replays_fedadam_and_whoever_comes_late_does_too(tmp_path: Path) -> None:
    rounds = {"total": 2, "enough": 0.6, "patience": 0.3, "codec": "fast", "server_optimizer": "adam"}
    with UnlikeFleet(tmp_path, rounds=rounds) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, *(name for name in fleet.devices if name != LATE))
        fleet.wait_for(COORDINATOR, "stopped")
        assert all(fleet.events(name, "accepted") for name in fleet.devices if name != LATE)
        last = fleet.events(COORDINATOR, "round")[-1]["version"]
        fleet.start(LATE)
        for name in fleet.devices:
            fleet.wait_for(name, "score", version=last)
        fleet.stop(*fleet.devices)
        assert [told["outcome"] for told in fleet.events(COORDINATOR, "round")].count("applied") == last
        assert len({fleet.model(name) for name in (COORDINATOR, *fleet.devices)}) == 1
        assert {fleet.events(name, "score")[-1]["rows"] for name in fleet.devices} == {8_500 // 4, 20 // 4}
        told = [one["why"] for name in fleet.devices for one in fleet.events(name, "trainer")]
        assert set(told) == {"as the settings say; classes balanced"}
        with fleet.store(LATE) as store:
            assert len(canonical.decode(store.get("model/live") or b"")["flat"]) == 3 * 4 * PARAMETERS
