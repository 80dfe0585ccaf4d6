"""How far back a device's model goes: never without a result that says so, and then as far as the policy allows."""

import golden_fleet
import pytest
from rotated_reference import name_of

from edge_agent.live_model import LiveModel
from hushfleet.errors import RefusedError
from hushfleet.scratch import ScratchStore
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import read
from hushfleet.wire.round import ABORTED, APPLIED, ROLLBACK, VOID, Metrics, Result, bitmap

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
    live.follow(result_of(10, APPLIED, version), POLICY)
    return live


@pytest.mark.parametrize("outcome", [APPLIED, ABORTED, VOID])
def test_no_result_but_a_rollback_goes_behind_the_newest_model_known(outcome: int) -> None:
    live = following(8)
    with pytest.raises(RefusedError, match="from version 8 back to 7"):
        live.follow(result_of(11, outcome, 7), POLICY)
    live.follow(result_of(11, outcome, 8), POLICY)


def test_a_rollback_goes_back_as_far_as_the_policy_allows_and_on_from_there() -> None:
    assert POLICY.rollback_versions == 3
    live = following(8)
    with pytest.raises(RefusedError, match="from version 8 back to 4"):
        live.follow(result_of(11, ROLLBACK, 4), POLICY)
    live.follow(result_of(11, ROLLBACK, 5), POLICY)
    live.follow(result_of(12, APPLIED, 6), POLICY)
    with pytest.raises(RefusedError, match="the plan's base 5 is older"):
        live.toward(5, name_of(5))
