"""Layer lists and the flat vector: version 0 to the byte, gradients against central differences."""

import struct
from itertools import pairwise
from math import sqrt

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nacl.bindings import randombytes_buf_deterministic
from numpy.testing import assert_allclose, assert_array_equal

from hushfleet.errors import ConfigurationError
from hushfleet.learning.layers import (
    Head,
    forward,
    initial_flat,
    loss_and_gradient,
    losses,
    parameter_count,
    unflatten,
)
from hushfleet.wire.layers import ACTIVATIONS, Dense

Float64s = npt.NDArray[np.float64]

MODEL = (Dense(3, 4, "relu"), Dense(4, 2))


def other_writing_of_version_0(layers: tuple[Dense, ...], seed: bytes) -> bytes:
    """Section 11.7 once more, with Python's integers and one float32 rounding for each operation."""

    def float32(value: float) -> float:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])

    weights = sum(layer.inputs * layer.outputs for layer in layers)
    words = struct.unpack(f"<{weights}I", randombytes_buf_deterministic(4 * weights, seed))
    flat, taken = b"", 0
    for layer in layers:
        limit = float32(sqrt(6 / (layer.inputs + layer.outputs)))
        for word in words[taken : taken + layer.inputs * layer.outputs]:
            uniform = float32(float32((word >> 8) * 2.0**-23) - 1.0)
            flat += struct.pack("<f", uniform * limit)
        taken += layer.inputs * layer.outputs
        flat += struct.pack("<f", 0.0) * layer.outputs
    return flat


@given(
    widths=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    seed=st.binary(min_size=32, max_size=32),
)
def test_version_0_to_the_byte(widths: list[int], seed: bytes) -> None:
    layers = tuple(Dense(inputs, outputs) for inputs, outputs in pairwise(widths))
    flat = initial_flat(layers, seed)
    assert flat.dtype == np.float32
    assert flat.astype("<f4").tobytes() == other_writing_of_version_0(layers, seed)


def test_the_flat_vector_is_weights_row_by_row_then_biases() -> None:
    flat = np.arange(parameter_count(MODEL), dtype=np.float32)
    (weights, biases), (last_weights, last_biases) = unflatten(flat, MODEL)
    assert_array_equal(weights, np.arange(12).reshape(3, 4))
    assert_array_equal(biases, np.arange(12, 16))
    assert_array_equal(last_weights, np.arange(16, 24).reshape(4, 2))
    assert_array_equal(last_biases, [24, 25])


def test_the_parts_are_views() -> None:
    flat = np.zeros(parameter_count(MODEL), np.float32)
    for weights, biases in unflatten(flat, MODEL):
        weights[...] = 1
        biases[...] = 2
    assert_array_equal(flat, [1] * 12 + [2] * 4 + [1] * 8 + [2] * 2)


def test_forward_by_hand() -> None:
    layers = (Dense(2, 2, "relu"), Dense(2, 1, "sigmoid"))
    flat = np.array([1, 0, 0, -1, 0, 0.5, 2, 4, -1], np.float64)
    # hidden = relu([3, -5 + 0.5]) = [3, 0]; output = sigmoid(6 + 0 - 1)
    assert_allclose(forward(flat, layers, np.array([[3.0, 5.0]])), [[1 / (1 + np.exp(-5.0))]], rtol=1e-12)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_far_out(act: str) -> None:
    outputs = forward(np.array([1, 0], np.float32), (Dense(1, 1, act),), np.array([[-1e30], [1e30]], np.float32))
    expected = {"none": [-1e30, 1e30], "relu": [0, 1e30], "tanh": [-1, 1], "sigmoid": [0, 1]}[act]
    assert outputs.dtype == np.float32
    assert_array_equal(outputs[:, 0], np.array(expected, np.float32))


@pytest.mark.parametrize("head", ["softmax", "mean_squared"])
@settings(max_examples=40)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    acts=st.lists(st.sampled_from(ACTIVATIONS), min_size=3, max_size=3),
    rows=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_are_central_differences(
    head: Head, widths: list[int], acts: list[str], rows: int, seed: int
) -> None:
    layers = tuple(Dense(*shape, act) for shape, act in zip(pairwise(widths), acts, strict=False))
    generator = np.random.default_rng(seed)
    flat = generator.normal(size=parameter_count(layers))
    x = generator.normal(size=(rows, widths[0]))
    y = generator.integers(0, widths[-1], rows) if head == "softmax" else generator.normal(size=(rows, widths[-1]))
    assume(_smallest_relu_input(flat, layers, x) > 1e-3)

    row_losses, gradient = loss_and_gradient(flat, layers, x, y, head)

    epsilon = 1e-5
    differences = np.empty_like(flat)
    for position in range(len(flat)):
        nudge = np.zeros_like(flat)
        nudge[position] = epsilon
        above = losses(forward(flat + nudge, layers, x), y, head).mean()
        below = losses(forward(flat - nudge, layers, x), y, head).mean()
        differences[position] = (above - below) / (2 * epsilon)
    assert_allclose(gradient, differences, rtol=1e-6, atol=1e-8)
    assert_array_equal(row_losses, losses(forward(flat, layers, x), y, head))


