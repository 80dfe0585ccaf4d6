"""`hushfleet coordinator export`: every file gives what the model gives, and is measured on the owner's rows."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from coordinator import export as exporting
from coordinator.export import Exported, FinishedModel, export
from coordinator.rows import Rows, read_rows
from hushfleet.errors import ConfigurationError
from hushfleet.graphs.runtime import SealedFile, Session, find_runtime
from hushfleet.learning.layers import Head, initial_flat, parameter_count
from hushfleet.learning.local import train
from hushfleet.wire.layers import (
    AvgPool,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    GlobalAverage,
    Gru,
    Layer,
    LayerNorm,
    MaxPool,
)

MODELS: dict[str, tuple[Layer, ...]] = {
    "dense": (Dense(4, 8, "relu"), Dense(8, 8, "tanh"), Dense(8, 8, "sigmoid"), Dense(8, 3)),
    "conv1d, avgpool, global average": (
        Conv1d(20, 2, 6, 5, 2, "relu"),
        AvgPool(8, 6, 2),
        Conv1d(4, 6, 5, 2, 1, "tanh"),
        GlobalAverage(3, 5),
        Dense(5, 3),
    ),
    "depthwise, layer norm, maxpool": (
        LayerNorm(20, 2, "sigmoid"),
        DepthwiseConv1d(20, 2, 5, 2, "relu"),
        Conv1d(8, 2, 4, 1, 1),
        LayerNorm(8, 4, "relu"),
        MaxPool(8, 4, 3),
        Dense(8, 3),
    ),
    "one step, one channel": (Dense(4, 6, "tanh"), Conv1d(6, 1, 1, 3, 3), MaxPool(2, 1, 2)),
    "gru": (Conv1d(12, 2, 4, 3, 1, "relu"), Gru(10, 4, 5), Dense(5, 3)),
    "gru of one step": (Gru(1, 4, 5), Dense(5, 3)),
}


def needs(module: str) -> None:
    pytest.importorskip(module, reason=f"the extra [export] is not installed: no {module}")


def model_of(layers: Sequence[Layer], head: Head = "softmax") -> FinishedModel:
    generator = np.random.default_rng(1)
    flat = initial_flat(layers, bytes(32))
    return FinishedModel(7, layers, flat + generator.normal(0, 0.1, flat.size).astype(np.float32), head)


def x_of(layers: Sequence[Layer], count: int = 40) -> npt.NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(count, layers[0].inputs)).astype(np.float32)


def test_of_a_model_whose_last_layers_are_each_devices_own_the_shared_ones_are_written(tmp_path: Path) -> None:
    whole = model_of(MODELS["dense"])
    shared = replace(whole, layers=whole.layers[:-1], flat=whole.flat[: parameter_count(whole.layers[:-1])], personal=1)
    made = {one.name: one for one in export(shared, None, tmp_path)}
    read = np.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(np.concatenate([read[name].ravel() for name in read]), shared.flat)
    for name in ("model.tflite", "model-int8.tflite", "model.onnx"):
        assert "the last layers are each device's own and are not here" in made[name].trouble
        assert not (tmp_path / name).exists()
    assert json.loads((tmp_path / "model.json").read_text())["personal"] == 1


@pytest.mark.parametrize("head", ["softmax", "mean_squared"])
@pytest.mark.parametrize("name", MODELS)
def test_a_tflite_file_gives_what_the_model_gives(name: str, head: Head) -> None:
    try:
        find_runtime()
    except ConfigurationError as error:
        pytest.skip(str(error))
    model, x = model_of(MODELS[name], head), x_of(MODELS[name])
    data = exporting._float_file(model)
    assert np.abs(exporting._run_tflite(data, x) - model.answers(x)).max() <= 1e-5
    assert data == exporting._float_file(model)


@pytest.mark.parametrize("name", MODELS)
def test_an_int8_file_comes_near(name: str) -> None:
    needs("ai_edge_quantizer")
    model, x = model_of(MODELS[name]), x_of(MODELS[name])
    data = exporting._int8_file(model, Rows(x, np.zeros(len(x), np.int64)))
    assert np.abs(exporting._run_tflite(data, x) - model.answers(x)).max() <= 0.05
    taken = runtime_of(data)["x"]
    assert taken["dtype"] == np.int8


def runtime_of(data: bytes) -> dict[str, Any]:
    details: dict[str, Any] = Session(find_runtime(), SealedFile.of(data))._runners["infer"].get_input_details()
    return details


@pytest.mark.parametrize("head", ["softmax", "mean_squared"])
@pytest.mark.parametrize("name", MODELS)
def test_so_does_an_onnx_file(name: str, head: Head) -> None:
    needs("onnx")
    model, x = model_of(MODELS[name], head), x_of(MODELS[name])
    data = exporting._onnx_file(model)
    assert np.abs(exporting._run_onnx(data, x) - model.answers(x)).max() <= 1e-5
    assert data == exporting._onnx_file(model)


def test_the_numpy_file_holds_the_flat_vector_by_names() -> None:
    model = model_of((*MODELS["depthwise, layer norm, maxpool"][:-1], Dense(8, 3)))
    found = np.load(io.BytesIO(exporting.arrays(model)))
    assert list(found)[:4] == [
        "1.layer_norm.gains",
        "1.layer_norm.biases",
        "2.depthwise_conv1d.weights",
        "2.depthwise_conv1d.biases",
    ]
    np.testing.assert_array_equal(np.concatenate([found[name].ravel() for name in found]), model.flat)
    recurrent = np.load(io.BytesIO(exporting.arrays(model_of(MODELS["gru"]))))
    assert [name for name in recurrent if "gru" in name] == ["2.gru.weights", "2.gru.inner", "2.gru.biases"]
    assert found["6.dense.weights"].shape == (8, 3)


def circle(rows: int, seed: int = 0) -> Rows:
    x = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    return Rows(x, (np.square(x).sum(axis=1) > 1).astype(np.int64))


def trained() -> FinishedModel:
    layers, rows = (Dense(2, 16, "relu"), Dense(16, 2)), circle(300, 1)
    flat = initial_flat(layers, bytes(32))
    numbers: dict[str, Any] = {"steps": 500, "batch": 32, "rate": 0.1, "momentum": 0.9, "proximal": 0.0}
    result = train(flat, layers, rows.x, rows.y, head="softmax", order_seed=bytes(32), **numbers)
    return FinishedModel(12, layers, flat + result.delta, "softmax")


def test_every_file_is_measured_and_told_of(tmp_path: Path) -> None:
    needs("onnx")
    needs("ai_edge_quantizer")
    model, rows = trained(), circle(400)
    made = list(export(model, rows, tmp_path))
    expected = float(np.mean(model.answers(rows.x).argmax(axis=1) == rows.y))
    assert expected > 0.95
    assert [one.name for one in made] == ["model.npz", "model.tflite", "model-int8.tflite", "model.onnx"]
    for one in made:
        data = (tmp_path / one.name).read_bytes()
        assert (one.bytes, one.sha256, one.trouble) == (len(data), hashlib.sha256(data).hexdigest(), "")
        assert one.measured == pytest.approx(expected, abs=0.03 if "int8" in one.name else 0)
    int8 = (tmp_path / "model-int8.tflite").read_bytes()
    assert exporting._run_tflite(int8, rows.x).dtype == np.float32
    assert not np.array_equal(exporting._run_tflite(int8, rows.x), model.answers(rows.x))
    told = json.loads((tmp_path / "model.json").read_text())
    assert [Exported(**one) for one in told["files"]] == made
    assert (told["version"], told["rows"], told["measure"]) == (12, 400, "accuracy")
    assert told["layers"][0] == {"inputs": 2, "outputs": 16, "act": "relu", "kind": "dense"}


def test_a_number_to_predict_is_measured_by_its_mean_absolute_error(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    model = FinishedModel(1, (Dense(1, 1),), np.array([2, 0], np.float32), "mean_squared")
    for one in export(model, Rows(x, 2 * x + np.float32(0.5)), tmp_path):
        if not one.trouble:
            assert one.measured == pytest.approx(0.5, abs=0.02)


def test_what_cannot_be_written_says_why_and_the_rest_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise ConfigurationError("litert is not installed")

    monkeypatch.setattr(exporting, "find_runtime", none)
    monkeypatch.setitem(__import__("sys").modules, "coordinator.onnx_file", None)
    numpy, tflite, int8, onnx = export(trained(), None, tmp_path)
    assert (numpy.trouble, numpy.measured) == ("", None)
    assert tflite == Exported("model.tflite", trouble="litert is not installed")
    assert "name some with --rows" in int8.trouble
    assert "onnx cannot be loaded" in onnx.trouble
    assert 'pip install "hushfleet[export]"' in onnx.trouble
    assert {file.name for file in tmp_path.iterdir()} == {"model.npz", "model.json"}


def test_a_gru_of_too_many_steps_says_so(tmp_path: Path) -> None:
    try:
        find_runtime()
    except ConfigurationError as error:
        pytest.skip(str(error))
    assert list(export(model_of((Gru(500, 1, 1), Dense(1, 2))), None, tmp_path))[1].trouble == ""
    long = list(export(model_of((Gru(700, 1, 1), Dense(1, 2))), None, tmp_path))[1]
    assert "more than 8192 operators" in long.trouble


def test_a_gru_in_8_bits_loses_little_of_what_it_has_learned(tmp_path: Path) -> None:
    """Twenty noisy samples, of which the first half says what the unit has to remember over the second."""
    needs("ai_edge_quantizer")
    layers, generator = (Gru(20, 1, 8), Dense(8, 2)), np.random.default_rng(3)
    x, y = generator.normal(size=(1200, 20)).astype(np.float32), generator.integers(0, 2, 1200)
    x[:, :10] += 2 * y[:, None] - 1
    numbers: dict[str, Any] = {"steps": 400, "batch": 32, "rate": 0.2, "momentum": 0.9, "proximal": 0.0}
    flat = initial_flat(layers, bytes(32))
    result = train(flat, layers, x[:800], y[:800], head="softmax", order_seed=bytes(32), **numbers)
    made = export(FinishedModel(3, layers, flat + result.delta, "softmax"), Rows(x[800:], y[800:]), tmp_path)
    numpy, tflite, int8, _ = (one.measured for one in made)
    assert numpy is not None
    assert numpy > 0.9
    assert tflite == numpy
    assert int8 == pytest.approx(numpy, abs=0.03)


# The owner's rows.


def test_rows_with_classes_numbers_and_none(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,class,b\n1,0,2.5\n\n-1,2,0\n")
    found = read_rows(file, "class", "softmax", 2, 3)
    np.testing.assert_array_equal(found.x, np.array([[1, 2.5], [-1, 0]], np.float32))
    np.testing.assert_array_equal(found.y, [0, 2])
    found = read_rows(file, "b", "mean_squared", 2, 1)
    np.testing.assert_array_equal(found.y, np.array([[2.5], [0]], np.float32))
    found = read_rows(file, None, "mean_squared", 3, 3)
    np.testing.assert_array_equal(found.y, found.x)


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("a,b\n1,2\n", "class", "has no column 'class'"),
        ("a,class\n1,0\n", "class", "line 2: 1 features, the model takes 2"),
        ("a,b,class\n1,2,3\n", "class", "line 2, column 'class': the model's classes are 0 to 2"),
        ("a,b,class\n1,2,0.5\n", "class", "the model's classes are 0 to 2"),
        ("a,b,class\n1,x,0\n", "class", "line 2, column 'b' is no finite number"),
        ("a,b,class\n1,nan,0\n", "class", "column 'b' is no finite number"),
        ("a,b,class\n1,2\n", "class", "line 2: 2 cells where the header has 3"),
        ("a,a,class\n1,2,0\n", "class", "two columns have the same name"),
        ("a,b,class\n", "class", "has no rows"),
        ("a,b,class\n1,2,0\n", None, "name --label and --head anew"),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_their_place(
    tmp_path: Path, text: str, label: str | None, said: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_rows(file, label, "softmax", 2, 3)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*rows\.csv: No such file"):
        read_rows(tmp_path / "rows.csv", "class", "softmax", 2, 3)
