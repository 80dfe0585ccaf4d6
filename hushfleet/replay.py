"""From one version of the model to the next, as everyone computes it, bit for bit (docs/protocol.md, 6, 11.4, 11.7).

A model's state is its flat vector, float32, shape (d,); with server momentum the velocity stands behind it, shape
(2·d,), with FedAdam the first and the second moment, shape (3·d,). The state is what is hashed, kept and sent in
snapshots.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hushfleet.codec import FIXED_POINT, apply_delta, norm_holds, unpack_opened
from hushfleet.encoding.grid import Grid, update_of
from hushfleet.encoding.keyframe import ROTATED_PARTS, eight_bit, open_eight_bit
from hushfleet.encoding.profiles import check_server
from hushfleet.errors import ConfigurationError, MalformedError, RefusedError
from hushfleet.learning.server import model_hash, open_snapshot, snapshot
from hushfleet.rotated import open_delta, rotated_norm_holds
from hushfleet.secagg.residues import padded
from hushfleet.wire.round import KEYFRAME_EVERY, PLAIN, Delta

State = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Version:
    """A model version.

    Attributes:
        state: float32, shape (d,), (2·d,) or (3·d,).
        snapshot: what a device fetches that was not there; empty if this version has none.
    """

    state: State
    snapshot: bytes = field(repr=False)

    def hash(self) -> bytes:
        """The model hash of a result, 32 bytes."""
        return model_hash(self.state)


def replay(state: State, delta: Delta, survivors: Sequence[int], parameters: int, clip: float) -> Version:
    """The version that a delta makes.

    Args:
        state: of the version before; it is left as it is.
        delta: the message.
        survivors: roster indices of the uploads in it, as its result's bitmap has them.
        parameters: d.
        clip: the largest clipping norm that one update may have.

    Raises:
        MalformedError: the body does not fit the model, or the sum is longer than so many updates can make it.
        RefusedError: a step that is known to diverge, or a model that would hold NaN or infinity.
    """
    if delta.codec == PLAIN:
        opened = unpack_opened(delta.body, delta.bits, parameters)
        if not norm_holds(opened, len(survivors), clip=clip, step=delta.step):
            raise MalformedError("the delta is longer than so many clipped updates can make it")
        plain = partial(apply_delta, body=delta.body, bits=delta.bits, step=delta.step, weight=delta.weight)
        if not delta.adam:
            after = plain(state[:parameters], rate=delta.rate)
            return Version(after, snapshot(after))
        update = plain(np.zeros(parameters, np.float32), rate=1.0)
    else:
        update = _mean_update(delta, survivors, parameters, clip)
    after = _server_step(state, delta, update, parameters)
    if not np.isfinite(after).all():
        raise RefusedError("the delta leads to a model with NaN or infinity")
    if delta.codec == PLAIN:
        return Version(after, snapshot(after))
    if delta.version % KEYFRAME_EVERY:
        return Version(after, b"")
    data = eight_bit(after, parameters, delta.version)
    return Version(open_eight_bit(data, parameters, delta.version), data)


def _mean_update(delta: Delta, survivors: Sequence[int], parameters: int, clip: float) -> State:
    length = len(delta.body) * 8 // delta.bits
    coords = min(parameters, length)
    if not coords or padded(coords) != length:
        raise MalformedError("the delta's body does not fit the model")
    grid = Grid(parameters, coords, delta.plan)
    opened = open_delta(delta.body, delta.bits, survivors, grid)
    if not rotated_norm_holds(opened, len(survivors), clip=clip, step=delta.step):
        raise MalformedError("the delta is longer than so many clipped updates can make it")
    try:
        check_server(delta.momentum, adam=bool(delta.adam), everything=coords == parameters)
    except ConfigurationError as error:
        raise RefusedError(str(error)) from None
    with np.errstate(over="ignore", invalid="ignore"):
        return grid.expand(update_of(opened, delta.step, delta.weight / FIXED_POINT))


def _server_step(state: State, delta: Delta, update: State, parameters: int) -> State:
    """The state after the mean update; without momentum the velocity ends, without FedAdam its moments do."""
    flat = state[:parameters]
    with np.errstate(over="ignore", invalid="ignore"):
        if delta.adam:
            return _adam_step(state, delta, update, parameters)
        rate = np.float32(delta.rate)
        if not delta.momentum:
            return flat + update * rate
        before = state[parameters:] if len(state) == 2 * parameters else np.zeros_like(flat)
        velocity = before * np.float32(delta.momentum) + update
        return np.concatenate((flat + velocity * rate, velocity))


def _adam_step(state: State, delta: Delta, update: State, parameters: int) -> State:
    """FedAdam (Reddi et al. 2021, algorithm 2): float64, each new part of the state rounded once to float32.

    In float32 a root and a quotient are exact on most machines, not on all: numpy approximates them where a 32-bit ARM
    has NEON.
    """
    beta, tau = delta.adam
    wide = state.astype(np.float64)
    if len(state) != 3 * parameters:
        wide = np.concatenate((wide[:parameters], np.zeros(parameters), np.full(parameters, tau * tau)))
    flat, first, second = wide.reshape(3, parameters)
    u = update.astype(np.float64)
    first = (first * delta.momentum + u * (1 - delta.momentum)).astype(np.float32)
    second = (second * beta + u * u * (1 - beta)).astype(np.float32)
    step = first.astype(np.float64) * delta.rate / (np.sqrt(second.astype(np.float64)) + tau)
    return np.concatenate(((flat + step).astype(np.float32), first, second))


def read_snapshot(data: bytes, parameters: int, version: int, expected_hash: bytes) -> State:
    """The state of a fetched snapshot, float32 or eight-bit.

    Raises:
        MalformedError: no snapshot of that model, or of another version than the hash names.
    """
    for parts in ROTATED_PARTS:
        if len(data) == 4 * parts * parameters:
            return open_snapshot(data, parts * parameters, expected_hash)
    state = open_eight_bit(data, parameters, version)
    if model_hash(state) != expected_hash:
        raise MalformedError("the snapshot is not of the version that the result names")
    return state
