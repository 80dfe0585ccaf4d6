"""How a model does on rows kept aside: what the sums over devices say is what their pooled rows say."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from described_statistics import schema_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hushfleet.judgement import EDGES, LARGEST, Judgement, judge, length
from hushfleet.wire.schema import ANOMALY, Schema

CLASSES, FORECAST = schema_of(1, 3), schema_of(1, 0)
ANOMALIES = schema_of(2, 0, ANOMALY)
ROWS = 12


def together(schema: Schema, devices: list[tuple[NDArray[Any], NDArray[Any]]]) -> Judgement:
    """The sum of what devices say, each judging in two batches."""
    said = [judge(schema, [(out[:5], told[:5]), (out[5:], told[5:])]) for out, told in devices]
    return Judgement.split(schema, np.sum(said, axis=0))


def of_classes(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Outputs that lean to the right class, some of them far."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, ROWS)
    outputs = generator.normal(0, 3, (ROWS, 3)) + 2 * (labels[:, None] == np.arange(3))
    return outputs.astype(np.float32), labels


def test_the_bins_of_sizes_are_a_quarter_of_an_octave_up_to_the_largest_error() -> None:
    assert (EDGES[0], EDGES[72], EDGES[76], EDGES[-1]) == (0.0, 1.0, 2.0, LARGEST)
    assert EDGES[1] == pytest.approx(2**-17.75)


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 2**16))
def test_f1_of_the_sums_is_that_of_the_pooled_rows_and_the_area_within_a_bin(devices: int, seed: int) -> None:
    rows = [of_classes(seed + one) for one in range(devices)]
    sums = together(CLASSES, rows)
    outputs, labels = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    told = outputs.argmax(axis=1)
    assert float(sums.both.sum()) / devices == pytest.approx(float((told == labels).mean()))
    shares = np.exp(outputs.astype(float)) / np.exp(outputs.astype(float)).sum(axis=1, keepdims=True)
    odds = np.clip(np.log(shares / (1 - shares)), -8, 7.5)
    for one, (f1, auc) in enumerate(zip(sums.f1(), sums.auc(), strict=True)):
        mine, right = labels == one, told == one
        hits, all_ = int((mine & right).sum()), int(mine.sum() + right.sum())
        assert f1 == (pytest.approx(2 * hits / all_) if all_ else None)
        pairs = [(x, y) for x in odds[mine, one] for y in odds[~mine, one]]
        if not pairs:
            assert auc is None
            continue
        # In a bin nobody wins: whoever wins or loses by a whole bin is counted so.
        surely, maybe = (sum(math.floor(x) - math.floor(y) > by for x, y in pairs) / len(pairs) for by in (0, -1))
        assert auc == pytest.approx((surely + maybe) / 2)
        exact = sum((x > y) + 0.5 * (x == y) for x, y in pairs) / len(pairs)
        assert surely <= exact <= maybe


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 2**16), st.sampled_from([0.01, 1.0, 50.0]))
def test_absolute_and_pinball_errors_are_exact_and_quantiles_within_a_bin(
    devices: int, seed: int, width: float
) -> None:
    generator = np.random.default_rng(seed)
    rows = [
        (generator.normal(0, width, (ROWS, 1)).astype(np.float32), np.zeros((ROWS, 1), np.float32))
        for _ in range(devices)
    ]
    sums = together(FORECAST, rows)
    errors = np.sort(np.clip(-np.concatenate([out for out, _ in rows])[:, 0].astype(float), -LARGEST, LARGEST))
    assert sums.absolute() == pytest.approx(np.abs(errors).mean())
    for level in (0.1, 0.5, 0.9):
        pinball = np.maximum(level * errors, (level - 1) * errors).mean()
        assert sums.pinball(level) == pytest.approx(pinball)
    for at in range(len(errors)):
        found, right = sums.quantile((at + 0.5) / len(errors)), errors[at]
        assert abs(found - right) <= max(0.2 * abs(right), EDGES[1])
    ordered = [sums.quantile(level) for level in np.linspace(0, 1, 41)]
    assert all(one <= next_ for one, next_ in pairwise(ordered))


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.sampled_from([1e-3, 1.0, 100.0]))
def test_an_anomalys_quantile_is_the_pooled_one_within_a_bin(seed: int, width: float) -> None:
    generator = np.random.default_rng(seed)
    rows = [
        (generator.normal(0, width, (ROWS, 4)).astype(np.float32), np.zeros((ROWS, 4), np.float32)) for _ in range(3)
    ]
    sums = together(ANOMALIES, rows)
    pooled = np.concatenate([out for out, _ in rows]).astype(float)
    errors = np.sort(np.minimum((pooled**2).mean(axis=1), LARGEST))
    for at in range(len(errors)):
        assert sums.quantile((at + 0.5) / len(errors)) == pytest.approx(errors[at], rel=0.2, abs=EDGES[1])


@pytest.mark.parametrize("schema", [CLASSES, FORECAST, ANOMALIES])
def test_numbers_are_from_0_to_1_and_add_up_whatever_the_model_says(schema: Schema) -> None:
    outputs = np.array([[np.nan] * 4, [np.inf] * 4, [-3e38] * 4, [1e-30] * 4, [0.0] * 4], np.float32)
    outputs = outputs[:, : schema.outputs()]
    targets = np.array([0, 1, 2, 0, 0]) if schema.classes else np.zeros_like(outputs)
    numbers = judge(schema, [(outputs, targets)])
    assert numbers.shape == (length(schema),)
    assert ((numbers >= 0) & (numbers <= 1)).all()
    judged = Judgement.split(schema, numbers)
    assert judged.flat().tolist() == numbers.tolist()
    assert [shares.sum() for shares, _ in judged.wholes()] == pytest.approx([1.0] * len(judged.wholes()))
    assert judged.present.tolist() == [1.0]


def test_without_rows_nothing_is_said() -> None:
    assert not judge(CLASSES, []).any()
