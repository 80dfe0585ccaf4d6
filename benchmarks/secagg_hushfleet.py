"""This project's side: whole rounds of the real roles, metered.

    python benchmarks/secagg_hushfleet.py DEVICES PARAMETERS SLICE CODEC

Prints one line of JSON. One process plays the coordinator, the committee and all devices (secagg_fleet.py).
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from hashlib import blake2b
from itertools import product
from statistics import median
from time import perf_counter, process_time
from typing import cast

import numpy as np
from nacl.utils import random
from numpy.typing import NDArray
from secagg_fleet import MEMBERS, NOW, REPORT, Meter, SignedFleet, World

from coordinator.encoding import Codec
from coordinator.planning import RoundSettings
from edge_agent.device import Device
from edge_agent.work import Train
from hushfleet.encoding.grid import Grid
from hushfleet.secagg import group
from hushfleet.secagg.masks import MaskContext, mask_sum
from hushfleet.secagg.residues import Vector
from hushfleet.wire.round import PLAIN

ROUNDS = 3
"""Rounds that count, after one that warms up. Odd, for a median."""
OVER_AND_OVER = 51
"""Times that one device does its work alone."""
REPEATED = 25
"""Sums of a member with each number of threads, while the machine may have other things to do."""


def measure(devices: int, parameters: int, size: int, codec: Codec) -> dict[str, dict[str, float]]:
    """Medians over all participants, members and rounds.

    Raises:
        RuntimeError: a round's model is not the one before and what was sent of the updates' mean.
    """
    pattern: NDArray[np.float32] = (np.random.default_rng(0).standard_normal(parameters) / parameters**0.5).astype(
        np.float32
    )
    signed = SignedFleet(devices, parameters)
    # The rotated codec's rounding is exact for updates that are alike, and only for those.
    updates = {index: np.roll(pattern, index if codec == "plain" else 0) for index in signed.participants}
    alone: list[float] = []

    def update(index: int) -> NDArray[np.float32]:
        if index == signed.participants[-1]:
            alone.append(_alone(world.devices[index], world.work, updates[index]))
        return updates[index]

    world = World(signed, RoundSettings(total=ROUNDS + 1, codec=codec), update, size)
    world.set_up()
    meters, mean = [], np.mean([*updates.values()], axis=0)
    left = np.zeros_like(mean)
    for _ in range(ROUNDS + 1):
        before = world.model()
        world.meter = Meter()
        world.play_round()
        meters.append(world.meter)
        left = _left(mean + left, world.model() - before, world.work, devices)
    del meters[0]
    clients = [(meter, index) for meter in meters for index in signed.participants]
    members = [(meter, index) for meter in meters for index in signed.members]
    # With the result a device settles what its upload has left out: that belongs to encoding it.
    upload = ("plan", "trained", "receipt", *(("result",) if codec != "plain" else ()))
    figures = {
        "client_seconds": median(meter.spent(index, *upload) for meter, index in clients),
        "member_seconds": median(meter.spent(index, "survivors") for meter, index in members),
        "coordinator_seconds": median(meter.spent(0) for meter in meters),
        "bytes_up": median(meter.bytes_up[index] for meter, index in clients),
        "bytes_down": median(meter.bytes_down[index] for meter, index in clients),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    member_speed_up, hashing_speed_up = _speed_up(devices, world.work.plan.coords, world.work.plan.bits)
    details = {
        "alone_seconds": median(alone),
        "upload_seconds": median(meter.spent(index, "trained") for meter, index in clients),
        "result_seconds": median(meter.spent(index, "result") for meter, index in clients),
        "model_seconds": median(meter.spent(index, "model") for meter, index in clients),
        "member_bytes_up": median(meter.bytes_up[index] for meter, index in members),
        "member_bytes_down": median(meter.bytes_down[index] for meter, index in members),
        "member_speed_up": member_speed_up,
        "hashing_speed_up": hashing_speed_up,
    }
    return {"figures": figures, "details": details}


def _alone(device: Device, work: Train, delta: NDArray[np.float32]) -> float:
    """Median seconds in which one device encodes and masks its update and settles what that leaves out.

    Done over and over, as the floor is: in a round a device works once, on memory that 99 others have pushed out of the
    caches. The device itself is left as it is.
    """
    seconds, next_plan = [], replace(work.plan, round=work.plan.round + 1, base_hash=bytes(32))
    for _ in range(OVER_AND_OVER):
        participant = copy(device.participant)
        participant._residual = residual = copy(participant._residual)
        before = process_time()
        participant.on_trained(work.plan_hash, delta, REPORT, NOW)
        residual.prepare(next_plan, work.plan.round, None)
        seconds.append(process_time() - before)
    return median(seconds)


def _left(whole: NDArray[np.float32], change: NDArray[np.float32], work: Train, devices: int) -> NDArray[np.float32]:
    """What a round has left out of the updates' mean, once it is certain that the model got the rest."""
    plan = work.plan
    if plan.codec == PLAIN:
        # Each device's rounding is wrong by less than one step.
        left, wrong, bound = np.zeros_like(whole), np.abs(change - whole).max(), plan.step
    else:
        # Rounding on evenly spread offsets: the sum of updates that are alike is wrong by two steps at most.
        grid = Grid(len(whole), plan.coords, work.plan_hash)
        left = grid.dropped(grid.rotated(whole))
        wrong, bound = np.linalg.norm(change - (whole - left)), 2 * plan.step * plan.coords**0.5 / devices
    if not wrong < bound:
        raise RuntimeError("the round did not come to what was sent of the updates' mean")
    return left


def _speed_up(devices: int, coords: int, bits: int) -> tuple[float, float]:
    """How many times faster two threads make a member's sum, by the clock, and how many times faster they only hash.

    The second number is what the machine has to give while others use it too. Best times, all taking turns.
    """
    survivors = [(index, group.base_multiply(group.reduce(random(64)))) for index in range(devices)]
    context, secret = MaskContext(bytes(16), bytes(32), 1), group.reduce(random(64))

    def member(threads: int) -> None:
        mask_sum(Vector.zeros(coords, bits, 8), secret, MEMBERS, context, survivors, threads)

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
    devices, parameters, size = map(int, sys.argv[1:4])
    print(json.dumps(measure(devices, parameters, size, cast(Codec, sys.argv[4]))))
