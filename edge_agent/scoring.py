"""A new version on the device's own rows: how it does there, whether trained on it does better, and which is used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_agent.decisions import Decisions
from edge_agent.inference import Model
from edge_agent.sources.rows import Head
from edge_agent.work import Score
from edge_agent.work_bench import WorkBench
from hushfleet.actions import Draw
from hushfleet.journal import Journal
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.round import Plan
from hushfleet.wire.schema import Schema

if TYPE_CHECKING:
    from edge_agent.personal import Tuned
    from hushfleet.learning.local import Evaluation


@dataclass(frozen=True, slots=True)
class _Version:
    model: Model
    fitted: bool
    plan: Plan | None
    spec: ModelSpec
    schema: Schema | None


@dataclass(slots=True)
class Scoring:
    """Scores versions and puts them to work; nothing of it is sent to anybody.

    Attributes:
        bench: where it is computed.
        journal: told of every score, and of what fine-tuning came to.
        tunes: whether to train on from a version, with a plan's numbers, for this device's own decisions now.
        draw: the source of the rows' order.
        decisions: where versions are used, if they are.
    """

    bench: WorkBench
    journal: Journal
    tunes: Callable[[Plan, ModelSpec], bool]
    draw: Draw
    decisions: Decisions | None = None
    _score: dict[str, object] = field(default_factory=dict)
    _personal: dict[str, object] = field(default_factory=dict)

    def view(self) -> dict[str, object]:
        """For the status."""
        return {"score": self._score or None, "personal": self._personal or None}

    def start(self, action: Score, spec: ModelSpec, schema: Schema | None) -> None:
        """Score a version in the background, beside the one at work."""
        model = Model(action.version, action.flat.copy(), spec.layers)
        version = _Version(model, action.fitted, action.plan, spec, schema)
        at_work = self.decisions.at_work() if self.decisions else None
        flats = [version.model.flat]
        if at_work and at_work.layers == spec.layers:
            flats.append(at_work.flat)
        self.bench.score(flats, spec, schema, lambda found, head: self._scored(version, found, head))

    def _scored(self, version: _Version, found: Sequence["Evaluation"], head: Head) -> None:
        # What is made of a version before this one is not to be put to work after it.
        self.bench.give_up_tuning()
        losses = [evaluation.loss_sum / evaluation.evaluated for evaluation in found]
        if found:
            rows, classes = found[0].evaluated, head == "softmax"
            self._score = {
                "version": version.model.version,
                "rows": rows,
                "accuracy": found[0].correct / rows if classes else None,
                "error": None if classes else found[0].error_sum / rows,
                "loss": losses[0],
            }
            self.journal.write("score", **self._score)
        if self.decisions is None or version.schema is None:
            return
        at_work, plan = self.decisions.at_work(), version.plan
        if not found or plan is None or not self.tunes(plan, version.spec):
            if version.fitted:
                self.decisions.use(version.model, version.schema, losses)
            return
        if version.fitted and (at_work is None or not at_work.personalised):
            # A version of the device's own goes on meanwhile instead: answers would change twice.
            self.decisions.use(version.model, version.schema, losses)
            if self.decisions.at_work() is version.model:
                losses = [losses[0], losses[0]]
        self.bench.tune(
            version.model.flat,
            version.spec,
            version.schema,
            plan,
            self.draw(32),
            lambda tuned: self._tuned(version, losses, tuned),
        )

    def _tuned(self, version: _Version, losses: Sequence[float], tuned: "Tuned | str") -> None:
        """Use the device's own version if the rows kept aside speak for it, else the fleet's.

        Args:
            losses: mean losses on those rows, of the fleet's version and of the one at work.
        """
        assert self.decisions is not None
        assert version.schema is not None
        model = version.model
        if isinstance(tuned, str):
            self.journal.write("not-personalised", version=model.version, why=tuned)
        else:
            said = {"version": model.version, "rows": tuned.rows, "own": tuned.own, "fleet": tuned.fleet}
            self._personal = {**said, "used": tuned.better}
            self.journal.write("personalised", **self._personal)
            if tuned.better:
                model, losses = replace(model, flat=tuned.flat, personalised=True), [tuned.own, *losses[1:]]
        if model is not self.decisions.at_work() and (version.fitted or model.personalised):
            self.decisions.use(model, version.schema, losses)
