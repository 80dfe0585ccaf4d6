"""A second writing of layer lists: what a model may be, and its version 0 (sections 11.2 and 11.7)."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from nacl import bindings as sodium
from second_wire import Fields, require

Floats = npt.NDArray[np.float32]
Shape = tuple[int, int]
Block = tuple[int, int, float]
"""How many parameters, their fans, and what they begin as if the fans are 0."""

SWITCHES = ("none", "relu", "tanh", "sigmoid")
MOST = 2**20


def shapes(layer: Fields) -> tuple[Shape | int, Shape | int]:
    """What a layer takes and gives: (steps, channels), or so many numbers."""
    if layer["kind"] == "dense":
        return layer["in"], layer["out"]
    taken = length, channels = layer["length"], layer["channels"]
    match layer["kind"]:
        case "conv1d" | "depthwise_conv1d":
            steps = (length - layer["kernel"]) // layer["stride"] + 1
            return taken, (steps, layer["filters" if layer["kind"] == "conv1d" else "channels"])
        case "avgpool" | "maxpool":
            return taken, (length // layer["size"], channels)
        case "layer_norm":
            return taken, taken
        case _:
            return taken, layer["units" if layer["kind"] == "gru" else "channels"]


def blocks(layer: Fields) -> list[Block]:
    """The layer's parameters, in their order."""
    match layer["kind"]:
        case "dense":
            return [(layer["in"] * layer["out"], layer["in"] + layer["out"], 0), (layer["out"], 0, 0)]
        case "conv1d":
            kernel, a, b = layer["kernel"], layer["channels"], layer["filters"]
            return [(kernel * a * b, kernel * (a + b), 0), (b, 0, 0)]
        case "depthwise_conv1d":
            return [(layer["kernel"] * layer["channels"], 2 * layer["kernel"], 0), (layer["channels"], 0, 0)]
        case "layer_norm":
            return [(layer["channels"], 0, 1), (layer["channels"], 0, 0)]
        case "gru":
            a, b = layer["channels"], layer["units"]
            return [(a * 3 * b, a + b, 0), (b * 3 * b, 2 * b, 0), (3 * b, 0, 0)]
        case _:
            return []


def _spread(layer: Fields) -> int:
    """The most values that a layer along time makes of a row."""
    taken, given = shapes(layer)
    values = [_values(taken), _values(given)]
    if "kernel" in layer:
        assert isinstance(given, tuple)
        values.append(given[0] * layer["kernel"] * layer["channels"])
    if "units" in layer:
        values.append(layer["length"] * 3 * layer["units"])
    return max(values)


def _values(shape: Shape | int) -> int:
    return shape if isinstance(shape, int) else shape[0] * shape[1]


def check(layers: list[Fields]) -> None:
    """Refuse a list that is no model."""
    require(bool(layers), "no layers")
    for layer in layers:
        require(layer.get("act", "none") in SWITCHES, "an unknown activation")
        require(0 not in layer.values(), "a number of 0 in a layer")
        if layer["kind"] != "dense":
            window = layer.get("kernel", layer.get("size", 1))
            require(window <= layer["length"] <= MOST, "a length out of range")
            require(_spread(layer) <= MOST, "too much is made of a row")
    for before, after in pairwise(layers):
        given, taken = shapes(before)[1], shapes(after)[0]
        require(_values(given) == _values(taken), "layers of different widths")
        require(given == taken or isinstance(given, int) or isinstance(taken, int), "layers of different shapes")
    require(sum(count for layer in layers for count, _, _ in blocks(layer)) < 2**32, "too many parameters")


def shared(model: Fields) -> list[Fields]:
    """The layers of a model spec that everyone has alike; the others are each device's own."""
    layers: list[Fields] = model["layers"]
    check(layers)
    border = len(layers) - model["personal"]
    require(border > 0, "no layer is shared")
    for part in (layers[:border], layers[border:]):
        require(not part or any(count for layer in part for count, _, _ in blocks(layer)), "layers without parameters")
    return layers[:border]


def version_zero(layers: list[Fields], seed: bytes) -> Floats:
    """The flat vector that training begins from."""
    check(layers)
    every = [block for layer in layers for block in blocks(layer)]
    drawn = sum(count for count, fans, _ in every if fans)
    stream = np.frombuffer(sodium.randombytes_buf_deterministic(4 * drawn, seed), "<u4")
    return np.concatenate([*_drawn(every, stream)])


def _drawn(every: list[Block], stream: npt.NDArray[np.uint32]) -> Iterator[Floats]:
    at = 0
    for count, fans, start in every:
        if not fans:
            yield np.full(count, start, np.float32)
            continue
        unit = (stream[at : at + count] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
        yield unit * np.float32((6.0 / fans) ** 0.5)
        at += count
