"""Layers along time: what the page says of each, in plain loops; gradients against central differences; bounds."""

from math import tanh
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.learning import layers as learning
from hushfleet.learning.layers import forward, initial_flat, loss_and_gradient, losses, rows_at_once, unflatten
from hushfleet.wire.layers import ANY_LAYER, Conv1d, Dense, Layer, check_layers, parameter_count

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
    raise AssertionError(layer)


def _steps(layer: Any, row: Float64s) -> Float64s:
    """x[t][c] of a flat row: channel c at step t stands at c·length + t."""
    return np.array([[row[c * layer.length + t] for c in range(layer.channels)] for t in range(layer.length)])


def _act(act: str, value: float) -> float:
    return {"none": value, "relu": max(value, 0.0), "tanh": tanh(value), "sigmoid": 0.5 + 0.5 * tanh(value / 2)}[act]


acts = st.sampled_from(["none", "tanh", "sigmoid"])
small = st.integers(1, 3)


@st.composite
def layers_along_time(draw: st.DrawFn, length: int, channels: int) -> Layer:
    """Any layer along time that takes so many steps and channels."""
    return Conv1d(length, channels, draw(small), draw(st.integers(1, length)), draw(st.integers(1, 4)), draw(acts))


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


@settings(max_examples=60)
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
    Conv1d(62, 16, 32, 5, 2, "relu"),
    Dense(29 * 32, 6),
)


def test_single_precision_is_double_precision_rounded() -> None:
    generator = np.random.default_rng(1)
    flat, x = initial_flat(CNN, bytes(32)), generator.normal(size=(32, 768)).astype(np.float32)
    y = generator.integers(0, 6, 32)
    _, single = loss_and_gradient(flat, CNN, x, y, "softmax")
    _, double = loss_and_gradient(flat.astype(np.float64), CNN, x, y, "softmax")
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=2e-6)


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
