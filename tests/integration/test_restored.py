"""Stores put back from a copy, with real agents and a real coordinator: who sits out, who refuses, who comes back."""

import subprocess
import time
from pathlib import Path

import pytest
from fleet_fixture import COORDINATOR, DEADLINE, Fleet, Witness, command

pytestmark = pytest.mark.integration

BOTH, INDEX = "both-4", 4
POLICY = {"committee_min": 3, "committee_trusted": True, "epoch_rounds": 6, "epoch_age": 100}
"""Clocks may differ by a tenth of the age: ten seconds that a vault put back sits out."""


def copy_over(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", target], check=True)


def status(fleet: Fleet) -> str:
    """What the running agent says of itself; the status that came with the copy is not its own."""
    until = time.monotonic() + DEADLINE
    while "(running)" not in (shown := command("agent", "status", fleet.configuration(BOTH)).stdout):
        assert time.monotonic() < until, shown
    return shown


def test_a_vault_put_back_sits_out_its_epoch_and_comes_back_in_a_later_one(tmp_path: Path) -> None:
    """It is a member and a participant; the copy was made while it ran."""
    with Fleet(tmp_path, policy=POLICY, rounds={"pause": 1.0}) as fleet:
        fleet.broker.start()
        with Witness(fleet) as witness:
            fleet.start(*fleet.everyone)
            first = fleet.wait_for(COORDINATOR, "round", outcome="applied")["round"]
            copy_over(fleet.state(BOTH), tmp_path / "copy")
            fleet.wait_for(BOTH, "answered", round=first + 1)
            fleet.kill(BOTH)
            copy_over(tmp_path / "copy", fleet.state(BOTH))
            since = fleet.mark()
            fleet.start(BOTH)
            told = fleet.wait_for(BOTH, "restored-vault", since)
            assert "put back from a copy" in told["why"]
            fleet.wait_for(BOTH, "connected", since)
            fleet.wait_for(COORDINATOR, "round", since, outcome="applied", recovered=[INDEX])
            assert "restored    this vault was put back from a copy; sits out" in status(fleet)
            fleet.wait_for(BOTH, "declined", since, that=lambda told: "put back from a copy" in told["why"])
            assert fleet.events(BOTH, "answered", since) == fleet.events(BOTH, "uploading", since) == []
            fleet.wait_for(BOTH, "ready", since, deadline=80)
            back = fleet.mark()
            fleet.wait_for(BOTH, "answered", back, deadline=60)
            fleet.wait_for(BOTH, "accepted", back)
            fleet.wait_for(COORDINATOR, "round", fleet.mark(), outcome="applied", recovered=[], uploads=6)
            witness.check()
            cards = [payloads for at, payloads in witness.seen("card").values() if at.device == INDEX]
            # Empty where a card was taken back.
            assert all(len(payloads - {b""}) == 1 for payloads in cards)
        assert fleet.stop(BOTH) == [0]
        restarted = fleet.mark()
        fleet.start(BOTH)
        fleet.wait_for(BOTH, "connected", restarted)
        assert fleet.events(BOTH, "restored-vault", restarted) == []


def test_a_ledger_put_back_is_refused_until_the_operator_vouches_for_it(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR)
        fleet.wait_for(COORDINATOR, "connected")
        assert fleet.stop(COORDINATOR) == [0]
        fleet.state(COORDINATOR).rename(tmp_path / "copy")
        copy_over(tmp_path / "copy", fleet.state(COORDINATOR))
        for _ in range(2):
            refused = command("coordinator", "run", fleet.configuration(COORDINATOR))
            assert refused.returncode == 2
            assert "this ledger was put back from a copy" in refused.stderr
            assert "hushfleet coordinator run --restored" in refused.stderr
        for options in (["--restored"], []):
            since = fleet.mark()
            fleet.start(COORDINATOR, options=options)
            fleet.wait_for(COORDINATOR, "connected", since)
            assert fleet.stop(COORDINATOR) == [0]
