"""Graphs for the LiteRT runtimes: equal to numpy's arithmetic, the same bytes each time, and nothing unsafe goes in."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_array_equal

from hushfleet.errors import ConfigurationError
from hushfleet.graphs import file
from hushfleet.graphs import runtime as runtimes
from hushfleet.graphs.runtime import Runtime, SealedFile, Session, find_runtime
from hushfleet.graphs.training import training_file
from hushfleet.learning.layers import Head, forward, initial_flat, loss_and_gradient
from hushfleet.wire.layers import (
    ACTIVATIONS,
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

MODEL = (Dense(6, 16, "relu"), Dense(16, 8, "tanh"), Dense(8, 8, "sigmoid"), Dense(8, 3))
ROWS = 8
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=["litert", "tflite_runtime"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    try:
        found: Runtime = getattr(runtimes, request.param)()
    except ConfigurationError as error:
        pytest.skip(f"{request.param}: {error}")
    return found


def session(runtime: Runtime, layers: tuple[Layer, ...] = MODEL, head: Head = "softmax", rows: int = ROWS) -> Session:
    return Session(runtime, SealedFile.of(training_file(runtime.schema, layers, head, rows)))


def rows_of(layers: tuple[Layer, ...], head: Head, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, layers[0].inputs)).astype(np.float32)
    outputs = layers[-1].outputs
    if head == "softmax":
        return x, generator.integers(0, outputs, ROWS).astype(np.int32)
    return x, generator.normal(size=(ROWS, outputs)).astype(np.float32)


def inputs(layers: tuple[Layer, ...] = MODEL, head: Head = "softmax") -> dict[str, npt.NDArray[Any]]:
    x, y = rows_of(layers, head)
    return {"w": initial_flat(layers, bytes(32)), "x": x, "y": y, "m": np.ones((ROWS, 1), np.float32)}


@pytest.mark.parametrize("head", ["softmax", "mean_squared"])
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(5, 3), (1, 1), (7, 16, 4), (36, 64, 32, 7)])
def test_losses_and_gradients_are_numpys(runtime: Runtime, widths: tuple[int, ...], act: str, head: Head) -> None:
    shapes = list(pairwise(widths))
    compare(runtime, (*(Dense(*shape, act) for shape in shapes[:-1]), Dense(*shapes[-1])), head)


ALONG_TIME: dict[str, tuple[Layer, ...]] = {
    "conv1d": (Conv1d(20, 3, 8, 5, 1, "relu"), Conv1d(16, 8, 4, 3, 2, "tanh"), Dense(28, 4)),
    "conv1d whose stride leaves steps over": (Conv1d(17, 2, 3, 3, 5, "sigmoid"), Conv1d(3, 3, 5, 1, 2), Dense(10, 3)),
    "conv1d whose windows end within a stride": (Conv1d(16, 3, 4, 3, 2), Conv1d(7, 4, 5, 4, 3, "tanh"), Dense(10, 2)),
    "conv1d of a single window": (Conv1d(6, 2, 4, 6, 1, "relu"), Dense(4, 3)),
    "conv1d after dense, and last": (Dense(5, 12, "tanh"), Conv1d(6, 2, 3, 3, 1)),
    "conv1d of one channel": (Conv1d(9, 1, 1, 3, 1, "relu"), Dense(7, 3)),
    "depthwise": (DepthwiseConv1d(20, 3, 5, 1, "tanh"), DepthwiseConv1d(16, 3, 3, 2, "relu"), Dense(21, 4)),
    "depthwise of one channel": (Dense(4, 12), DepthwiseConv1d(12, 1, 3, 5, "sigmoid"), Dense(2, 3)),
    "avgpool that leaves steps over": (Conv1d(20, 2, 3, 2), AvgPool(19, 3, 4), Dense(12, 3)),
    "avgpool of single steps, and of all": (Conv1d(6, 2, 3, 2), AvgPool(5, 3, 1), AvgPool(5, 3, 5), Dense(3, 3)),
    "maxpool that leaves steps over": (Conv1d(20, 2, 3, 2), MaxPool(19, 3, 4), Dense(12, 3)),
    "maxpool of single steps, first of all": (MaxPool(6, 2, 1), Conv1d(6, 2, 2, 2), MaxPool(5, 2, 5), Dense(2, 3)),
    "global average": (Conv1d(20, 2, 5, 3, 1, "relu"), GlobalAverage(18, 5), Dense(5, 3)),
    "global average of one step, and last": (Dense(4, 6), GlobalAverage(1, 6)),
    "layer norm": (LayerNorm(10, 4, "tanh"), Conv1d(10, 4, 6, 3), LayerNorm(8, 6, "relu"), Dense(48, 3)),
    "layer norm of one channel": (Conv1d(10, 2, 1, 3), LayerNorm(8, 1), Dense(8, 3)),
    "gru": (Gru(10, 3, 4), Dense(4, 3)),
    "gru after another layer": (Conv1d(12, 2, 4, 3, 1, "tanh"), Gru(10, 4, 5), Dense(5, 3)),
    "gru of one step, one channel, one unit": (Dense(3, 1), Gru(1, 1, 1), Dense(1, 2)),
    "the example": (
        Conv1d(128, 6, 16, 5, 2, "relu"),
        AvgPool(62, 16, 2),
        Conv1d(31, 16, 32, 5, 1, "relu"),
        GlobalAverage(27, 32),
        Dense(32, 6),
    ),
}


@pytest.mark.parametrize("head", ["softmax", "mean_squared"])
@pytest.mark.parametrize("name", ALONG_TIME)
def test_layers_along_time_are_numpys(runtime: Runtime, name: str, head: Head) -> None:
    compare(runtime, ALONG_TIME[name], head)


def test_of_equal_steps_the_first_gets_the_gradient(runtime: Runtime) -> None:
    """The first channel makes all steps of a window equal; the second, whose weight is 0, tells them apart."""
    layers = (Conv1d(6, 2, 1, 1), MaxPool(6, 1, 3), Dense(2, 2))
    given = inputs(layers)
    given["w"][1] = 0
    given["x"][:, :6] = 1
    _, gradient = loss_and_gradient(given["w"], layers, given["x"], given["y"], "softmax")
    assert gradient[1] != 0
    assert np.abs(session(runtime, layers).call("grad", **given)["grad"] - gradient).max() <= TOLERANCE


def test_every_kind_of_layer_is_among_them() -> None:
    assert {layer.kind for layers in ALONG_TIME.values() for layer in layers} == {kind.KIND for kind in get_args(Layer)}


def test_a_graph_that_would_be_too_large_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MOST_OPERATORS", 100)
    session(runtime)
    with pytest.raises(ConfigurationError, match="more than 100 operators: this model needs numpy"):
        session(runtime, (Gru(10, 3, 4), Dense(4, 2)))


def compare(runtime: Runtime, layers: tuple[Layer, ...], head: Head) -> None:
    opened = session(runtime, layers, head)
    given = inputs(layers, head)
    for seed in range(3):
        given["w"] = initial_flat(layers, bytes([seed] * 32))
        losses, gradient = loss_and_gradient(given["w"], layers, given["x"], given["y"], head)
        found = opened.call("grad", **given)
        assert np.abs(found["loss"] - losses).max() <= TOLERANCE
        assert np.abs(found["grad"] - gradient).max() <= TOLERANCE
        out = opened.call("infer", w=given["w"], x=given["x"])["out"]
        assert np.abs(out - forward(given["w"], layers, given["x"])).max() <= TOLERANCE


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_an_activation_on_the_last_layer_too(runtime: Runtime, act: str) -> None:
    layers = (Dense(4, 3, act),)
    given = inputs(layers)
    _, gradient = loss_and_gradient(given["w"], layers, given["x"], given["y"], "softmax")
    assert np.abs(session(runtime, layers).call("grad", **given)["grad"] - gradient).max() <= TOLERANCE


def test_far_out_the_loss_is_still_numpys(runtime: Runtime) -> None:
    layers = (Dense(2, 2),)
    x = np.zeros((ROWS, 2), np.float32)
    x[:, 0] = np.linspace(-1e6, 1e6, ROWS)
    given = {**inputs(layers), "w": np.array([-1, 1, 0, 0, 0, 0], np.float32), "x": x}
    losses, gradient = loss_and_gradient(given["w"], layers, x, given["y"], "softmax")
    found = session(runtime, layers).call("grad", **given)
    np.testing.assert_allclose(found["loss"], losses, rtol=1e-6)
    np.testing.assert_allclose(found["grad"], gradient, rtol=1e-6)


def test_rows_without_weight_change_nothing(runtime: Runtime) -> None:
    opened, given = session(runtime), inputs()
    given["m"][5:] = 0
    given["x"][5:], given["y"][5:] = 0, 0
    before = opened.call("grad", **given)
    given["x"][5:], given["y"][5:] = 1e3, 2
    after = opened.call("grad", **given)
    assert_array_equal(after["grad"], before["grad"])
    assert_array_equal(after["loss"][:5], before["loss"][:5])
    _, gradient = loss_and_gradient(given["w"], MODEL, given["x"][:5], given["y"][:5], "softmax")
    assert np.abs(after["grad"] - gradient).max() <= TOLERANCE


def test_results_are_not_overwritten_by_the_next_call(runtime: Runtime) -> None:
    opened, given = session(runtime), inputs()
    first = opened.call("grad", **given)
    kept = first["grad"].copy()
    opened.call("grad", **{**given, "w": given["w"] + 1})
    assert_array_equal(first["grad"], kept)


def test_the_file_is_the_same_bytes_in_every_process(runtime: Runtime) -> None:
    script = (
        "import sys\n"
        "from hushfleet.graphs import runtime\n"
        "from hushfleet.graphs.training import training_file\n"
        "from hushfleet.wire.layers import Dense\n"
        "layers = (Dense(6, 16, 'relu'), Dense(16, 8, 'tanh'), Dense(8, 8, 'sigmoid'), Dense(8, 3))\n"
        f"schema = runtime.{runtime.name.replace('-', '_')}().schema\n"
        "sys.stdout.buffer.write(training_file(schema, layers, 'softmax', 8))\n"
    )
    command = [sys.executable, "-c", script]
    other = subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    assert other == training_file(runtime.schema, MODEL, "softmax", ROWS)


# The runtimes' dangers.


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("w", np.zeros(346, np.float32), r"takes w as float32\[347\], not float32\[346\]"),
        ("w", np.zeros(10, np.float32), r"takes w as float32\[347\], not float32\[10\]"),
        ("w", np.zeros(348, np.float32), r"takes w as float32\[347\], not float32\[348\]"),
        ("w", np.zeros(347, np.float64), r"takes w as float32\[347\], not float64\[347\]"),
        ("w", np.zeros(347, ">f4"), r"takes w as float32\[347\]"),
        ("w", np.zeros((1, 347), np.float32), r"not float32\[1, 347\]"),
        ("x", np.zeros((7, 6), np.float32), r"takes x as float32\[8, 6\], not float32\[7, 6\]"),
        ("x", np.zeros((8, 5), np.float32), r"not float32\[8, 5\]"),
        ("y", np.zeros(8, np.int64), r"takes y as int32\[8\], not int64\[8\]"),
        ("y", np.zeros(7, np.int32), r"not int32\[7\]"),
        ("m", np.zeros(8, np.float32), r"takes m as float32\[8, 1\], not float32\[8\]"),
    ],
)
def test_what_does_not_fit_never_reaches_the_runtime(
    runtime: Runtime, name: str, value: npt.NDArray[Any], said: str
) -> None:
    opened, given = session(runtime), inputs()
    expected = opened.call("grad", **given)["grad"]
    with pytest.raises(ConfigurationError, match=said):
        opened.call("grad", **{**given, name: value})
    assert_array_equal(opened.call("grad", **given)["grad"], expected)


def test_neither_do_missing_or_unknown_names(runtime: Runtime) -> None:
    opened, given = session(runtime), inputs()
    with pytest.raises(ConfigurationError, match=r"infer takes \['w', 'x'\], not \['x'\]"):
        opened.call("infer", x=given["x"])
    with pytest.raises(ConfigurationError, match="grad takes"):
        opened.call("grad", **given, z=given["w"])


def test_threads_that_share_a_session_get_their_own_numbers(runtime: Runtime) -> None:
    opened, given = session(runtime, rows=ROWS), inputs()
    flats = [initial_flat(MODEL, bytes([seed] * 32)) for seed in range(4)]
    expected = [opened.call("grad", **{**given, "w": flat})["grad"] for flat in flats]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            if not np.array_equal(opened.call("grad", **{**given, "w": flats[number]})["grad"], expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_training_starts_no_threads_and_a_child_of_the_process_can_train_too(runtime: Runtime) -> None:
    """A runtime with threads of its own has none of them in a child, and may wait for them for ever."""
    script = (
        "import os, sys, numpy as np\n"
        "from hushfleet.graphs import runtime\n"
        "from hushfleet.graphs.training import training_file\n"
        "from hushfleet.learning.layers import initial_flat\n"
        "from hushfleet.wire.layers import Dense\n"
        "layers = (Dense(64, 512, 'relu'), Dense(512, 8))\n"
        f"found = runtime.{runtime.name.replace('-', '_')}()\n"
        "file = runtime.SealedFile.of(training_file(found.schema, layers, 'softmax', 32))\n"
        "opened = runtime.Session(found, file)\n"
        "x, y, m = np.ones((32, 64), 'f4'), np.zeros(32, 'i4'), np.ones((32, 1), 'f4')\n"
        "given = dict(w=initial_flat(layers, bytes(32)), x=x, y=y, m=m)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "expected = opened.call('grad', **given)['grad']\n"
        "assert len(os.listdir('/proc/self/task')) == before == 1\n"
        "if (child := os.fork()) == 0:\n"
        "    os._exit(0 if np.array_equal(opened.call('grad', **given)['grad'], expected) else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = ["timeout", "--kill-after=1", "30", sys.executable, "-c", script]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=alone)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_damaged_file_is_refused_before_the_runtime_sees_it() -> None:
    class Unreachable:
        def __init__(self, **_: Any) -> None:
            raise AssertionError("the runtime has seen it")

    reached = Runtime("none", ModuleType("none"), Unreachable)
    made = SealedFile.of(bytes(range(256)))
    for place in range(256):
        flipped = bytearray(made.data)
        flipped[place] ^= 1
        with pytest.raises(ConfigurationError, match="changed or damaged"):
            Session(reached, replace(made, data=bytes(flipped)))
    for data in (b"", made.data[:-1], made.data + b"\0"):
        with pytest.raises(ConfigurationError, match="changed or damaged"):
            Session(reached, SealedFile(data, made.seal))


def test_litert_outlives_damaged_files_that_were_sealed_so(runtime: Runtime) -> None:
    """What the seal is for on tflite-runtime; LiteRT verifies files itself."""
    if runtime.name != "litert":
        pytest.skip(f"{runtime.name} crashes on damaged files; the seal keeps them from it")
    script = (
        "import numpy as np\n"
        "from hushfleet.graphs.runtime import SealedFile, Session, litert\n"
        "from hushfleet.graphs.training import training_file\n"
        "from hushfleet.learning.layers import initial_flat\n"
        "from hushfleet.wire.layers import Dense\n"
        "layers, found = (Dense(6, 4, 'relu'), Dense(4, 3)), litert()\n"
        "data, generator = training_file(found.schema, layers, 'softmax', 8), np.random.default_rng(0)\n"
        "given = dict(w=initial_flat(layers, bytes(32)), x=np.ones((8, 6), 'f4'))\n"
        "refused = 0\n"
        "for _ in range(200):\n"
        "    damaged = bytearray(data)\n"
        "    for _ in range(3):\n"
        "        damaged[generator.integers(len(data))] = generator.integers(256)\n"
        "    try:\n"
        "        Session(found, SealedFile.of(bytes(damaged))).call('infer', **given)\n"
        "    except Exception:\n"
        "        refused += 1\n"
        "print(refused)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=100, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 50


class Failing:
    """A runtime that fails while it opens a graph, or later."""

    def __init__(self, runtime: Runtime, opens: bool) -> None:
        self._runtime, self._opens = runtime, opens

    def __call__(self, **arguments: Any) -> Any:
        if not self._opens:
            raise ValueError("Op builtin_code out of range: 999\nmore")
        opened = self._runtime.interpreter(**arguments)
        runner = opened.get_signature_runner

        def fails(**_: Any) -> None:
            raise RuntimeError("tensor arena exhausted")

        def failing(name: str) -> Any:
            details = staticmethod(runner(name).get_input_details)
            return type("Runner", (), {"get_input_details": details, "__call__": staticmethod(fails)})()

        return SimpleNamespace(get_signature_list=opened.get_signature_list, get_signature_runner=failing)


def test_a_runtime_that_fails_says_so_in_our_words(runtime: Runtime) -> None:
    with pytest.raises(ConfigurationError, match=f"{runtime.name} cannot open the graph: Op builtin_code .* 999$"):
        session(replace(runtime, interpreter=Failing(runtime, opens=False)))
    opened = session(replace(runtime, interpreter=Failing(runtime, opens=True)))
    with pytest.raises(ConfigurationError, match=f"{runtime.name} failed at the graph: tensor arena exhausted"):
        opened.call("grad", **inputs())


# Which runtime there is.


def test_numpy_2_keeps_tflite_runtime_from_being_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "2.1.0")
    monkeypatch.setattr(runtimes, "import_module", pytest.fail)
    with pytest.raises(ConfigurationError, match=r"cannot run beside numpy 2\.1\.0: .*tflite-legacy"):
        runtimes.tflite_runtime()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemError("numpy.core.multiarray failed to import"), r"does not run here \(SystemError\)"),
        (ImportError("libm.so.6: version GLIBC_2.34 not found"), "cannot be loaded .*GLIBC_2.34"),
    ],
)
def test_a_runtime_that_imports_but_does_not_run_is_refused_with_advice(
    runtime: Runtime, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise error

    modules = {"tflite": runtime.schema, "tflite_runtime.interpreter": SimpleNamespace(Interpreter=broken)}
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setattr(runtimes, "import_module", modules.__getitem__)
    with pytest.raises(ConfigurationError, match=f"tflite-runtime .*{said}.*pip install"):
        runtimes.tflite_runtime()


def test_without_any_runtime_both_reasons_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(runtimes, "import_module", missing)
    with pytest.raises(ConfigurationError, match=r"litert is not installed.*hushfleet\[tflite\].*; tflite-runtime"):
        find_runtime()
