"""Local training and evaluation: what one device does with its own rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from edge_agent.training.numpy_trainer import NumpyTrainer, Trainer
from hushfleet.errors import ConfigurationError, RefusedError
from hushfleet.learning import local
from hushfleet.learning.layers import Head, initial_flat, loss_and_gradient, losses, rows_at_once
from hushfleet.learning.local import LARGEST_LOSS, LocalResult, evaluate, train
from hushfleet.learning.metrics import accuracy, mean_loss
from hushfleet.wire.layers import Dense

LAYERS = (Dense(2, 8, "tanh"), Dense(8, 2))
SEED = bytes(range(32))


def start() -> npt.NDArray[np.float32]:
    return initial_flat(LAYERS, bytes(32))


def two_classes(rows: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Rows inside and outside a circle."""
    x = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    return x, (np.square(x).sum(axis=1) > 1).astype(np.int64)


def run(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    flat: npt.NDArray[np.float32] | None = None,
    layers: tuple[Dense, ...] = LAYERS,
    head: Head = "softmax",
    steps: int = 30,
    batch: int = 16,
    rate: float = 0.1,
    momentum: float = 0.5,
    proximal: float = 0.0,
    order_seed: bytes = SEED,
    balanced: bool = False,
) -> LocalResult:
    return train(
        start() if flat is None else flat,
        layers,
        x,
        y,
        head=head,
        steps=steps,
        batch=batch,
        rate=rate,
        momentum=momentum,
        proximal=proximal,
        order_seed=order_seed,
        balanced=balanced,
    )


def test_training_learns() -> None:
    x, y = two_classes(300)
    result = run(x, y, steps=600)
    before = evaluate(start(), LAYERS, x, y, head="softmax")
    after = evaluate(start() + result.delta, LAYERS, x, y, head="softmax")
    assert accuracy(after.correct, after.evaluated) > 0.95 > accuracy(before.correct, before.evaluated)
    assert mean_loss(after.loss_sum, 300) < mean_loss(before.loss_sum, 300) / 2


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    x, y = two_classes(50)
    assert run(x, y).delta.tobytes() == run(x, y).delta.tobytes()
    assert run(x, y).delta.tobytes() != run(x, y, order_seed=bytes(32)).delta.tobytes()


def test_the_global_model_and_the_rows_stay_as_they_are() -> None:
    flat = start()
    x, y = two_classes(20)
    run(x, y, flat=flat)
    assert_array_equal(flat, start())
    assert_array_equal(x, two_classes(20)[0])


def test_the_steps_are_those_of_momentum_and_the_proximal_term() -> None:
    x, y = two_classes(10)  # one batch holds all rows, so their order cannot matter
    result = run(x, y, steps=3, batch=10, momentum=0.9, proximal=0.3)
    trained, velocity, loss_sum = start().astype(np.float64), np.zeros(start().size), 0.0
    for _ in range(3):
        row_losses, gradient = loss_and_gradient(trained, LAYERS, x, y, "softmax")
        loss_sum += row_losses.sum()
        velocity = 0.9 * velocity + gradient + 0.3 * (trained - start())
        trained = trained - 0.1 * velocity
    assert_allclose(result.delta, trained - start(), atol=1e-6)
    assert result.delta.dtype == np.float32
    assert result.examples == 30
    assert result.training_loss_sum == pytest.approx(loss_sum, rel=1e-5)


def test_the_proximal_term_holds_training_back() -> None:
    x, y = two_classes(100)
    free, held = run(x, y, steps=200), run(x, y, steps=200, proximal=1.0)
    assert np.linalg.norm(held.delta) < 0.5 * np.linalg.norm(free.delta)


