"""An operator takes a fleet's model back: real services over a real broker, one of them away meanwhile."""

from pathlib import Path

import pytest
from fleet_fixture import COORDINATOR, Fleet, command

pytestmark = pytest.mark.integration

ROUNDS = 3
AWAY = "part-2"


def test_everyone_goes_back_and_trains_on_from_there_and_whoever_was_away_comes_to_the_same(tmp_path: Path) -> None:
    # Five of six are enough: one is away.
    rounds = {"total": ROUNDS, "enough": 0.8, "patience": 1.0, "codec": "default"}
    with Fleet(tmp_path, policy={"rollback_versions": 2, "epoch_rounds": 16}, rounds=rounds) as fleet:
        fleet.broker.start()
        configuration = fleet.configuration(COORDINATOR)
        fleet.start(*fleet.everyone)
        fleet.wait_for(COORDINATOR, "stopped")
        for name in fleet.devices:
            fleet.wait_for(name, "score", version=ROUNDS)
        fleet.stop(AWAY)

        refused = command("coordinator", "roll-back", configuration, "0")
        assert refused.returncode == 1
        assert "what can be reached: 1, 2" in refused.stderr
        done = command("coordinator", "roll-back", configuration, "1")
        assert "from version 3 to 1" in done.stdout, done.stderr
        since = fleet.mark()
        fleet.configure_coordinator(**{**rounds, "total": ROUNDS + 1})
        fleet.start(COORDINATOR)
        here = [name for name in fleet.devices if name != AWAY]
        for name in here:
            fleet.wait_for(name, "round", since, outcome="rollback")
        fleet.wait_for(COORDINATOR, "stopped", since)
        assert [told["version"] for told in fleet.events(COORDINATOR, "round", since, outcome="applied")] == [2]
        assert "from version 3 to 1 in round 4" in command("coordinator", "status", configuration).stdout

        fleet.start(AWAY)
        for name in fleet.devices:
            fleet.wait_for(name, "score", since, version=2)
        fleet.stop(*fleet.devices)
        models = {fleet.model(name) for name in fleet.everyone}
        assert len(models) == 1, models
