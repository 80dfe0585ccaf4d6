"""The LiteRT trainer beside numpy's, and which of the two a model gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose

from edge_agent.training import choice, litert_trainer
from edge_agent.training.choice import Wanted, choose
from edge_agent.training.litert_trainer import LARGEST_ROWS, LiteRtTrainer
from edge_agent.training.numpy_trainer import NumpyTrainer, Trainer
from edge_agent.work_bench import WorkBench
from hushfleet.errors import ConfigurationError, RefusedError
from hushfleet.graphs import file
from hushfleet.graphs.runtime import find_runtime
from hushfleet.learning.layers import Head, initial_flat, loss_and_gradient
from hushfleet.wire.layers import Dense, Gru

LAYERS = (Dense(2, 16, "tanh"), Dense(16, 2))
SEED = bytes(range(32))


@dataclass(frozen=True)
class Plan:
    steps: int = 40
    batch: int = 16
    rate: float = 0.1
    momentum: float = 0.9
    proximal: float = 0.01


@pytest.fixture
def trainer() -> LiteRtTrainer:
    return make()


def make(layers: tuple[Dense, ...] = LAYERS, head: Head = "softmax") -> LiteRtTrainer:
    try:
        find_runtime()
    except ConfigurationError as error:
        pytest.skip(str(error))
    return LiteRtTrainer(layers, head)


def circle(rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    return x, (np.square(x).sum(axis=1) > 1).astype(np.int64)


def start() -> npt.NDArray[np.float32]:
    return initial_flat(LAYERS, bytes(32))


@pytest.mark.parametrize(("rows", "batch"), [(100, 16), (10, 32), (1, 1), (600, 500)])
def test_a_round_is_numpys(trainer: Trainer, rows: int, batch: int) -> None:
    x, y = circle(rows)
    plan = Plan(batch=batch)
    expected = NumpyTrainer(LAYERS, "softmax").train(start(), x, y, plan, SEED)
    found = trainer.train(start(), x, y, plan, SEED)
    assert_allclose(found.delta, expected.delta, atol=1e-5)
    assert found.examples == expected.examples
    assert found.training_loss_sum == pytest.approx(expected.training_loss_sum, rel=1e-5)
    assert found.delta.dtype == np.float32


def test_the_work_bench_balances_whatever_trains() -> None:
    make()
    x, y = circle(100)
    model: Any = SimpleNamespace(layers=LAYERS)
    expected = NumpyTrainer(LAYERS, "softmax", balanced=True).train(start(), x, y, Plan(), SEED)
    wanted: Sequence[Wanted] = ("numpy", "litert")
    told: list[str] = []
    for name in wanted:
        trainer = WorkBench(None, name, lambda name, why: told.append(why), balanced=True).trainer(model, "softmax")
        assert_allclose(trainer.train(start(), x, y, Plan(), SEED).delta, expected.delta, atol=1e-5)
    assert told == 2 * ["as the settings say; classes balanced"]


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 100])
def test_an_evaluation_is_numpys_however_many_rows(trainer: Trainer, rows: int) -> None:
    x, y = circle(rows)
    expected = NumpyTrainer(LAYERS, "softmax").evaluate(start(), x, y)
    found = trainer.evaluate(start(), x, y)
    assert (found.evaluated, found.correct) == (expected.evaluated, expected.correct)
    assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-5)


def test_targets_to_predict() -> None:
    layers, x = (Dense(1, 1),), np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    result = make(layers, "mean_squared").train(np.zeros(2, np.float32), x, 3 * x - 1, Plan(steps=300), SEED)
    expected = NumpyTrainer(layers, "mean_squared").train(np.zeros(2, np.float32), x, 3 * x - 1, Plan(steps=300), SEED)
    assert_allclose(result.delta, expected.delta, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, LARGEST_ROWS + 5])
def test_a_gradient_is_that_of_all_rows_however_many_calls_it_takes(trainer: LiteRtTrainer, rows: int) -> None:
    x, y = circle(rows)
    losses, gradient = loss_and_gradient(start(), LAYERS, x, y, "softmax")
    found_losses, found = trainer.loss_and_gradient(start(), x, y)
    assert np.abs(found_losses - losses).max() <= 1e-5
    assert np.abs(found - gradient).max() <= 1e-5


def test_what_does_not_fit_is_refused_as_by_numpy(trainer: LiteRtTrainer) -> None:
    x, y = circle(9)
    nan = x.copy()
    nan[4, 1] = np.nan
    cases: list[tuple[Any, Any, Any, str]] = [
        (start()[:-1], x, y, "the model has 82"),
        (np.append(start(), np.float32(0)), x, y, "the model has 82"),
        (start(), x[:, :1], y, "takes 2 features"),
        (start(), x.astype(np.int64), y, "type int64"),
        (start(), x, y + 1, "outside 0 to 1"),
        (start(), x, y - 1, "outside 0 to 1"),
        (start(), x, y[:8], "one integer class each"),
        (start(), x, y.astype(np.float32), "one integer class each"),
        (start(), x[:0], y[:0], "no rows"),
    ]
    for flat, rows, labels, said in cases:
        with pytest.raises(ConfigurationError, match=said):
            trainer.loss_and_gradient(flat, rows, labels)
        with pytest.raises(ConfigurationError, match=said):
            trainer.train(flat, rows, labels, Plan(), SEED)
    with pytest.raises(ConfigurationError, match="feature in row 4 is nan"):
        trainer.train(start(), nan, y, Plan(), SEED)
    with pytest.raises(ConfigurationError, match="feature in row 4 is nan"):
        trainer.evaluate(start(), nan, y)
    with pytest.raises(ConfigurationError, match="float64"):
        trainer.forward(start().astype(np.float64), x)


def test_a_model_that_is_not_finite_is_refused(trainer: LiteRtTrainer) -> None:
    flat = start()
    flat[3] = np.nan
    with pytest.raises(RefusedError, match="diverged at step 1 of 40"):
        trainer.train(flat, *circle(9), Plan(), SEED)
    with pytest.raises(RefusedError, match="diverged at step"):
        trainer.train(start(), *circle(9), Plan(rate=1e38), SEED)


# Which one a model gets.


def test_the_settings_name_decides() -> None:
    assert isinstance(choose("numpy", LAYERS, "softmax").trainer, NumpyTrainer)
    assert isinstance(make(), LiteRtTrainer)
    found = choose("litert", LAYERS, "softmax")
    assert (found.name, found.why) == ("litert", "as the settings say")
    assert isinstance(found.trainer, LiteRtTrainer)


@pytest.mark.parametrize(("numpys", "faster"), [(1e-6, "numpy"), (1.0, "litert")])
def test_auto_takes_the_faster(numpys: float, faster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(choice, "step_time", lambda one, *_: numpys if isinstance(one, NumpyTrainer) else 2e-6)
    found = choose("auto", LAYERS, "softmax")
    assert found.name == faster
    assert found.why == f"numpy {1e6 * numpys:.0f} µs a step, litert 2 µs a step"


@pytest.mark.parametrize("head", ["softmax", "mean_squared"])
def test_auto_measures_both(head: Head) -> None:
    make()
    found = choose("auto", LAYERS, head)
    assert found.name in ("numpy", "litert")
    assert "µs a step, litert" in found.why


@pytest.mark.parametrize("wanted", ["auto", "litert"])
def test_without_a_runtime_it_is_numpy_and_says_why(wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise ConfigurationError("litert does not run here")

    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    found = choose(wanted, LAYERS, "softmax")
    assert isinstance(found.trainer, NumpyTrainer)
    assert (found.name, found.why) == ("numpy", 'LiteRT is not installed: pip install "hushfleet[tflite]"')
    monkeypatch.setattr(choice, "find_spec", lambda name: True)
    monkeypatch.setattr(litert_trainer, "find_runtime", none)
    found = choose(wanted, LAYERS, "softmax")
    assert isinstance(found.trainer, NumpyTrainer)
    assert (found.name, found.why) == ("numpy", "litert does not run here")


def test_a_model_whose_graph_is_too_large_is_numpys_and_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(file, "MOST_OPERATORS", 100)
    found = choose("litert", (Gru(10, 3, 4), Dense(4, 2)), "softmax")
    assert isinstance(found.trainer, NumpyTrainer)
    assert found.why == "the graph for LiteRT would have more than 100 operators: this model needs numpy"


def test_the_work_bench_chooses_once_for_a_model_and_tells() -> None:
    model: Any = SimpleNamespace(layers=LAYERS)
    told: list[tuple[str, str]] = []
    bench = WorkBench(None, "auto", lambda name, why: told.append((name, why)))
    first = bench.trainer(model, "softmax")
    assert bench.trainer(model, "softmax") is first
    assert len(told) == 1
    other: Any = SimpleNamespace(layers=(Dense(3, 2),))
    assert bench.trainer(other, "softmax") is not first
    assert len(told) == 2
    assert isinstance(first, LiteRtTrainer if told[0][0] == "litert" else NumpyTrainer)
