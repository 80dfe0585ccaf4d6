"""Federated averaging with the sums of each scheme, in memory: what `bytes_to_accuracy.py` lets learn.

Masks are left out, since they cancel exactly. What is this project's is the code of its services: encoding and step are
chosen as the coordinator does, devices keep their residuals, sums are opened and replayed to the next version.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count
from typing import Protocol

import numpy as np
from bytes_tasks import Task
from bytes_training import train_together
from nacl.bindings import randombytes_buf_deterministic
from numpy.typing import NDArray

from coordinator.encoding import Codec, ServerOptimizer, ServerStep, choose, next_step, server_step
from edge_agent.residual import Residual
from hushfleet import codec
from hushfleet.actions import Action, Draw, Erase, Save
from hushfleet.encoding.grid import Grid
from hushfleet.hashing import digest
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.local import LocalResult, evaluate
from hushfleet.replay import replay
from hushfleet.rotated import encode_rotated, open_rotated
from hushfleet.scratch import ScratchStore
from hushfleet.secagg.residues import Vector, add_into
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import Frame
from hushfleet.wire.round import APPLIED, CHECKSUM, PLAIN, VOID, Delta, Metrics, Plan, Result, bitmap
from planner.messages import Messages

Flat = NDArray[np.float32]


class Sums(Protocol):
    """One scheme's way from a model and the devices' training to the next model."""

    def apply(self, flat: Flat, trained: Sequence[LocalResult], number: int) -> Flat:
        """The model after round `number`, counted from 1: float32, shape (d,)."""


class Averages:
    """Plain averaging in float32."""

    def apply(self, flat: Flat, trained: Sequence[LocalResult], number: int) -> Flat:
        """The model plus the mean delta."""
        return flat + np.mean([one.delta for one in trained], axis=0, dtype=np.float32)


class FlowerSums:
    """Flower's SecAgg+ with its own settings: whole models, clipped to ±8, rounded at random to 2^22 levels.

    Source: flwr 1.42.0, `secaggplus_workflow.py` and `secure_aggregation/quantization.py`. Every device counts with the
    workflow's largest weight, which loses least.
    """

    CLIP = 8.0
    LEVELS = 1 << 22

    def __init__(self, name: str) -> None:
        self._draw = _draws(name)

    def apply(self, flat: Flat, trained: Sequence[LocalResult], number: int) -> Flat:
        """The mean of the devices' rounded models."""
        scale = (self.LEVELS - 1) / (2 * self.CLIP)
        total = np.zeros(len(flat), np.int64)
        for one in trained:
            model = np.clip((flat + one.delta).astype(np.float64), -self.CLIP, self.CLIP)
            uniform = np.frombuffer(self._draw(4 * len(flat)), "<u4") * 2.0**-32
            total += np.floor(scale * (model + self.CLIP) + uniform).astype(np.int64)
        return (total / scale / len(trained) - self.CLIP).astype(np.float32)


