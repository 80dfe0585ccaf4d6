"""The sums of a federation in memory: the real codecs without masks, which cancel exactly.

What is added is what remains of the uploads after the masks. With the rotated codec devices keep their residuals, and
the step follows the sums that were opened, as in the services.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from nacl.utils import random

from hushfleet import codec
from hushfleet.encoding.grid import Grid
from hushfleet.encoding.profiles import PROFILES
from hushfleet.encoding.steps import after_wrapping, bounded, first_step, growth, next_step
from hushfleet.hashing import digest
from hushfleet.learning.local import LocalResult
from hushfleet.replay import replay
from hushfleet.rotated import encode_rotated, open_rotated
from hushfleet.secagg.residues import Vector, add_into
from hushfleet.wire.round import ROTATED, Delta
from hushfleet_demo.task import Flat, Task


class Sums(Protocol):
    """From a model and what the devices learned to the next model."""

    def apply(self, flat: Flat, trained: Sequence[LocalResult], name: str) -> Flat:
        """The model after the round of that name."""


def sums_of(task: Task, devices: int) -> Sums:
    """Those of the task's codec, for so many devices."""
    return PlainSums(task) if task.codec == "plain" else RotatedSums(task, devices)


class PlainSums:
    """Sixteen bits a parameter."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def apply(self, flat: Flat, trained: Sequence[LocalResult], name: str) -> Flat:
        """The model after the round of that name."""
        task, bits = self._task, codec.PLAIN_BITS
        seed = digest("chks", name.encode())
        total = Vector.zeros(flat.size, bits, codec.lanes(0))
        for local in trained:
            vector = codec.encode_plain(
                local.delta,
                1.0,
                _report(local),
                clip=task.clip,
                step=task.step,
                largest_survivor_set=task.largest_survivor_set,
                checksum_seed=seed,
                draw=random,
            )
            add_into(total, vector)
        opened = codec.open_plain(
            total,
            len(trained),
            coords=flat.size,
            clip=task.clip,
            step=task.step,
            largest_weight=1.0,
            checksum_seed=seed,
        )
        body = codec.pack_opened(opened.residues, bits)
        return codec.apply_delta(flat, body, bits=bits, step=task.step, weight=opened.weight, rate=1.0)


class RotatedSums:
    """A profile of the rotated codec."""

    def __init__(self, task: Task, devices: int) -> None:
        self._task = task
        self._coords, self._bits = task.form(devices)
        self._first = self._step = first_step(task.clip, devices, self._bits, self._coords)
        self._residuals = [np.zeros_like(task.start()) for _ in range(devices)]
        self._version = 0

    def apply(self, flat: Flat, trained: Sequence[LocalResult], name: str) -> Flat:
        """The model after the round of that name; the same one again if too many coordinates wrapped."""
        task, plan = self._task, digest("body", name.encode())
        grid, seed = Grid(flat.size, self._coords, plan), digest("chks", plan)
        total, indices, residuals = Vector.zeros(self._coords, self._bits, codec.lanes(0)), [], []
        for index, (local, residual) in enumerate(zip(trained, self._residuals, strict=True), start=1):
            rotated = grid.rotated(local.delta + residual)
            indices.append(index)
            residuals.append(grid.dropped(rotated))
            vector = encode_rotated(
                rotated,
                1.0,
                _report(local),
                grid=grid,
                index=index,
                bits=self._bits,
                clip=task.clip,
                step=self._step,
                checksum_seed=seed,
            )
            add_into(total, vector)
        try:
            opened = open_rotated(
                total,
                indices,
                grid=grid,
                bits=self._bits,
                clip=task.clip,
                step=self._step,
                largest_weight=1.0,
                checksum_seed=seed,
            )
        except codec.OpeningError as error:
            if error.reason != codec.OpeningReason.CHECKSUM:
                raise
            self._step = after_wrapping(self._step, self._first)
            return flat
        self._residuals = residuals
        return self._replayed(flat, opened, plan, indices)

    def _replayed(self, flat: Flat, opened: codec.Opened, plan: bytes, indices: list[int]) -> Flat:
        self._version += 1
        profile, body = PROFILES[self._task.codec], codec.pack_opened(opened.residues, opened.bits)
        delta = Delta(
            0, self._version, plan, opened.bits, body, self._step, opened.weight, profile.server_rate, ROTATED, 0.0, ()
        )
        rms = opened.metrics.norm * opened.weight / codec.FIXED_POINT / self._step / math.sqrt(self._coords)
        room = growth(self._version, profile.keep)
        following = next_step(self._step, self._first, rms, self._bits, self._coords, room)
        self._step = bounded(following, self._first)
        return replay(flat, delta, indices, flat.size, self._task.clip).state


def _report(local: LocalResult) -> codec.LocalReport:
    return codec.LocalReport(local.examples, local.training_loss_sum, 0, 0.0, 0)
