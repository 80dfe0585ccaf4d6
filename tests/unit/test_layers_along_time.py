"""Layers along time: what the page says of each, in plain loops; gradients against central differences; bounds."""

import tracemalloc
from math import tanh
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from edge_agent.training.numpy_trainer import NumpyTrainer
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.learning import layers as learning
from hushfleet.learning import local
from hushfleet.learning.layers import forward, initial_flat, loss_and_gradient, losses, rows_at_once, unflatten
from hushfleet.wire.layers import (
    ANY_LAYER,
    AvgPool,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    GlobalAverage,
    Gru,
    Layer,
    LayerNorm,
    MaxPool,
    check_layers,
    parameter_count,
)

Float64s = npt.NDArray[np.float64]


def by_the_page(layer: Layer, parameters: list[Float64s], row: Float64s) -> Float64s:
    """One flat row through one layer, as docs/protocol.md, section 11.7 writes it."""
    match layer:
        case Dense():
            weights, biases = parameters
            return np.array([_act(layer.act, float(row @ weights[:, j] + biases[j])) for j in range(layer.outputs)])
        case Conv1d(length, _, filters, kernel, stride, act):
            x, (weights, biases) = _steps(layer, row), parameters
            given = [
                [
                    _act(act, biases[f] + sum(float(x[t + k] @ weights[k, :, f]) for k in range(kernel)))
                    for f in range(filters)
                ]
                for t in range(0, length - kernel + 1, stride)
            ]
            return np.array(given).T.ravel()
        case DepthwiseConv1d(length, channels, kernel, stride, act):
            x, (weights, biases) = _steps(layer, row), parameters
            given = [
                [_act(act, biases[c] + float(x[t : t + kernel, c] @ weights[:, c])) for c in range(channels)]
                for t in range(0, length - kernel + 1, stride)
            ]
            return np.array(given).T.ravel()
        case AvgPool(length, channels, size) | MaxPool(length, channels, size):
            x, pooled = _steps(layer, row), np.mean if isinstance(layer, AvgPool) else np.max
            return np.array([[pooled(x[t * size : (t + 1) * size, c]) for t in range(length // size)]
                             for c in range(channels)]).ravel()  # fmt: skip
        case GlobalAverage():
            return np.array([np.mean(channel) for channel in _steps(layer, row).T])
        case LayerNorm(act=act):
            x, (gains, biases) = _steps(layer, row), parameters
            given = [
                [_act(act, gain * value + bias) for gain, value, bias in zip(gains, _normal(step), biases, strict=True)]
                for step in x
            ]
            return np.array(given).T.ravel()
        case Gru(units=units):
            weights, inner, biases = parameters
            state = np.zeros(units)
            for step in _steps(layer, row):
                given, recalled = step @ weights + biases, state @ inner
                z, r = (
                    np.array([_act("sigmoid", given[g + j] + recalled[g + j]) for j in range(units)])
                    for g in (0, units)
                )
                state = z * state + (1 - z) * np.tanh(given[2 * units :] + r * recalled[2 * units :])
            return state
    raise AssertionError(layer)


def _normal(step: Float64s) -> Float64s:
    return np.asarray((step - step.mean()) / np.sqrt(step.var() + 1e-5))


def _steps(layer: Any, row: Float64s) -> Float64s:
    """x[t][c] of a flat row: channel c at step t stands at c·length + t."""
    return np.array([[row[c * layer.length + t] for c in range(layer.channels)] for t in range(layer.length)])


def _act(act: str, value: float) -> float:
    return {"none": value, "relu": max(value, 0.0), "tanh": tanh(value), "sigmoid": 0.5 + 0.5 * tanh(value / 2)}[act]


ALONG_TIME = [kind for kind in get_args(Layer) if kind is not Dense]
acts = st.sampled_from(["none", "tanh", "sigmoid"])
small = st.integers(1, 3)


@st.composite
def layers_along_time(draw: st.DrawFn, length: int, channels: int) -> Layer:
    """Any layer along time that takes so many steps and channels."""
    kind = draw(st.sampled_from(ALONG_TIME))
    if kind is Conv1d:
        return Conv1d(length, channels, draw(small), draw(st.integers(1, length)), draw(st.integers(1, 4)), draw(acts))
    if kind is DepthwiseConv1d:
        return DepthwiseConv1d(length, channels, draw(st.integers(1, length)), draw(st.integers(1, 4)), draw(acts))
    if kind is AvgPool or kind is MaxPool:
        return kind(length, channels, draw(st.integers(1, length)))
    if kind is LayerNorm:
        return LayerNorm(length, channels, draw(acts))
    return Gru(length, channels, draw(small)) if kind is Gru else GlobalAverage(length, channels)


@st.composite
def models(draw: st.DrawFn) -> tuple[Layer, ...]:
    """One to three layers along time, perhaps between dense ones."""
    length, channels = draw(st.integers(1, 9)), draw(small)
    layers: list[Layer] = [Dense(2, length * channels, draw(acts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        layers.append(draw(layers_along_time(length, channels)))
        given = layers[-1].sequence_out
        if given is None:
            break
        length, channels = given
    return (*layers, Dense(layers[-1].outputs, 2)) if draw(st.booleans()) else tuple(layers)


@given(layers=models(), rows=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_what_a_layer_gives_is_what_the_page_says(layers: tuple[Layer, ...], rows: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    flat, x = generator.normal(size=parameter_count(layers)), generator.normal(size=(rows, layers[0].inputs))
    expected = []
    for row in x:
        for layer, parameters in zip(layers, unflatten(flat, layers), strict=True):
            row = by_the_page(layer, list(parameters), row)  # type: ignore[arg-type]
        expected.append(row)
    assert_allclose(forward(flat, layers, x), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=120)
@given(layers=models(), rows=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_gradients_are_central_differences(layers: tuple[Layer, ...], rows: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    flat, x = generator.normal(size=parameter_count(layers)), generator.normal(size=(rows, layers[0].inputs))
    y = generator.normal(size=(rows, layers[-1].outputs))

    row_losses, gradient = loss_and_gradient(flat, layers, x, y, "mean_squared")

    differences = np.empty_like(flat)
    for position in range(len(flat)):
        nudge = np.zeros_like(flat)
        nudge[position] = 1e-6
        above = losses(forward(flat + nudge, layers, x), y, "mean_squared").mean()
        below = losses(forward(flat - nudge, layers, x), y, "mean_squared").mean()
        differences[position] = (above - below) / 2e-6
    assert_allclose(gradient, differences, rtol=1e-5, atol=1e-6)
    assert_array_equal(row_losses, losses(forward(flat, layers, x), y, "mean_squared"))


CNN: tuple[Layer, ...] = (
    Conv1d(128, 6, 16, 5, 2, "relu"),
    AvgPool(62, 16, 2),
    Conv1d(31, 16, 32, 5, 1, "relu"),
    GlobalAverage(27, 32),
    Dense(32, 6),
)
EVERY: tuple[Layer, ...] = (
    LayerNorm(128, 6),
    DepthwiseConv1d(128, 6, 5, 2, "tanh"),
    MaxPool(62, 6, 2),
    Gru(31, 6, 8),
    Dense(8, 6),
)


@pytest.mark.parametrize("layers", [CNN, EVERY])
def test_single_precision_is_double_precision_rounded(layers: tuple[Layer, ...]) -> None:
    generator = np.random.default_rng(1)
    flat, x = initial_flat(layers, bytes(32)), generator.normal(size=(32, 768)).astype(np.float32)
    y = generator.integers(0, 6, 32)
    _, single = loss_and_gradient(flat, layers, x, y, "softmax")
    _, double = loss_and_gradient(flat.astype(np.float64), layers, x, y, "softmax")
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=2e-6)


@pytest.mark.parametrize("layers", [CNN, EVERY])
def test_memory_is_bounded_however_many_rows_a_batch_has(layers: tuple[Layer, ...]) -> None:
    generator = np.random.default_rng(3)
    flat, x = initial_flat(layers, bytes(32)), generator.normal(size=(3000, 768)).astype(np.float32)
    y = generator.integers(0, 6, 3000)
    tracemalloc.start()
    loss_and_gradient(flat, layers, x, y, "softmax")
    local.evaluate(flat, layers, x, y, head="softmax")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_many_rows_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    flat, x = initial_flat(CNN, bytes(32)).astype(np.float64), generator.normal(size=(23, 768))
    y = generator.integers(0, 6, 23)
    whole_losses, whole = loss_and_gradient(flat, CNN, x, y, "softmax")
    monkeypatch.setattr(learning, "_VALUES_AT_ONCE", 5 * sum(layer.spread for layer in CNN))
    assert rows_at_once(CNN) == 5
    row_losses, gradient = loss_and_gradient(flat, CNN, x, y, "softmax")
    assert_allclose(row_losses, whole_losses, rtol=1e-12)
    assert_allclose(gradient, whole, rtol=1e-9, atol=1e-15)


@given(layers=models())
def test_a_layer_list_goes_over_the_wire(layers: tuple[Layer, ...]) -> None:
    check_layers(layers)
    assert tuple(ANY_LAYER.read(ANY_LAYER.write(layer)) for layer in layers) == layers


CONV = Conv1d(12, 3, 4, 3, 2, "relu")


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((Conv1d(0, 3, 4, 3),), "layer 1, conv1d: length must be above 0"),
        ((Conv1d(12, 0, 4, 3, 0),), "layer 1, conv1d: channels and stride must be above 0"),
        ((Conv1d(12, 3, 4, 13),), "layer 1, conv1d: a window of 13 steps does not fit in 12"),
        ((Conv1d(2**20 + 1, 1, 1, 1),), "layer 1, conv1d: 1048577 steps, at most 1048576"),
        ((Conv1d(2**19, 1, 1, 3),), r"layer 1, conv1d: it makes 1572858 values of one row, at most 1048576"),
        ((Conv1d(12, 3, 4, 3, 1, "gelu"),), "layer 1, conv1d: unknown kind or activation"),
        ((Conv1d(12, 3, 4, 3, 1, "none", "dense"),), "layer 1, conv1d: unknown kind or activation"),
        ((DepthwiseConv1d(3, 1, 4),), "layer 1, depthwise_conv1d: a window of 4 steps does not fit in 3"),
        ((DepthwiseConv1d(2**16, 1, 2**15),), "layer 1, depthwise_conv1d: it makes 1073774592 values of one row"),
        ((MaxPool(3, 1, 4),), "layer 1, maxpool: a window of 4 steps does not fit in 3"),
        ((AvgPool(3, 1, 0),), "layer 1, avgpool: size must be above 0"),
        ((GlobalAverage(2**15, 2**15),), "layer 1, global_average: it makes 1073741824 values of one row"),
        ((LayerNorm(4, 4, "gelu"),), "layer 1, layer_norm: unknown kind or activation"),
        ((Gru(2**10, 1, 2**10),), "layer 1, gru: it makes 3145728 values of one row"),
        ((Gru(4, 4, 2), Conv1d(2, 2, 1, 1)), "layer 1 gives 2 numbers but layer 2 takes 2 steps of 2 channels"),
        ((CONV, Conv1d(4, 5, 1, 1)), "layer 1 gives 5 steps of 4 channels but layer 2 takes 4 steps of 5 channels"),
        ((CONV, Dense(21, 1)), "layer 1 gives 5 steps of 4 channels but layer 2 takes 21 numbers"),
        ((Dense(2, 35), CONV), "layer 1 gives 35 numbers but layer 2 takes 12 steps of 3 channels"),
    ],
)
def test_a_list_that_is_no_model_is_refused(layers: tuple[Layer, ...], said: str) -> None:
    with pytest.raises(MalformedError, match=said):
        check_layers(layers)
    with pytest.raises(ConfigurationError, match=said):
        initial_flat(layers, bytes(32))


def test_of_equal_steps_the_first_is_the_largest() -> None:
    layers = (DepthwiseConv1d(4, 1, 1), MaxPool(4, 1, 4))
    # With a weight of 0 all steps are the bias; what the weight's gradient is made of tells which of them was taken.
    flat, x = np.array([0.0, 0.5]), np.array([[3.0, 5.0, 7.0, 9.0]])
    _, gradient = loss_and_gradient(flat, layers, x, np.array([[0.0]]), "mean_squared")
    assert_array_equal(gradient, [3.0, 1.0])


def windows(count: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Two channels of noise in which a bump goes up and down at any time: which channel's bump is first is the class.

    Means and spectra of the classes are alike, so that a model must see what comes after what.
    """
    generator = np.random.default_rng(seed)
    x, y = generator.normal(0, 0.3, (count, 2, 40)), generator.integers(0, 2, count)
    for row, label in zip(x, y, strict=True):
        first, second = sorted(generator.choice(np.arange(0, 32, 6), 2, replace=False))
        row[label, first : first + 6] += np.sin(np.arange(6))
        row[1 - label, second : second + 6] += np.sin(np.arange(6))
    return x.reshape(count, -1).astype(np.float32), y


@pytest.mark.parametrize(
    ("layers", "rate"),
    [
        ((Conv1d(40, 2, 8, 5, 2, "relu"), AvgPool(18, 8, 2), Conv1d(9, 8, 16, 6, 1, "relu"), GlobalAverage(4, 16),
          Dense(16, 2)), 0.1),
        ((Conv1d(40, 2, 8, 5, 2, "relu"), LayerNorm(18, 8, "tanh"), Gru(18, 8, 12), Dense(12, 2)), 0.1),
        ((DepthwiseConv1d(40, 2, 5, 1, "none"), Conv1d(36, 2, 12, 1, 1, "relu"), MaxPool(36, 12, 6), Dense(72, 2)),
         0.05),
    ],
    ids=["convolutions", "gru", "depthwise"],
)  # fmt: skip
def test_a_model_learns_what_comes_after_what(layers: tuple[Layer, ...], rate: float) -> None:
    x, y = windows(600, 1)
    trainer = NumpyTrainer(layers, "softmax")
    flat = initial_flat(layers, bytes(32))
    result = local.train(
        flat, layers, x, y, head="softmax", steps=250, batch=32, rate=rate, momentum=0.9, proximal=0.0,
        order_seed=bytes(32),
    )  # fmt: skip
    held = windows(300, 2)
    before, after = (trainer.evaluate(one, *held).correct / 300 for one in (flat, flat + result.delta))
    assert before < 0.65
    assert after > 0.85
