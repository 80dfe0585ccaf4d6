"""What events ask for is done once all that wait are committed: a later one may have taken its ground away."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from signed_fleet import LAYERS, START, seeded
from world import RoundSettings, World, make_fleet

from edge_agent.agent import Agent
from edge_agent.work import Ended, Score, Train


class Asked(World):
    """Remembers what a device asked its runner for."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.asked: list[Any] = []
        super().__init__(*arguments, **named)

    def _execute(self, index: int, action: Any) -> None:
        if index == 5 and isinstance(action, Train | Score | Ended):
            self.asked.append(action)
        super()._execute(index, action)


class Bench:
    """Refuses to work."""

    def train(self, work: Train, *rest: Any) -> None:
        raise AssertionError(f"the model of round {work.plan.round} is another one now")

    def start(self, action: Score, *rest: Any) -> None:
        raise AssertionError(f"version {action.version} is of another model")


@pytest.mark.parametrize("fetched", [False, True], ids=["a manifest", "documents"])
def test_work_for_a_model_that_documents_in_the_same_commit_replaced_is_not_begun(fetched: bool) -> None:
    world = Asked(make_fleet(3, 4), rounds=RoundSettings(collect=30, answer=8, recover=30, total=3))
    world.run(world.rounds_ended(2))
    world.run_for(1)
    model = world.keys.owner.model_spec("another", LAYERS, seeded("another")(32), version=2, issued=START)
    world.keys = world.keys.next_version(2, model=model)
    device = world.device(5)
    device.on_message(device.context.topics.manifest(), world.keys.signed().manifest, world.now)
    assert device.context.trust.pair == (1, 2)
    assert device.context.trust.model is None
    if fetched:
        device.context.trust.offer_document("model", model.to_bytes())
        assert device.context.trust.model is not None
    agent, told = object.__new__(Agent), list[Ended]()
    cast(Any, agent)._service = SimpleNamespace(runner=SimpleNamespace(role=device))
    cast(Any, agent)._bench = cast(Any, agent)._scoring = Bench()
    cast(Any, agent)._tell = told.append
    cast(Any, agent)._decisions = None
    assert {type(action) for action in world.asked} == {Train, Score, Ended}
    for action in world.asked:
        agent._perform(action)
    assert told == [action for action in world.asked if isinstance(action, Ended)]
