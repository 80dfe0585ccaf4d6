"""A participant's residual against an exact model, through crashes, skipped rounds and results that are gone."""

from dataclasses import dataclass, field, replace
from typing import Any

import golden_round
import numpy as np
from codec_reference import any_delta
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rotated_reference import name_of

from edge_agent.residual import LONGEST_AGE, Residual
from hushfleet.actions import Action, Erase, Save
from hushfleet.encoding.grid import Grid
from hushfleet.scratch import ScratchStore
from hushfleet.wire.round import ABORTED, APPLIED, ROLLBACK, VOID, Metrics, Plan, Result, bitmap

PARAMETERS, COORDS, INDEX = 200, 64, 9
PLAN = Plan.from_body(golden_round.played().plan.body)
NOTHING = Metrics(0, 0.0, 0, 0.0, 0, 0.0)

Floats = NDArray[np.float32]


@dataclass
class Model:
    """What must be kept, written down as directly as possible."""

    residual: Floats | None = None
    whole: Floats | None = None
    plan: bytes = b""
    base: bytes = b""
    newest: int = 0

    def included(self) -> None:
        assert self.whole is not None
        grid = Grid(PARAMETERS, COORDS, self.plan)
        self.residual, self.whole = grid.dropped(grid.rotated(self.whole)), None

    def left_out(self) -> None:
        self.residual, self.whole = self.whole, None


@dataclass
class Device:
    """The residual under test and its store; after a crash it is built anew."""

    store: ScratchStore = field(default_factory=ScratchStore)
    model: Model = field(default_factory=Model)

    def __post_init__(self) -> None:
        self.residual = Residual(self.store, INDEX)

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Save):
                self.store.save(action.key, action.value)
            elif isinstance(action, Erase):
                self.store.erase(action.key)

    def upload(self, plan: Plan, plan_hash: bytes, delta: Floats, known: Result | None, *, survives: bool) -> None:
        """Encode an update; with `survives` False the machine dies before the records of this event are there."""
        actions = self.residual.prepare(plan, self.model.newest, known)
        before = self.residual.vector()
        whole = delta if before is None else delta + before
        actions += self.residual.keep(plan, plan_hash, whole, Grid(PARAMETERS, COORDS, plan_hash).rotated(whole))
        if not survives:
            self.residual = Residual(self.store, INDEX)
            return
        self.do(actions)
        model = self.model
        if model.whole is not None:
            if known is not None and known.plan == model.plan:
                self._take(known)
            elif plan.base_hash != model.base:
                model.included()
        model.whole = None
        if plan.round > model.newest + LONGEST_AGE:
            model.residual = None
        expected = delta if model.residual is None else delta + model.residual
        assert np.array_equal(whole, expected)
        model.whole, model.plan, model.base, model.newest = expected, plan_hash, plan.base_hash, plan.round

    def hears(self, result: Result, *, survives: bool) -> None:
        """Take a result; a machine that dies in it hears it again."""
        actions = self.residual.on_result(result)
        if not survives:
            self.residual = Residual(self.store, INDEX)
            actions = self.residual.on_result(result)
        self.do(actions)
        model = self.model
        if result.outcome == ROLLBACK:
            model.residual = model.whole = None
        elif model.whole is not None and result.plan == model.plan:
            self._take(result)

    def _take(self, result: Result) -> None:
        if result.outcome != APPLIED:
            self.model.whole = None
        elif result.includes(INDEX):
            self.model.included()
        else:
            self.model.left_out()

    def check(self) -> None:
        for residual in (self.residual, Residual(self.store, INDEX)):
            found = residual.vector()
            assert (found is None) == (self.model.residual is None)
            if found is not None and self.model.residual is not None:
                assert np.array_equal(found, self.model.residual)
            assert bool(residual.pending()) == (self.model.whole is not None)


def plan_of(number: int, base: int, model: int = 0) -> Plan:
    return replace(PLAN, round=number, base_hash=name_of(1000 + base), model=name_of(5000 + model), coords=COORDS)


def result_of(number: int, plan_hash: bytes, outcome: int, included: bool) -> Result:
    delta = name_of(1) if outcome == APPLIED else bytes(32)
    here = bitmap([INDEX, 12] if included else [3, 12]) if outcome == APPLIED else b""
    return Result(
        0, plan_hash, number, outcome, 0, 0, bytes(32), int(outcome == APPLIED), bytes(32), delta, here, 1.0, NOTHING
    )


steps = st.fixed_dictionaries(
    {
        "upload": st.booleans(),
        "survives": st.booleans(),
        "outcome": st.sampled_from([APPLIED, APPLIED, APPLIED, ABORTED, VOID]),
        "included": st.booleans(),
        "heard": st.sampled_from(["at once", "before the next upload", "never"]),
        "skip": st.sampled_from([1, 1, 1, 2, 19, 20, 21, 30]),
        "rollback": st.integers(0, 15).map(lambda chance: chance == 0),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=12))
def test_residuals_are_what_the_exact_model_says(script: list[dict[str, Any]]) -> None:
    device, number, base = Device(), 1, 0
    late: Result | None = None
    for at, step in enumerate(script):
        number += step["skip"]
        plan_hash = name_of(number)
        uploaded = step["upload"]
        if uploaded:
            delta = any_delta(at, PARAMETERS, 0.1)
            if not step["survives"]:
                device.upload(plan_of(number, base), plan_hash, delta, late, survives=False)
                device.check()
            device.upload(plan_of(number, base), plan_hash, delta, late, survives=True)
            late = None
        device.check()
        result = result_of(number, plan_hash, step["outcome"], uploaded and step["included"])
        if step["heard"] == "at once":
            device.hears(result, survives=step["survives"])
            device.hears(result, survives=True)
        elif step["heard"] == "before the next upload" and uploaded and step["outcome"] == APPLIED:
            late = result
        base += step["outcome"] == APPLIED
        if step["rollback"]:
            device.hears(result_of(number + 1, name_of(number + 1), ROLLBACK, False), survives=step["survives"])
            number, base, late = number + 1, base + 1, None
        device.check()


def test_another_model_spec_begins_without_a_residual() -> None:
    device = Device()
    delta = any_delta(1, PARAMETERS, 0.1)
    device.upload(plan_of(1, 0), name_of(1), delta, None, survives=True)
    device.hears(result_of(1, name_of(1), APPLIED, False), survives=True)
    assert device.residual.vector() is not None
    device.do(device.residual.prepare(plan_of(2, 0, model=1), 1, None))
    assert device.residual.vector() is None
    assert dict(device.store.scan("participant/")) == {}


def test_when_everything_is_sent_nothing_is_kept() -> None:
    device = Device()
    plan = replace(plan_of(1, 0), coords=PARAMETERS)
    delta = any_delta(1, PARAMETERS)
    device.do(device.residual.keep(plan, name_of(1), delta, Grid(PARAMETERS, COORDS, name_of(1)).rotated(delta)))
    device.do(device.residual.on_result(result_of(1, name_of(1), APPLIED, True)))
    assert dict(device.store.scan("participant/")) == {}
