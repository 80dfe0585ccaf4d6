"""What the next plan says: its kind, base, times, encoding and training (docs/protocol.md, 4). No I/O, no clock."""

from dataclasses import dataclass, field
from typing import Annotated

from coordinator.context import Context, Documents
from coordinator.encoding import Codec, Encoding, ServerOptimizer, check_optimizer, choose, statistics_encoding
from coordinator.epochs import Epoch
from coordinator.models import Models
from coordinator.statistics import Statistics
from coordinator.uploads import participants
from hushfleet.actions import Action
from hushfleet.configuration import Range
from hushfleet.wire.round import PLAIN, STATISTICS, TRAIN, Plan


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """How the coordinator runs its rounds. Times are whole seconds.

    Attributes:
        collect: from a plan's opening to its closing.
        answer: from the freeze until members that have not answered are recovered.
        recover: from there until the round is given up.
        enough: part of the participants that the plan takes whose uploads are enough to close early, 0 to 1.
        patience: seconds that stragglers get once enough arrived.
        pause: seconds between a result and the next plan.
        total: rounds of training to run for one model spec, however they end; 0 for no end.
        first: number of a new ledger's first round; above every round the devices have seen, if an older one is lost.
        sample: part of the participants that a plan takes, 0 to 1.
        steps, batch, rate, momentum, proximal: local training.
        codec: `plain`, 16 bits a parameter; or a profile of the rotated codec: `default`, about half a bit, `thrift`, a
            quarter, for fleets of up to 50 devices, `fast`, all coordinates and server momentum, for the fewest rounds.
        server_optimizer: what the server makes of the devices' mean update; `adam` with `plain` and `fast` only.
        clip: largest norm of an update; 0 for the policy's.
        statistics_every: rounds of training after which the fleet's readings and the model are described in a
            statistics round, the first one before any training, another after the last; 0 for none.
        evidence: keep one upload and the sum of the newest round of training, to show what a coordinator sees.
    """

    collect: Annotated[int, Range(1, 86_400)] = 600
    answer: Annotated[int, Range(1, 86_400)] = 30
    recover: Annotated[int, Range(1, 86_400)] = 60
    enough: Annotated[float, Range(0, 1)] = 1.0
    patience: Annotated[float, Range(0)] = 1.0
    pause: Annotated[float, Range(0)] = 0.0
    total: Annotated[int, Range(0)] = 0
    first: Annotated[int, Range(1)] = 1
    sample: Annotated[float, Range(0, 1)] = 1.0
    steps: Annotated[int, Range(1, 65_535)] = 20
    batch: Annotated[int, Range(1, 65_535)] = 32
    rate: Annotated[float, Range(0)] = 0.05
    momentum: Annotated[float, Range(0, 1)] = 0.9
    proximal: Annotated[float, Range(0)] = 0.0
    codec: Codec = "plain"
    server_optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    clip: Annotated[float, Range(0)] = 0.0
    statistics_every: Annotated[int, Range(0)] = 0
    evidence: bool = False

    def __post_init__(self) -> None:
        check_optimizer(self.server_optimizer, self.codec)


class Planning:
    """How the next plan comes about, from documents, settings, newest model and what statistics are due."""

    def __init__(self, context: Context, settings: RoundSettings, models: Models, statistics: Statistics) -> None:
        self._context, self._settings, self._models, self._statistics = context, settings, models, statistics

    def all_run(self, model_hash: bytes, done: int) -> bool:
        """Whether a model that has had so many rounds of training needs no more, of any kind."""
        return self._trained(done) and not self._statistics.is_due(model_hash, done, last=True)

    def _trained(self, done: int) -> bool:
        return bool(self._settings.total) and done >= self._settings.total

    def next_plan(
        self, documents: Documents, epoch: Epoch, number: int, done: int, now: float
    ) -> tuple[Plan, list[Action]]:
        """The plan of round `number`, after `done` rounds of training, and what is to be done with it."""
        settings, start = self._settings, int(now)
        base, base_hash = self._models.current(documents.model, documents.model_hash)
        describes = self._statistics.is_due(documents.model_hash, done, self._trained(done))
        encoding, actions = self._describing(documents, done) if describes else self._training(documents)
        closes = start + settings.collect
        plan = Plan(
            sender=self._context.index,
            round=number,
            kind=STATISTICS if describes else TRAIN,
            model=documents.model_hash,
            base=base,
            base_hash=base_hash,
            roster=documents.roster_hash,
            policy=documents.policy_hash,
            epoch=epoch.transcript.epoch,
            transcript=epoch.hash,
            points=epoch.round_points(number),
            opens=start,
            closes=closes,
            until=min(closes + settings.answer + settings.recover, epoch.transcript.not_after),
            sample=round(settings.sample * 2**32),
            grouped=0,
            codec=encoding.codec,
            bits=encoding.bits,
            coords=encoding.coords,
            keep=encoding.keep,
            clip=encoding.clip,
            step=encoding.step,
            seed=self._context.draw(32),
            noise=0.0,
            tail=int(describes),
            steps=0 if describes else settings.steps,
            batch=0 if describes else settings.batch,
            rate=0.0 if describes else settings.rate,
            momentum=0.0 if describes else settings.momentum,
            proximal=0.0 if describes else settings.proximal,
        )
        return plan, actions

    def _training(self, documents: Documents) -> tuple[Encoding, list[Action]]:
        """The encoding of a round of training, and what is to be done with it."""
        encoding, actions = self.encoding(documents)
        return encoding, [*actions, *(self._models.offer_base() if encoding.codec == PLAIN else [])]

    def encoding(self, documents: Documents, anew: bool = False) -> tuple[Encoding, list[Action]]:
        """The encoding of updates from now on, with the first step again if `anew`, and what is to be saved with it."""
        return choose(
            self._context.store,
            self._settings.codec,
            self._settings.clip or documents.policy.clip,
            self._expected(documents),
            documents.policy,
            documents.model,
            documents.model_hash,
            anew,
        )

    def _describing(self, documents: Documents, done: int) -> tuple[Encoding, list[Action]]:
        """The same of a statistics round."""
        actions = self._statistics.tried(documents.model_hash, done)
        return statistics_encoding(self._statistics.schema(), documents.policy), actions

    def _expected(self, documents: Documents) -> int:
        """Uploads to make room for in a sum."""
        sampled = round(len(participants(documents.roster)) * self._settings.sample)
        policy = documents.policy
        return max(1, min(max(sampled, policy.smallest_survivor_set), policy.largest_survivor_set))
