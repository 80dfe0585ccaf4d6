"""The runtimes that run graphs, LiteRT and its predecessor tflite-runtime, with the checks that they lack.

Neither is part of the base install. One or the other crashes, reads beyond its memory or gives wrong numbers if it
meets too few numbers, a damaged file, or two threads at once: nothing reaches them but through `Session`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from hushfleet.errors import ConfigurationError
from hushfleet.graphs.file import Graph, GraphFile

INSTALL = 'pip install "hushfleet[tflite]"'


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime that works here.

    Attributes:
        name: `litert` or `tflite-runtime`.
        schema: the flatbuffers schema of its files, as `GraphFile` takes it.
        interpreter: its interpreter's class.
    """

    name: str
    schema: ModuleType
    interpreter: Callable[..., Any]


def find_runtime() -> Runtime:
    """The first runtime that can run a graph here, LiteRT before tflite-runtime.

    Raises:
        ConfigurationError: none can; the text says why of each.
    """
    reasons = []
    for probe in (litert, tflite_runtime):
        try:
            return probe()
        except ConfigurationError as error:
            reasons.append(str(error))
    raise ConfigurationError("; ".join(reasons))


def litert() -> Runtime:
    """LiteRT, once it has run a graph. Raises `ConfigurationError` if it cannot, and says why."""
    return _working("litert", "ai_edge_litert.schema_py_generated", "ai_edge_litert.interpreter", INSTALL)


def tflite_runtime() -> Runtime:
    """tflite-runtime, once it has run a graph. Raises `ConfigurationError` if it cannot, and says why."""
    remedy = 'pip install "hushfleet[tflite-legacy]" (Python 3.11 only)'
    if int(np.__version__.partition(".")[0]) > 1:
        raise ConfigurationError(f"tflite-runtime cannot run beside numpy {np.__version__}: {remedy}, or {INSTALL}")
    return _working("tflite-runtime", "tflite", "tflite_runtime.interpreter", remedy)


def _working(name: str, schema: str, interpreter: str, remedy: str) -> Runtime:
    try:
        runtime = Runtime(name, import_module(schema), import_module(interpreter).Interpreter)
        file = GraphFile(runtime.schema)
        graph = Graph(file)
        graph.finish("probe", {"out": graph.unary("RELU", graph.input("x", (2,)))})
        out = Session(runtime, SealedFile.of(file.finish())).call("probe", x=np.array([-1, 1], np.float32))["out"]
    except ImportError as error:
        raise ConfigurationError(f"{name} is not installed or cannot be loaded ({error}): {remedy}") from None
    # What a library built for another numpy raises, late.
    except (SystemError, AttributeError) as error:
        raise ConfigurationError(f"{name} does not run here ({type(error).__name__}): {remedy}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; {remedy}") from None
    if out.tolist() != [0, 1]:
        raise ConfigurationError(f"{name} computes wrong numbers here: {remedy}")
    return runtime


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A graph's file with its hash: a runtime may crash on a damaged one.

    Attributes:
        data: the file.
        seal: BLAKE2b-256 of it, from when it was made.
    """

    data: bytes
    seal: bytes

    @classmethod
    def of(cls, data: bytes) -> "SealedFile":
        """A file just made."""
        return cls(data, _seal(data))


def _seal(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


class Session:
    """An open graph file: exact checks of what goes in, and one caller at a time.

    Raises:
        ConfigurationError: the file is not what was sealed, or the runtime cannot open it.
    """

    def __init__(self, runtime: Runtime, file: SealedFile) -> None:
        self._name = runtime.name
        if _seal(file.data) != file.seal:
            raise ConfigurationError("the graph's file was changed or damaged since it was made; make it anew")
        # The interpreter reads from these very bytes as long as it lives.
        self._data = file.data
        self._lock = threading.Lock()
        try:
            # A second thread would gain nothing on small models, and a process that forks would hang in it.
            self._interpreter = runtime.interpreter(model_content=self._data, num_threads=1)
            names = list(self._interpreter.get_signature_list())
            self._runners = {name: self._interpreter.get_signature_runner(name) for name in names}
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(f"{runtime.name} cannot open the graph: {_first_line(error)}") from None
        self._inputs = {
            name: {key: (tuple(one["shape"].tolist()), one["dtype"]) for key, one in runner.get_input_details().items()}
            for name, runner in self._runners.items()
        }

    def call(self, signature: str, **inputs: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Run one signature; arrays of exactly its names, shapes and types. Any thread may call.

        Raises:
            ConfigurationError: an array that does not fit, before the runtime has seen it; or the runtime failed.
        """
        wanted = self._inputs[signature]
        if inputs.keys() != wanted.keys():
            raise ConfigurationError(f"{signature} takes {sorted(wanted)}, not {sorted(inputs)}")
        for name, (shape, dtype) in wanted.items():
            given = inputs[name]
            if given.shape != shape or given.dtype != dtype:
                expected = f"{np.dtype(dtype).name}{list(shape)}"
                raise ConfigurationError(
                    f"{signature} takes {name} as {expected}, not {given.dtype}{list(given.shape)}"
                )
        with self._lock:
            try:
                return dict(self._runners[signature](**inputs))
            except RuntimeError as error:
                raise ConfigurationError(f"{self._name} failed at the graph: {_first_line(error)}") from None

    def answer(self, signature: str, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What a signature from `x` to `out` gives in real numbers, if it computes in integers too; as `call`."""
        runner = self._runners[signature]
        taken, given = runner.get_input_details()["x"], runner.get_output_details()["out"]
        out = self.call(signature, x=_quantized(x, taken))["out"]
        scale, zero = given["quantization"]
        return np.asarray((out - np.float32(zero)) * np.float32(scale) if scale else out, np.float32)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _quantized(x: npt.NDArray[np.float32], tensor: dict[str, Any]) -> npt.NDArray[Any]:
    scale, zero = tensor["quantization"]
    if not scale:
        return x
    limits = np.iinfo(tensor["dtype"])
    return np.asarray(np.clip(np.rint(x / scale) + zero, limits.min, limits.max), tensor["dtype"])
