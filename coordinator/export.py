"""The newest model as files for elsewhere, each measured on the owner's rows: `hushfleet coordinator export`.

Plain numpy needs nothing; `.tflite` needs the extra [tflite], its int8 form and ONNX the extra [export].
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import numpy.typing as npt

from coordinator.rows import Rows
from hushfleet.errors import ConfigurationError
from hushfleet.graphs.inference import SIGNATURE, inference_file
from hushfleet.graphs.runtime import SealedFile, Session, find_runtime
from hushfleet.learning.layers import Head, forward, unflatten
from hushfleet.learning.passes import Floats
from hushfleet.wire.layers import Layer

NO_ANSWERS = "the last layers are each device's own and are not here, so that the model gives no answers by itself"
INSTALL = 'pip install "hushfleet[export]"'
PARTS = {"layer_norm": ("gains", "biases"), "gru": ("weights", "inner", "biases")}
_Run = Callable[[bytes, Floats], Floats]
"""From a file's content and rows, float32[n, inputs], to answers, float32[n, outputs]."""
_CALIBRATED = 500
"""Rows from which the ranges of an int8 file are taken, spread over all."""


@dataclass(frozen=True, slots=True)
class FinishedModel:
    """A model to export.

    Attributes:
        version: its number.
        layers: the layers that everyone has alike.
        flat: float32[d], their parameters.
        head: what stands on the last layer.
        personal: how many more layers each device has to itself; nobody else has them.
    """

    version: int
    layers: Sequence[Layer]
    flat: npt.NDArray[np.float32]
    head: Head
    personal: int = 0

    def answers(self, x: Floats) -> Floats:
        """What a file should give: shares of 1 under `softmax`, else the outputs; float32[n, outputs]."""
        out = forward(self.flat, self.layers, x)
        if self.head == "mean_squared":
            return out
        powers = np.exp(out - out.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, or why it is not there.

    Attributes:
        name: of the file.
        bytes: its size; 0 if it was not written.
        sha256: of its content; empty if it was not written.
        measured: accuracy under `softmax`, else the mean absolute error, on the owner's rows; None without rows.
        trouble: why it was not written; empty if it was.
    """

    name: str
    bytes: int = 0
    sha256: str = ""
    measured: float | None = None
    trouble: str = ""


def export(model: FinishedModel, rows: Rows | None, directory: Path) -> Iterator[Exported]:
    """Write every file that can be written here, and last of all `model.json`, which tells of them.

    Raises:
        ConfigurationError: the directory cannot be written to.
    """
    made: list[Exported] = []
    kinds: tuple[tuple[str, Callable[[], bytes], _Run], ...] = (
        ("model.npz", lambda: arrays(model), lambda data, x: _run_arrays(model, data, x)),
        ("model.tflite", lambda: _float_file(model), _run_tflite),
        ("model-int8.tflite", lambda: _int8_file(model, rows), _run_tflite),
        ("model.onnx", lambda: _onnx_file(model), _run_onnx),
    )
    for name, make, run in kinds:
        try:
            if model.personal and name != "model.npz":
                raise ConfigurationError(NO_ANSWERS)
            one = _measured(model, rows, directory / name, make(), run)
        except ConfigurationError as error:
            one = Exported(name, trouble=str(error))
        made.append(one)
        yield one
    said = {
        "version": model.version,
        "head": model.head,
        "layers": [asdict(layer) for layer in model.layers],
        "personal": model.personal,
        "rows": len(rows.x) if rows else 0,
        "measure": "accuracy" if model.head == "softmax" else "mean absolute error",
        "files": [asdict(one) for one in made],
    }
    _write(directory / "model.json", json.dumps(said, indent=1).encode())


def _measured(model: FinishedModel, rows: Rows | None, path: Path, data: bytes, run: _Run) -> Exported:
    _write(path, data)
    measured = None
    if rows is not None:
        answers = run(data, rows.x)
        if model.head == "softmax":
            measured = float(np.mean(answers.argmax(axis=1) == rows.y))
        else:
            measured = float(np.abs(answers - rows.y).mean())
    return Exported(path.name, len(data), hashlib.sha256(data).hexdigest(), measured)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}; name another directory") from None


def arrays(model: FinishedModel) -> bytes:
    """Numpy's own file: an array for each block of each layer, such as `1.dense.weights`, in their order."""
    named = {
        f"{number}.{layer.kind}.{name}": part
        for number, (layer, parts) in enumerate(zip(model.layers, unflatten(model.flat, model.layers), strict=True), 1)
        for name, part in zip(PARTS.get(layer.kind, ("weights", "biases")), parts, strict=False)
    }
    stream = io.BytesIO()
    np.savez(stream, **named)  # type: ignore[arg-type]
    return stream.getvalue()


def _run_arrays(model: FinishedModel, data: bytes, x: Floats) -> Floats:
    read = np.load(io.BytesIO(data))
    flat = np.concatenate([read[name].ravel() for name in read])
    return replace(model, flat=flat).answers(x)


def _float_file(model: FinishedModel, rows: int = 1) -> bytes:
    return inference_file(find_runtime().schema, model.layers, model.flat, model.head, rows)


def _int8_file(model: FinishedModel, rows: Rows | None) -> bytes:
    """The float file with weights and values in 8 bits, whose ranges are those on the owner's rows."""
    if rows is None:
        raise ConfigurationError("its ranges are measured on rows: name some with --rows")
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise ConfigurationError(f"ai-edge-quantizer cannot be loaded ({error}): {INSTALL}") from None
    chosen = np.linspace(0, len(rows.x) - 1, min(_CALIBRATED, len(rows.x))).astype(int)
    with catch_warnings():
        # That looking at every value takes memory is known.
        simplefilter("ignore", UserWarning)
        # The library averages the ranges of its calls; one call with all rows has their true ends.
        together = quantizer.Quantizer(bytearray(_float_file(model, len(chosen))), recipe.static_wi8_ai8())
        ranges: Any = together.calibrate({SIGNATURE: [{"x": rows.x[chosen]}]}, num_threads=1)
        single = quantizer.Quantizer(bytearray(_float_file(model)), recipe.static_wi8_ai8())
        return bytes(single.quantize(ranges, enable_progress_report=False).quantized_model)


def _run_tflite(data: bytes, x: Floats) -> Floats:
    session = Session(find_runtime(), SealedFile.of(data))
    return np.concatenate([session.answer(SIGNATURE, x[[row]]) for row in range(len(x))])


def _onnx_file(model: FinishedModel) -> bytes:
    try:
        from coordinator.onnx_file import onnx_file
    except ImportError as error:
        raise ConfigurationError(f"onnx cannot be loaded ({error}): {INSTALL}") from None
    return onnx_file(model.layers, model.flat, model.head)


def _run_onnx(data: bytes, x: Floats) -> Floats:
    from onnx.reference import ReferenceEvaluator

    answers: Any = ReferenceEvaluator(data).run(["out"], {"x": x})
    return np.asarray(answers[0])