@settings(max_examples=50)
@given(rows=st.integers(1, 40), batch=st.integers(1, 60), passes=st.integers(1, 4), seed=st.binary(max_size=32))
def test_every_pass_sees_every_row_once(rows: int, batch: int, passes: int, seed: bytes) -> None:
    width = min(batch, rows)
    batches = local.batches_of(rows, width, seed)
    seen = np.concatenate([next(batches) for _ in range(-(-passes * rows // width))])
    for number in range(passes):
        assert sorted(seen[number * rows : (number + 1) * rows]) == list(range(rows))


@settings(max_examples=50)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=5), batch=st.integers(1, 40), seed=st.binary())
def test_balanced_batches_hold_as_many_of_each_class(counts: list[int], batch: int, seed: bytes) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    batches = local.balanced_batches_of(labels, batch, seed)
    seen = np.concatenate([next(batches) for _ in range(-(-2 * max(counts) * len(counts) // batch))])
    held = np.bincount(labels[seen], minlength=len(counts))
    assert held.max() - held.min() <= 1
    for label, count in enumerate(counts):
        assert sorted(seen[labels[seen] == label][:count]) == np.flatnonzero(labels == label).tolist()


def test_a_rare_class_is_learned_where_batches_are_balanced() -> None:
    x, y = two_classes(2000)
    kept = (y == 1) | (np.cumsum(y == 0) % 20 == 1)
    found = {}
    for balanced in (False, True):
        model = start() + run(x[kept], y[kept], steps=200, balanced=balanced).delta
        found[balanced] = evaluate(model, LAYERS, x[y == 0], y[y == 0], head="softmax").correct / (y == 0).sum()
    assert found[True] > 0.85 > 0.5 > found[False]


def test_balance_changes_nothing_where_a_number_is_learned() -> None:
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    flat = np.zeros(2, np.float32)
    plain, balanced = (
        run(x, 3 * x - 1, flat=flat, layers=(Dense(1, 1),), head="mean_squared", balanced=balanced)
        for balanced in (False, True)
    )
    assert_array_equal(plain.delta, balanced.delta)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    x, y = two_classes(5)
    result = run(x, y, batch=65_535)
    assert result.examples == 5 * 30
    assert_allclose(result.delta, run(x, y, batch=5).delta)


def test_one_loss_counts_for_64_at_most() -> None:
    x, y = np.array([[1e6, 0]], np.float32), np.array([0])
    layers = (Dense(2, 2),)
    flat = np.array([-1, 1, 0, 0, 0, 0], np.float32)
    assert losses(x @ np.array([[-1, 1], [0, 0]], np.float32), y, "softmax")[0] > 1e6
    assert evaluate(flat, layers, x, y, head="softmax").loss_sum == LARGEST_LOSS
    once = run(x, y, flat=flat, layers=layers, steps=1, rate=1e-9)
    assert once.training_loss_sum == LARGEST_LOSS


def test_targets_to_predict() -> None:
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    layers = (Dense(1, 1),)
    result = run(x, 3 * x - 1, flat=np.zeros(2, np.float32), layers=layers, head="mean_squared", steps=300)
    assert_allclose(result.delta, [3, -1], atol=1e-3)
    score = evaluate(result.delta, layers, x, 3 * x - 1, head="mean_squared")
    assert (score.evaluated, score.correct) == (50, 0)
    assert score.loss_sum < 1e-3


def test_a_number_is_judged_by_its_absolute_error_up_to_64() -> None:
    layers = (Dense(1, 2),)
    x, y = np.ones((3, 1), np.float32), np.array([[1, 0], [-3, 0], [999, 0]], np.float32)
    score = evaluate(np.zeros(4, np.float32), layers, x, y, head="mean_squared")
    assert score.error_sum == 0.5 + 1.5 + LARGEST_LOSS
    assert score.loss_sum == 0.5 + 4.5 + LARGEST_LOSS
    assert score.reported_sum("mean_squared") == score.error_sum
    labels = np.zeros(3, np.int64)
    classes = evaluate(np.zeros(4, np.float32), layers, x, labels, head="softmax")
    assert (classes.error_sum, classes.reported_sum("softmax")) == (0.0, classes.loss_sum)


def test_evaluation_counts_every_row_however_many() -> None:
    x, y = two_classes(3 * rows_at_once(LAYERS) // 2)
    whole = evaluate(start(), LAYERS, x, y, head="softmax")
    halves = (slice(0, 5000), slice(5000, None))
    parts = [evaluate(start(), LAYERS, x[rows], y[rows], head="softmax") for rows in halves]
    assert whole.evaluated == len(x)
    assert whole.correct == sum(part.correct for part in parts)
    assert whole.loss_sum == pytest.approx(sum(part.loss_sum for part in parts))


def test_no_rows_score_as_zeros_but_train_nothing() -> None:
    x, y = two_classes(0)
    assert evaluate(start(), LAYERS, x, y, head="softmax") == local.Evaluation(0, 0.0, 0)
    assert accuracy(0, 0) == mean_loss(0.0, 0) == 0.0
    with pytest.raises(ConfigurationError, match="no rows to train on"):
        run(x, y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    x, y = two_classes(9)
    x[4, 1] = value
    with pytest.raises(ConfigurationError, match="feature in row 4 is nan or infinite"):
        run(x, y)
    with pytest.raises(ConfigurationError, match="feature in row 4 is nan or infinite"):
        evaluate(start(), LAYERS, x, y, head="softmax")
    targets = np.zeros((9, 2), np.float32)
    targets[3, 0] = value
    with pytest.raises(ConfigurationError, match="target in row 3 is nan or infinite"):
        evaluate(start(), LAYERS, two_classes(9)[0], targets, head="mean_squared")


def test_rows_and_labels_that_do_not_fit_are_refused() -> None:
    x, y = two_classes(9)
    with pytest.raises(ConfigurationError, match="9 rows need one integer class each"):
        run(x, y[:8])
    with pytest.raises(ConfigurationError, match="takes 2 features"):
        run(x[:, :1], y)
    with pytest.raises(ConfigurationError, match="outside 0 to 1"):
        run(x, y + 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("rate", "steps"), [(1e30, 30), (1e38, 1), (1e300, 1)])
def test_divergence_is_refused_without_a_warning(rate: float, steps: int) -> None:
    x = 1e4 * np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    flat = np.zeros(2, np.float32)
    with pytest.raises(RefusedError, match="diverged at step"):
        run(x, x, flat=flat, layers=(Dense(1, 1),), head="mean_squared", rate=rate, steps=steps)


def test_a_loss_beyond_float32_is_refused_even_where_the_update_is_not() -> None:
    x, y = np.ones((1, 1), np.float32), np.full((1, 1), 1e30, np.float32)
    with pytest.raises(RefusedError, match="diverged at step 1 of 1"):
        run(x, y, flat=np.zeros(2, np.float32), layers=(Dense(1, 1),), head="mean_squared", rate=1e-30, steps=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("rate", 0.0),
        ("rate", -1.0),
        ("rate", np.nan),
        ("rate", np.inf),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("momentum", np.nan),
        ("proximal", -1.0),
        ("proximal", np.inf),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, value: Any) -> None:
    x, y = two_classes(9)
    with pytest.raises(RefusedError, match=f"the plan's {name} is {value}: it must be"):
        run(x, y, **{name: value})


@dataclass(frozen=True)
class Plan:
    steps: int = 30
    batch: int = 16
    rate: float = 0.1
    momentum: float = 0.5
    proximal: float = 0.25


def test_the_trainer_takes_the_numbers_of_a_plan() -> None:
    x, y = two_classes(40)
    trainer: Trainer = NumpyTrainer(LAYERS, "softmax")
    expected = run(x, y, proximal=0.25)
    result = trainer.train(start(), x, y, Plan(), SEED)
    assert_array_equal(result.delta, expected.delta)
    assert (result.examples, result.training_loss_sum) == (expected.examples, expected.training_loss_sum)
    assert trainer.evaluate(start(), x, y) == evaluate(start(), LAYERS, x, y, head="softmax")


def test_a_trainer_that_balances_takes_balanced_batches() -> None:
    x, y = two_classes(40)
    found = NumpyTrainer(LAYERS, "softmax", balanced=True).train(start(), x, y, Plan(), SEED)
    assert_array_equal(found.delta, run(x, y, proximal=0.25, balanced=True).delta)
    assert np.any(found.delta != run(x, y, proximal=0.25).delta)


def test_no_result_shows_its_numbers() -> None:
    assert "delta" not in repr(run(*two_classes(9)))