class HushfleetSums:
    """This project's sums.

    Attributes:
        void: rounds that were lost to wrapping so far.
    """

    def __init__(self, task: Task, profile: Codec, messages: Messages, server: ServerStep | None = None) -> None:
        """`messages` are those of a fleet of as many devices with this model: plan and documents come from there;
        `server` is the server's step in place of the profile's."""
        self._server = server
        self.void = 0
        self._task, self._profile, self._draw = task, profile, _draws(task.name)
        self._policy = Policy.from_body(_body(messages.documents["policy"]))
        self._model = ModelSpec.from_body(_body(messages.documents["model"]))
        self._plan = Plan.from_body(_body(messages.plan))
        self._result = Result.from_body(_body(messages.result))
        self._store = ScratchStore()
        self._stores = [ScratchStore() for _ in task.devices]
        self._residuals = [Residual(store, index) for index, store in enumerate(self._stores, start=1)]
        self._state = np.zeros(0, np.float32)
        self._version = 0

    def apply(
        self, flat: Flat, trained: Sequence[LocalResult], number: int, present: Sequence[int] | None = None
    ) -> Flat:
        """The next version, or the same one again if too many coordinates wrapped.

        `present` are the places of the devices that trained, ascending; all of them if nothing is said.
        """
        places = range(len(self._stores)) if present is None else present
        indices = [place + 1 for place in places]
        if not self._version:
            self._state = flat
        encoding, actions = choose(
            self._store, self._profile, self._task.clip, len(trained), self._policy, self._model, self._plan.model
        )
        _carry_out(actions, self._store)
        plan = replace(self._plan, round=number, **asdict(encoding))
        plan_hash = digest("body", self._task.name.encode(), plan.to_body())
        seed = digest("chks", plan_hash)
        opened: codec.Opened | None
        if plan.codec == PLAIN:
            opened = self._plain(plan, trained, seed)
        else:
            opened = self._rotated(plan, plan_hash, trained, places, seed)
        if opened is None:
            self.void += 1
            result = replace(self._result, plan=plan_hash, outcome=VOID, reason=CHECKSUM)
        else:
            self._replay(plan, plan_hash, opened, indices)
            result = replace(self._result, plan=plan_hash, outcome=APPLIED, included=bitmap(indices))
        metrics = Metrics(**asdict(opened.metrics)) if opened else self._result.metrics
        weight = opened.weight / codec.FIXED_POINT if opened else 0.0
        _, actions = next_step(self._store, plan, result.outcome, result.reason, metrics, weight)
        _carry_out(actions, self._store)
        for residual, store in zip(self._residuals, self._stores, strict=True):
            _carry_out(residual.on_result(result), store)
        return self._state[: len(flat)]

    def _plain(self, plan: Plan, trained: Sequence[LocalResult], seed: bytes) -> codec.Opened:
        largest = self._policy.largest_survivor_set
        total = Vector.zeros(plan.coords, plan.bits, codec.lanes(0))
        for one in trained:
            add_into(
                total,
                codec.encode_plain(
                    one.delta,
                    1.0,
                    _report(one),
                    clip=plan.clip,
                    step=plan.step,
                    largest_survivor_set=largest,
                    checksum_seed=seed,
                    draw=self._draw,
                ),
            )
        return codec.open_plain(
            total,
            len(trained),
            coords=plan.coords,
            clip=plan.clip,
            step=plan.step,
            largest_weight=1.0,
            checksum_seed=seed,
        )

    def _rotated(
        self, plan: Plan, plan_hash: bytes, trained: Sequence[LocalResult], places: Sequence[int], seed: bytes
    ) -> codec.Opened | None:
        """The opened sum; None if too many coordinates wrapped."""
        grid = Grid(self._task.parameters, plan.coords, plan_hash)
        total = Vector.zeros(plan.coords, plan.bits, codec.lanes(0))
        for place, one in zip(places, trained, strict=True):
            residual, store = self._residuals[place], self._stores[place]
            _carry_out(residual.prepare(plan, plan.round - 1, None), store)
            before = residual.vector()
            whole = one.delta if before is None else one.delta + before
            rotated = grid.rotated(whole)
            _carry_out(residual.keep(plan, plan_hash, whole, rotated), store)
            vector = encode_rotated(
                rotated,
                1.0,
                _report(one),
                grid=grid,
                index=place + 1,
                bits=plan.bits,
                clip=plan.clip,
                step=plan.step,
                checksum_seed=seed,
            )
            add_into(total, vector)
        try:
            return open_rotated(
                total,
                [place + 1 for place in places],
                grid=grid,
                bits=plan.bits,
                clip=plan.clip,
                step=plan.step,
                largest_weight=1.0,
                checksum_seed=seed,
            )
        except codec.OpeningError as error:
            if error.reason != codec.OpeningReason.CHECKSUM:
                raise
            return None

    def _replay(self, plan: Plan, plan_hash: bytes, opened: codec.Opened, indices: Sequence[int]) -> None:
        self._version += 1
        server = self._server or server_step(plan, ServerOptimizer())
        body = codec.pack_opened(opened.residues, opened.bits)
        delta = Delta(
            0,
            self._version,
            plan_hash,
            opened.bits,
            body,
            plan.step,
            opened.weight,
            server.rate,
            plan.codec,
            server.momentum,
            server.adam,
        )
        self._state = replay(self._state, delta, indices, self._task.parameters, plan.clip).state


def accuracies(task: Task, sums: Sums, rounds: int) -> Iterator[float]:
    """Accuracy on the test rows after each round."""
    flat = initial_flat(task.layers, digest("seed", task.name.encode()))
    for number in range(1, rounds + 1):
        seeds = [f"{task.name}, {number}, {index}".encode() for index in range(len(task.devices))]
        trained = train_together(flat, task, seeds)
        flat = sums.apply(flat, trained, number)
        yield evaluate(flat, task.layers, task.test.x, task.test.y, head="softmax").correct / len(task.test.y)


def _report(one: LocalResult) -> codec.LocalReport:
    return codec.LocalReport(one.examples, one.training_loss_sum, 0, 0.0, 0)


def _carry_out(actions: Sequence[Action], store: ScratchStore) -> None:
    for action in actions:
        if isinstance(action, Save):
            store.save(action.key, action.value)
        elif isinstance(action, Erase):
            store.erase(action.key)


def _body(frame: bytes) -> bytes:
    return Frame.from_bytes(frame, len(frame)).body


def _draws(name: str) -> Draw:
    """Bytes for rounding: the same in every run, and no secret."""
    counter = count()
    return lambda size: randombytes_buf_deterministic(
        size, digest("seed", name.encode(), next(counter).to_bytes(8, "little"))
    )
