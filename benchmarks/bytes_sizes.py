"""What a device uploads with each scheme, in bytes: messages made by their own encoders, counted by the planner.

Counted are MQTT bytes as the agent counts them at its socket: connection, documents and committee of the start, and in
each round the upload's header, signature and slices, and the acknowledgements of plan, receipts, result and delta.
"""

from collections.abc import Sequence
from functools import cached_property

from hushfleet.codec import PLAIN_BITS
from hushfleet.encoding.profiles import PROFILES
from hushfleet.encoding.steps import bits_for
from hushfleet.learning.layers import parameter_count
from hushfleet.wire.layers import Dense
from hushfleet.wire.round import PLAIN, ROTATED
from planner.messages import Committee, Encoding, Messages
from planner.traffic import Traffic

FLOAT32, FLOWER, PLAIN_CODEC = "fp32", "Flower", "plain"
SCHEMES = (FLOAT32, FLOWER, PLAIN_CODEC, *PROFILES)

COMMITTEE = Committee(members=7, recoveries=1, candidates=8)
EPOCH_ROUNDS = 32
"""A fleet's own setting if it says nothing else."""
ROUND = 100
"""The round whose messages are taken for all."""
CHUNK, PROFILE = 4_096, "gateway-wifi"

FLOWER_FIXED, FLOWER_SHARE, FLOWER_SHARES = 901, 688.4, 31
"""Bytes that a client of SecAgg+ sends in a round besides eight for each parameter, as measured by `secagg_flower.py`
with flwr 1.42.0: of its own, and for each client that holds shares of its keys. Those are at most 31."""


class _Float32(Messages):
    """The same messages around an upload of float32."""

    @cached_property
    def upload(self) -> bytes:
        """The delta as it is, without masks or tail."""
        return self.snapshot


def messages(scheme: str, layers: Sequence[Dense], devices: int) -> Messages:
    """The messages of a fleet with one of this project's schemes, or of one that sends float32."""
    kind = _Float32 if scheme == FLOAT32 else Messages
    return kind(
        tuple(layers),
        devices,
        devices,
        encoding(scheme, devices),
        COMMITTEE,
        EPOCH_ROUNDS,
        ROUND,
        devices,
        CHUNK,
        PROFILE,
    )


def encoding(scheme: str, devices: int) -> Encoding:
    """How many coordinates of how many bits."""
    profile = PROFILES.get(scheme)
    if profile is None:
        return Encoding(scheme, PLAIN, 1.0, PLAIN_BITS)
    return Encoding(scheme, ROTATED, profile.keep, bits_for(devices, profile.spare_bits))


def bits_per_parameter(scheme: str, layers: Sequence[Dense], devices: int) -> float:
    """Bits of the coordinates that a device sends in a round, for each parameter; headers and tail come on top."""
    fixed = {FLOAT32: 32.0, FLOWER: 64.0}
    if scheme in fixed:
        return fixed[scheme]
    parameters, chosen = parameter_count(layers), encoding(scheme, devices)
    return chosen.coords(parameters) * chosen.bits / parameters


def uploaded(scheme: str, layers: Sequence[Dense], devices: int, rounds: int, *, committee: bool = False) -> float:
    """Bytes that one device sends in so many rounds, its joining included.

    Args:
        scheme: one of `SCHEMES`.
        layers: the model's.
        devices: all of whom take part.
        rounds: void ones included.
        committee: whether the committee's bytes are added, spread over the devices. Flower's clients hold each other's
            shares, so that those bytes are always in; without masks nobody opens sums.
    """
    if scheme == FLOWER:
        shares = min(FLOWER_SHARES, devices)
        return rounds * (8 * parameter_count(layers) + FLOWER_FIXED + FLOWER_SHARE * shares)
    said = messages(scheme, layers, devices)
    sent = _sent(Traffic(said, member=False), rounds)
    if not committee or scheme == FLOAT32:
        return sent
    more = _sent(Traffic(said, member=True), rounds) - sent
    return sent + more * COMMITTEE.members / devices


def _sent(traffic: Traffic, rounds: int) -> float:
    return traffic.joining.sent + rounds * traffic.a_round.sent
