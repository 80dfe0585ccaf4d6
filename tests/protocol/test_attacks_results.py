"""Results and deltas of others, old ones, and those of a coordinator that lies: no model follows them."""

from dataclasses import replace

import pytest
from wiretap import LIAR, SETTINGS, VICTIM, Fleet
from witness import Witness

from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Delta


def test_results_of_others_and_of_other_plans_move_no_model() -> None:
    fleet = Fleet()
    fleet.world.run(fleet.world.rounds_ended(1))
    fleet.world.run(lambda world: world.device(VICTIM).seen.round == 2)
    honest = fleet.result(1)
    ahead = replace(honest, round=2, base=1, base_hash=honest.version_hash, version=2, version_hash=bytes(32))
    for payload, why in (
        (fleet.signed(replace(ahead, sender=LIAR)), "not signed by device"),
        (fleet.signed(ahead, signer=0), "another plan than the one verified"),
    ):
        fleet.inject(fleet.topics.result(2), payload)
        fleet.world.run_for(0.02)
        assert why in fleet.world.why(VICTIM)[-1]
    assert fleet.world.device(VICTIM).live.version == 1
    assert fleet.world.device(VICTIM).seen.round == 2
    fleet.world.run(fleet.world.rounds_ended(2))
    Witness(fleet.world).check_sums("replay")


def test_an_old_result_brought_back_takes_no_model_back() -> None:
    fleet = Fleet()
    fleet.world.run(fleet.world.rounds_ended(1))
    old = fleet.world.broker.retained[fleet.topics.result(1)]
    fleet.world.run(fleet.world.rounds_ended(2))
    fleet.world.run_for(1)
    for restart in (False, True):
        if restart:
            fleet.world.crash(VICTIM)
            fleet.world.start(VICTIM)
            fleet.world.run_for(1)
        fleet.inject(fleet.topics.result(1), old)
        fleet.world.run_for(1)
        device = fleet.world.device(VICTIM)
        assert (device.live.version, device.seen.round) == (2, 2)
        assert device.live.at(2, fleet.result(2).version_hash)


@pytest.mark.parametrize("name", ["an old one", "too long", "to another model"])
def test_a_lying_coordinators_delta_is_not_taken(name: str) -> None:
    fleet = Fleet(rounds=replace(SETTINGS, total=1), chunk=4096)
    fleet.world.run(fleet.world.rounds_ended(1))
    fleet.world.run_for(1)
    honest = fleet.result(1)
    delta = read(Frame.from_bytes(fleet.world.broker.retained[fleet.topics.model(1, "delta", 0)]), Delta)
    # The longest body whose padding is 0: its norm alone tells.
    longest = b"".join(byte * 272 + bytes(48) for byte in (b"\xff", b"\x7f"))
    forged, why = {
        "an old one": (delta, "not the delta that the result names"),
        "too long": (replace(delta, version=2, body=longest), "longer than so many clipped updates can make it"),
        "to another model": (replace(delta, version=2), "does not lead to the model that the result names"),
    }[name]
    frame = fleet.signed(forged, signer=0)
    named = bytes(range(32)) if name == "an old one" else Frame.from_bytes(frame).hash(fleet.keys.fleet)
    result = replace(
        honest,
        round=2,
        plan=bytes(32),
        base=1,
        base_hash=honest.version_hash,
        version=2,
        version_hash=bytes(32),
        delta=named,
    )
    fleet.inject(fleet.topics.model(2, "delta", 0), frame, True)
    fleet.inject(fleet.topics.result(2), fleet.signed(result, signer=0))
    fleet.world.run_for(5)
    assert fleet.world.device(VICTIM).live.at(1, honest.version_hash)
    assert any(why in said for said in fleet.world.why(VICTIM))
