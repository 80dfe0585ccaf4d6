"""Training and scoring on the device's own rows, beside the roles: one job at a time on a thread of its own."""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from edge_agent.sources.rows import Head, LocalData, Source
from edge_agent.work import Describe, Train
from hushfleet.errors import ConfigurationError, HushfleetError
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_agent.personal import Tuned
    from edge_agent.training.choice import Wanted
    from edge_agent.training.numpy_trainer import Trainer, TrainingNumbers
    from hushfleet.codec import LocalReport
    from hushfleet.learning.local import Evaluation
    from hushfleet.wire.layers import Layer

Found = TypeVar("Found")


class WorkBench:
    """A device's trainer on its source.

    Args:
        source: the device's rows; None for a device that only serves in committees.
        wanted: the trainer of the settings.
        chosen: is told, on the bench's thread, which trainer a model has got, and why.
        balanced: whether every class among the rows gets as many places in the batches.
    """

    def __init__(
        self,
        source: Source | None,
        wanted: "Wanted" = "auto",
        chosen: Callable[[str, str], None] = lambda name, why: None,
        balanced: bool = False,
    ) -> None:
        self._source, self._wanted, self._chosen, self._balanced = source, wanted, chosen, balanced
        self._trainer: tuple[tuple[Layer, ...], Head, Trainer] | None = None
        self._tuning = 0
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # Nobody waits for training under way when the process is told to end: it would take as long as it takes.
        threading.Thread(target=self._work, name="training", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            # Each job says itself what went wrong.
            with suppress(Exception):
                job()

    def rows(self, model: ModelSpec, schema: Schema | None) -> LocalData:
        """The rows as they are now, for this model.

        Raises:
            ConfigurationError: there is no source, or it cannot be read, or does not fit the model.
        """
        return self._present().read(model, schema)

    def _present(self) -> Source:
        if self._source is None:
            raise ConfigurationError("this device has neither [source] nor [sensors]; without one it cannot train")
        return self._source

    def trainer(self, model: ModelSpec, head: Head) -> "Trainer":
        """The trainer for this model, chosen and made when it is first asked for, and kept until another model is."""
        from edge_agent.training.choice import choose

        if self._trainer is None or self._trainer[:2] != (model.layers, head):
            found = choose(self._wanted, model.layers, head, self._balanced)
            self._chosen(found.name, f"{found.why}; classes balanced" if self._balanced else found.why)
            self._trainer = model.layers, head, found.trainer
        return self._trainer[2]

    def train(
        self,
        work: Train,
        model: ModelSpec,
        schema: Schema | None,
        done: Callable[["NDArray[np.float32]", "LocalReport"], None],
        failed: Callable[[str], None],
    ) -> None:
        """Train in the background; exactly one of `done` and `failed` is called, on the bench's thread."""
        self._attempt("training", lambda: self.train_now(work, model, schema), lambda found: done(*found), failed)

    def describe(
        self,
        work: Describe,
        model: ModelSpec,
        schema: Schema,
        done: Callable[["NDArray[np.float64]"], None],
        failed: Callable[[str], None],
    ) -> None:
        """Describe the source for a statistics round in the background; `done` and `failed` as for `train`."""

        def judged(data: LocalData) -> "NDArray[np.float64]":
            from hushfleet.judgement import judge

            return self.judge(work.flat, model, schema, data) if work.fitted else judge(schema, ())

        self._attempt("describing", lambda: self._present().describe(schema, judged), done, failed)

    def judge(
        self, flat: "NDArray[np.float32]", model: ModelSpec, schema: Schema, data: LocalData
    ) -> "NDArray[np.float64]":
        """How a model does on the rows kept aside, as `hushfleet.judgement.judge` tells it."""
        from hushfleet.judgement import judge
        from hushfleet.learning.layers import check_labels, rows_at_once

        rows = data.evaluation
        if not len(rows):
            return judge(schema, ())
        check_labels(rows.y, len(rows), model.layers[-1].outputs, data.head)
        trainer = self.trainer(model, data.head)
        at_once = rows_at_once(model.layers)
        parts = (slice(begin, begin + at_once) for begin in range(0, len(rows), at_once))
        return judge(schema, ((trainer.forward(flat, rows.x[part]), rows.y[part]) for part in parts))

    def _attempt(
        self, what: str, work: Callable[[], Found], done: Callable[[Found], None], failed: Callable[[str], None]
    ) -> None:
        def job() -> None:
            try:
                found = work()
            except HushfleetError as error:
                failed(str(error))
            except Exception as error:
                failed(f"{what} failed: {type(error).__name__}")
            else:
                done(found)

        self._jobs.put(job)

    def train_now(
        self, work: Train, model: ModelSpec, schema: Schema | None
    ) -> tuple["NDArray[np.float32]", "LocalReport"]:
        """The delta of one round of local training, and what the device says about it."""
        from hushfleet.codec import LocalReport

        data = self.rows(model, schema)
        trainer = self.trainer(model, data.head)
        score = trainer.evaluate(work.flat, data.evaluation.x, data.evaluation.y)
        result = trainer.train(work.flat, data.training.x, data.training.y, work.plan, work.order_seed)
        report = LocalReport(
            result.examples, result.training_loss_sum, score.evaluated, score.reported_sum(data.head), score.correct
        )
        return result.delta, report

    def score(
        self,
        flats: Sequence["NDArray[np.float32]"],
        model: ModelSpec,
        schema: Schema | None,
        done: Callable[[Sequence["Evaluation"], Head], None],
    ) -> None:
        """Score models on the rows kept aside; `done` is told on the bench's thread, nothing if there are no rows."""

        def job() -> None:
            try:
                data = self.rows(model, schema)
                rows, trainer = data.evaluation, self.trainer(model, data.head)
                found = [trainer.evaluate(flat, rows.x, rows.y) for flat in flats] if len(rows) else []
            except Exception:
                # Why the rows are unfit is said by training, or by `agent check`.
                done([], "softmax")
            else:
                done(found, data.head)

        if self._source is not None:
            self._jobs.put(job)

    def tune(
        self,
        flat: "NDArray[np.float32]",
        model: ModelSpec,
        schema: Schema | None,
        numbers: "TrainingNumbers",
        order_seed: bytes,
        done: "Callable[[Tuned | str], None]",
    ) -> None:
        """Fine-tune a model for this device alone, in parts between which other jobs have their turn.

        A call while another model is being tuned takes its place, as `give_up_tuning`.

        Args:
            flat: float32[d], the fleet's model; not to be changed.
            model, schema: what the rows are for.
            numbers: of local training.
            order_seed: 32 bytes that decide the order of the rows.
            done: is told what it came to, or in words why there is nothing, on the bench's thread.
        """
        from edge_agent.personal import fine_tuning, judgeable

        self.give_up_tuning()
        mine = self._tuning

        def in_parts() -> "Generator[None, None, Tuned | str]":
            data = self.rows(model, schema)
            if not judgeable(len(data.evaluation)):
                return f"{len(data.evaluation)} rows kept aside are too few to judge it"
            trainer = self.trainer(model, data.head)
            return (yield from fine_tuning(trainer, flat, model.layers, data, numbers, order_seed))

        work = in_parts()

        def turn() -> None:
            if mine != self._tuning:
                return
            try:
                next(work)
            except StopIteration as end:
                done(end.value)
            except HushfleetError as error:
                done(str(error))
            except Exception as error:
                done(f"training failed: {type(error).__name__}")
            else:
                self._jobs.put(turn)

        self._jobs.put(turn)

    def give_up_tuning(self) -> None:
        """End the fine-tuning under way, if there is any: nothing is told of it."""
        self._tuning += 1
