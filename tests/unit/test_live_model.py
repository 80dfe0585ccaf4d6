"""How far back a device's model goes: never without a result that says so, and then as far as the policy allows."""

from dataclasses import replace

import golden_fleet
import golden_round
import pytest
from rotated_reference import name_of

from edge_agent.live_model import RECORD, RESULTS, BehindError, LiveModel, Wanted
from hushfleet.actions import Erase
from hushfleet.errors import RefusedError
from hushfleet.learning.layers import initial_flat
from hushfleet.scratch import ScratchStore
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import read
from hushfleet.wire.round import ABORTED, APPLIED, ROLLBACK, ROTATED, STATISTICS, VOID, Metrics, Plan, Result, bitmap

DOCUMENTS = golden_fleet.documents().documents
POLICY, SPEC = read(DOCUMENTS["policy"], Policy), read(DOCUMENTS["model"], ModelSpec)


def result_of(number: int, outcome: int, version: int) -> Result:
    applied = outcome == APPLIED
    base = version - applied + (1 if outcome == ROLLBACK else 0)
    return Result(
        0, name_of(number), number, outcome, 0, base, name_of(base), version, name_of(version),
        name_of(1) if applied else bytes(32), bitmap([1]) if applied else b"", 1.0, Metrics(0, 0.0, 0, 0.0, 0, 0.0),
    )  # fmt: skip


def following(version: int) -> LiveModel:
    """A device that knows of this version and has not fetched it."""
    live = LiveModel(ScratchStore())
    live.use(SPEC, name_of(0))
    live.follow(result_of(10, APPLIED, version), POLICY, version)
    return live


@pytest.mark.parametrize("outcome", [APPLIED, ABORTED, VOID])
def test_no_result_but_a_rollback_goes_behind_the_newest_model_known(outcome: int) -> None:
    live = following(8)
    with pytest.raises(BehindError, match="from version 8 back to 7"):
        live.follow(result_of(11, outcome, 7), POLICY, 8)
    live.follow(result_of(11, outcome, 8), POLICY, 8)


def test_a_rollback_goes_back_as_far_as_the_policy_allows_and_on_from_there() -> None:
    assert POLICY.rollback_versions == 3
    live = following(8)
    with pytest.raises(RefusedError, match="from version 8 back to 4"):
        live.follow(result_of(11, ROLLBACK, 4), POLICY, 8)
    live.follow(result_of(11, ROLLBACK, 5), POLICY, 8)
    live.follow(result_of(12, APPLIED, 6), POLICY, 8)
    with pytest.raises(RefusedError, match="the plan's base 5 is older"):
        live.toward(5, name_of(5))


def test_rollbacks_one_after_the_other_go_no_further_than_one() -> None:
    live = following(8)
    live.follow(result_of(11, ROLLBACK, 6), POLICY, 8)
    with pytest.raises(RefusedError, match="from version 8 back to 4"):
        live.follow(result_of(12, ROLLBACK, 4), POLICY, 8)
    live.follow(result_of(12, ROLLBACK, 5), POLICY, 8)


def test_a_rollback_from_further_than_the_policy_allows_moves_not_even_whom_it_takes_forward() -> None:
    live = following(2)
    far = replace(result_of(11, ROLLBACK, 4), base=8)
    with pytest.raises(RefusedError, match="from version 8 back to 4"):
        live.follow(far, POLICY, 2)


@pytest.mark.parametrize(("held", "erased"), [(8, [Erase(RECORD)]), (5, []), (3, [])])
def test_the_record_of_a_model_that_is_left_goes_with_the_rollback(held: int, erased: list[Erase]) -> None:
    """After a restart it would stand for the newest model known, and no result before its version be followed."""
    live = following(3)
    live._move(held, name_of(held), initial_flat(SPEC.layers, SPEC.init))
    assert live.follow(result_of(11, ROLLBACK, 5), POLICY, 8) == erased


def test_of_two_results_that_make_a_version_the_later_rounds_counts() -> None:
    live = following(0)
    for result in (result_of(9, APPLIED, 6), result_of(7, APPLIED, 6)):
        live.note(result)
    assert live.result_of(name_of(9))
    assert not live.result_of(name_of(7))


def test_a_device_that_knows_only_a_statistics_plan_fetches_the_version_gone_back_to() -> None:
    live = following(8)
    live.expect(replace(read(golden_round.played().plan, Plan), kind=STATISTICS))
    assert live.wanted(SPEC) is None
    back = result_of(11, ROLLBACK, 6)
    live.note(back)
    live.follow(back, POLICY, 8)
    assert live.wanted(SPEC) == Wanted("snapshot", 6, 12 * SPEC.parameters())


def test_a_device_at_the_key_frame_asks_for_the_result_that_it_lacks() -> None:
    live = following(18)
    live._move(16, name_of(16), initial_flat(SPEC.layers, SPEC.init))
    live.expect(replace(read(golden_round.played().plan, Plan), codec=ROTATED))
    for result in (result_of(8, APPLIED, 16), result_of(10, APPLIED, 18)):
        live.note(result)
    assert live.wanted(SPEC) == Wanted(RESULTS, 18, 0)
