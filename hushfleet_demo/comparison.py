"""Federated, alone and pooled, with sums in memory, so that a demo can be judged for every choice of who is new to it.

What is federated here goes through the real codec. Masks are left out, since they cancel exactly: what is added is what
remains of the uploads after the masks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nacl.utils import random

from hushfleet import codec
from hushfleet.hashing import digest
from hushfleet.learning.local import LocalResult
from hushfleet.secagg.residues import Vector, add_into
from hushfleet_demo.task import Flat, Rows, Task


@dataclass(frozen=True, slots=True)
class Split:
    """One choice of who is new.

    Attributes:
        new: their names.
        federated, alone, pooled: what `Task.judge` says of the three models on their rows.
    """

    new: tuple[str, ...]
    federated: float
    alone: float
    pooled: float


def summary(splits: Sequence[Split]) -> dict[str, float]:
    """The means over the splits, as the JSON file holds them."""
    return {
        "splits": len(splits),
        "federated": float(np.mean([split.federated for split in splits])),
        "alone": float(np.mean([split.alone for split in splits])),
        "pooled": float(np.mean([split.pooled for split in splits])),
    }


def trained_at_once(task: Task, rows: Rows, name: str) -> Flat:
    """A model trained in one place, with as many steps as a device takes in all rounds."""
    start = task.start()
    return start + task.train(start, rows, task.rounds * task.steps, name).delta


def federated(task: Task, devices: Mapping[str, Rows], name: str) -> Flat:
    """The model after all rounds, in each of which every device takes part."""
    flat = task.start()
    for round_number in range(task.rounds):
        checksum_seed = digest("chks", f"{name}, round {round_number}".encode())
        total = Vector.zeros(flat.size, codec.PLAIN_BITS, codec.lanes(0))
        for device, rows in devices.items():
            local = task.train(flat, rows, task.steps, f"{name}, {round_number}, {device}")
            add_into(total, _encoded(task, local, checksum_seed))
        opened = codec.open_plain(
            total,
            len(devices),
            coords=flat.size,
            clip=task.clip,
            step=task.step,
            largest_weight=1.0,
            checksum_seed=checksum_seed,
        )
        body = codec.pack_opened(opened.residues, codec.PLAIN_BITS)
        flat = codec.apply_delta(flat, body, bits=codec.PLAIN_BITS, step=task.step, weight=opened.weight, rate=1.0)
    return flat


def _encoded(task: Task, local: LocalResult, checksum_seed: bytes) -> Vector:
    return codec.encode_plain(
        local.delta,
        1.0,
        codec.LocalReport(local.examples, local.training_loss_sum, 0, 0.0, 0),
        clip=task.clip,
        step=task.step,
        largest_survivor_set=task.largest_survivor_set,
        checksum_seed=checksum_seed,
        draw=random,
    )
