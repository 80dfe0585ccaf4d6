"""Layers that are each device's own, with real agents: the others are one model, and these stay apart."""

import signal
from pathlib import Path

import pytest
from fleet_fixture import COORDINATOR, HIDDEN, INPUTS, Fleet

from edge_agent.personal_head import RECORD
from hushfleet.wire import canonical

pytestmark = pytest.mark.integration


class Headed(Fleet):
    """The last layer is each device's own."""

    personal = 1


def test_agents_share_the_first_layer_and_keep_the_last(tmp_path: Path) -> None:
    with Headed(tmp_path, rounds={"total": 3}) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, *fleet.devices)
        fleet.wait_for("part-1", "accepted")
        fleet.processes["part-1"].signal(signal.SIGKILL)
        fleet.processes["part-1"].wait()
        fleet.start("part-1")
        fleet.wait_for(COORDINATOR, "stopped")
        last = fleet.events(COORDINATOR, "round")[-1]["version"]
        assert last > 0
        for name in fleet.devices:
            fleet.wait_for(name, "score", version=last)
        fleet.stop(*fleet.devices)
        assert len({fleet.model(name) for name in (COORDINATOR, *fleet.devices)}) == 1
        heads = []
        for name in fleet.devices:
            with fleet.store(name) as store:
                heads.append(canonical.decode(store.get(RECORD) or b"")["flat"])
                assert len(canonical.decode(store.get("model/live") or b"")["flat"]) == 4 * (INPUTS + 1) * HIDDEN
        assert len(set(heads)) == len(heads)
        with fleet.store(COORDINATOR) as ledger:
            kept = b"".join(value for _, value in ledger.scan(""))
        assert len(kept) > 1000
        assert not any(head[at : at + 8] in kept for head in heads for at in range(0, len(head) - 7, 4))