def _smallest_relu_input(flat: Float64s, layers: tuple[Dense, ...], x: Float64s) -> float:
    """How near the rows come to the kink of a relu, where there is no gradient to compare with."""
    nearest = np.inf
    for depth, layer in enumerate(layers, start=1):
        if layer.act == "relu":
            linear = (*layers[: depth - 1], Dense(layer.inputs, layer.outputs))
            reached = forward(flat[: parameter_count(linear)], linear, x)
            nearest = min(nearest, float(np.abs(reached).min()))
    return nearest


def test_float32_gradients_are_the_float64_ones_rounded() -> None:
    generator = np.random.default_rng(1)
    layers = (Dense(36, 64, "relu"), Dense(64, 7))
    flat, x = initial_flat(layers, bytes(32)), generator.normal(size=(32, 36)).astype(np.float32)
    y = generator.integers(0, 7, 32)
    _, single = loss_and_gradient(flat, layers, x, y, "softmax")
    _, double = loss_and_gradient(flat.astype(np.float64), layers, x, y, "softmax")
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=1e-6)


def test_losses_by_hand_and_far_out() -> None:
    outputs = np.array([[0, 0], [1000, -1000], [-1000, 1000]], np.float32)
    assert_allclose(losses(outputs, np.array([0, 0, 0]), "softmax"), [np.log(2), 0, 2000], rtol=1e-6)
    assert_allclose(losses(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]), "mean_squared"), [2.5])


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((), "is empty"),
        ((Dense(1, 1, kind="conv1d"),), "layer 1, dense: unknown kind"),
        ((Dense(1, 1), Dense(1, 1, "gelu")), "layer 2, dense: unknown kind or activation"),
        ((Dense(0, 1),), "layer 1, dense: in and out are above 0"),
        ((Dense(1, 0),), "layer 1, dense: in and out are above 0"),
        ((Dense(2, 3), Dense(4, 1)), "layer 1 gives 3 numbers but layer 2 takes 4"),
        ((Dense(2**16, 2**16),), "at most 4294967295"),
    ],
)
def test_a_list_that_is_no_model_is_refused(layers: tuple[Dense, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parameter_count(layers)
    with pytest.raises(ConfigurationError, match=said):
        initial_flat(layers, bytes(32))


X = np.zeros((5, 3), np.float32)
Y = np.zeros(5, np.int64)
TARGETS = np.zeros((5, 2), np.float32)


@pytest.mark.parametrize(
    ("flat", "x", "y", "head", "said"),
    [
        (np.zeros(25, np.float32), X, Y, "softmax", "the model has 26 parameters"),
        (np.zeros(27, np.float32), X, Y, "softmax", "the model has 26 parameters"),
        (np.zeros((26, 1), np.float32), X, Y, "softmax", "the model has 26 parameters"),
        (np.zeros(26, np.float32), X[:, :2], Y, "softmax", "takes 3 features"),
        (np.zeros(26, np.float32), X[0], Y, "softmax", "takes 3 features"),
        (np.zeros(26, np.float32), X.astype(np.int64), Y, "softmax", "type int64"),
        (np.zeros(26, np.float32), X, Y[:4], "softmax", "5 rows need one integer class each"),
        (np.zeros(26, np.float32), X, Y.astype(np.float32), "softmax", "one integer class each"),
        (np.zeros(26, np.float32), X, Y + 2, "softmax", "outside 0 to 1"),
        (np.zeros(26, np.float32), X, Y - 1, "softmax", "outside 0 to 1"),
        (np.zeros(26, np.float32), X, TARGETS[:, 0], "mean_squared", "5 rows need 2 float each"),
        (np.zeros(26, np.float32), X, Y, "mean_squared", "5 rows need 2 float each"),
        (np.zeros(26, np.float32), X, Y, "hinge", "'hinge' is unknown"),
        (np.zeros(26, np.float32), X[:0], Y[:0], "softmax", "no rows"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    flat: npt.NDArray[np.float32], x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], head: Head, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        loss_and_gradient(flat, MODEL, x, y, head)


def test_the_seed_has_32_bytes() -> None:
    with pytest.raises(ConfigurationError, match="has 31 bytes"):
        initial_flat(MODEL, bytes(31))
