"""This project's side: whole rounds of the real roles, metered.

    python benchmarks/secagg_hushfleet.py DEVICES PARAMETERS SLICE

Prints one line of JSON. One process plays the coordinator, the committee and all devices (secagg_fleet.py).
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import product
from statistics import median
from time import perf_counter

import numpy as np
from nacl.utils import random
from numpy.typing import NDArray
from secagg_fleet import MEMBERS, Meter, SignedFleet, World

from hushfleet.codec import plain_step
from hushfleet.secagg import group
from hushfleet.secagg.masks import MaskContext, mask_sum
from hushfleet.secagg.residues import Vector
from hushfleet.wire.round import Plan

ROUNDS = 3
"""Rounds that count, after one that warms up. Odd, for a median."""
REPEATED = 25
"""Sums of a member with each number of threads, while the machine may have other things to do."""


def measure(devices: int, parameters: int, size: int) -> dict[str, dict[str, float]]:
    """Medians over all participants, members and rounds.

    Raises:
        RuntimeError: a round's model is not the one before and the updates' mean.
    """
    pattern = (np.random.default_rng(0).standard_normal(parameters) / parameters**0.5).astype(np.float32)

    def update(index: int, plan: Plan) -> NDArray[np.float32]:
        return np.roll(pattern, index)

    signed = SignedFleet(devices, parameters)
    world = World(signed, ROUNDS + 1, update, size)
    world.set_up()
    meters = []
    for _ in range(ROUNDS + 1):
        before = world.model()
        world.meter = Meter()
        world.play_round()
        meters.append(world.meter)
        _check(world.model() - before, pattern, signed)
    del meters[0]
    clients = [(meter, index) for meter in meters for index in signed.participants]
    members = [(meter, index) for meter in meters for index in signed.members]
    figures = {
        "client_seconds": median(meter.spent(index, "plan", "trained", "receipt") for meter, index in clients),
        "member_seconds": median(meter.spent(index, "survivors") for meter, index in members),
        "coordinator_seconds": median(meter.spent(0) for meter in meters),
        "bytes_up": median(meter.bytes_up[index] for meter, index in clients),
        "bytes_down": median(meter.bytes_down[index] for meter, index in clients),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    member_speed_up, hashing_speed_up = _speed_up(devices, parameters)
    details = {
        "upload_seconds": median(meter.spent(index, "trained") for meter, index in clients),
        "model_seconds": median(meter.spent(index, "result", "model") for meter, index in clients),
        "member_bytes_up": median(meter.bytes_up[index] for meter, index in members),
        "member_bytes_down": median(meter.bytes_down[index] for meter, index in members),
        "member_speed_up": member_speed_up,
        "hashing_speed_up": hashing_speed_up,
    }
    return {"figures": figures, "details": details}


def _check(change: NDArray[np.float32], pattern: NDArray[np.float32], signed: SignedFleet) -> None:
    mean = np.mean([np.roll(pattern, index) for index in signed.participants], axis=0)
    # Each device's rounding is wrong by less than one step.
    if not np.abs(change - mean).max() < plain_step(signed.clip, len(signed.participants)):
        raise RuntimeError("the round did not come to the updates' mean")


def _speed_up(devices: int, parameters: int) -> tuple[float, float]:
    """How many times faster two threads make a member's sum, by the clock, and how many times faster they only hash.

    The second number is what the machine has to give while others use it too. Best times, all taking turns.
    """
    survivors = [(index, group.base_multiply(group.reduce(random(64)))) for index in range(devices)]
    context, secret = MaskContext(bytes(16), bytes(32), 1), group.reduce(random(64))

    def member(threads: int) -> None:
        mask_sum(Vector.zeros(parameters, 16, 8), secret, MEMBERS, context, survivors, threads)

    def hashing(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(blake2b, [bytes(2**23 // threads)] * threads))

    seconds: dict[tuple[Callable[[int], None], int], float] = {}
    for _ in range(REPEATED):
        for work, threads in product((member, hashing), (1, 2)):
            before = perf_counter()
            work(threads)
            taken = perf_counter() - before
            seconds[work, threads] = min(taken, seconds.get((work, threads), taken))
    return seconds[member, 1] / seconds[member, 2], seconds[hashing, 1] / seconds[hashing, 2]


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:4]))))
