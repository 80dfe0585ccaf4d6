"""One y for two vectors: a virtual machine goes on twice from one snapshot, with the same random bytes.

The hedge (section 4) makes y depend on the data; without it, two uploads' difference is two updates' difference.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from wiretap import SETTINGS, VICTIM
from world import World, height, make_fleet

from hushfleet.codec import LocalReport, encode_plain, plain_step
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg.masks import MaskContext, RoundKey, add_masks, round_key
from hushfleet.secagg.residues import Vector, signed, subtract_from
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Header, Plan


def uploads_of(update: Callable[[int, Plan], NDArray[np.float32]]) -> dict[int, tuple[bytes, bytes]]:
    """(Y, masked vector) by device: the same machines, records and random bytes every time, only the data as given."""
    world = World(make_fleet(3, 4), rounds=replace(SETTINGS, total=1), seed="snapshot", update=update)
    world.run(world.rounds_ended(1))
    topics = Topics(world.keys.fleet)
    found: dict[int, list[bytes]] = {}
    for entry in world.broker.log:
        at = topics.parse(entry.topic)
        if at.name == "upload" and at.kind == "up":
            found.setdefault(at.device, []).append(entry.payload)
    return {
        device: (read(Frame.from_bytes(payloads[0]), Header).y, b"".join(payloads[1:]))
        for device, payloads in found.items()
    }


def places(shift: int) -> Callable[[int, Plan], NDArray[np.float32]]:
    """The victim's data differs by `shift`, nobody else's does."""

    def update(index: int, plan: Plan) -> NDArray[np.float32]:
        delta = np.zeros(plan.coords, np.float32)
        delta[index + (shift if index == VICTIM else 0)] = height(plan.round)
        return delta

    return update


def difference(one: bytes, other: bytes) -> NDArray[np.int64]:
    """What remains of the bodies when the one is taken from the other."""
    left, right = Vector.from_bytes(one, 16, 272, 8), Vector.from_bytes(other, 16, 272, 8)
    subtract_from(left, right)
    return signed(left.body, 16)


def test_two_runs_from_one_snapshot_mask_different_data_with_different_y() -> None:
    first, again, other = uploads_of(places(0)), uploads_of(places(0)), uploads_of(places(100))
    assert first == again
    assert first[VICTIM][0] != other[VICTIM][0]
    assert first[6] == other[6]
    left = difference(first[VICTIM][1], other[VICTIM][1])
    # All of it is noise, not two places.
    assert np.count_nonzero(left) > 250


def test_the_weaker_variant_falls_one_y_for_two_vectors_gives_their_difference() -> None:
    """The same with y drawn from the snapshot's random bytes alone: the masks are equal and cancel."""
    draw_key = round_key(bytes(32), lambda size: bytes(size), bytes(32), bytes(32))
    key, committee = RoundKey(draw_key.y, draw_key.point), [(1, draw_key.point)]
    masked = []
    for place in (5, 105):
        delta = np.zeros(272, np.float32)
        delta[place] = 1.0
        step = plain_step(4.125, 31)
        vector = encode_plain(
            delta,
            1.0,
            LocalReport(1, 0.5, 1, 0.5, 1),
            clip=4.125,
            step=step,
            largest_survivor_set=31,
            checksum_seed=bytes(32),
            draw=bytes,
        )
        add_masks(vector, key, MaskContext(bytes(16), bytes(32), 1), VICTIM, committee)
        masked.append(vector.to_bytes(16))
    left = difference(*masked)
    assert {int(place): int(left[place]) for place in np.flatnonzero(left)} == {5: 256, 105: -256}
