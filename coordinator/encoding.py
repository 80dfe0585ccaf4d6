"""The encoding of the next plan: which codec, how many coordinates and bits, how wide a step (docs/protocol.md, 6); and
what the server makes of a mean update.

The step of the rotated codec follows the sums that were opened. The record `model/step` holds it, with what it is good
for: another model, fraction, number of bits or clipping norm begins with the first step again.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from hushfleet.actions import Action, Save, Store
from hushfleet.errors import ConfigurationError
from hushfleet.wire.documents import ModelSpec, Policy
from hushfleet.wire.framing import B32, F64, U8, U32, Table
from hushfleet.wire.round import APPLIED, CHECKSUM, PLAIN, ROTATED, VOID, Metrics, Plan
from hushfleet.wire.schema import Schema

STEP = "model/step"
Codec = Literal["plain", "thrift", "default", "fast"]


@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """What the server makes of the devices' mean update; in the file, the kind alone or a table.

    Attributes:
        kind: `profile` what the codec's profile was measured with: the mean itself, or with `fast` momentum; `adam`
            FedAdam (Reddi et al. 2021, algorithm 2), for devices whose data differ. The other numbers are FedAdam's:
        rate: η, about how far a coordinate goes in a round, above 0.
        momentum: β1, 0 up to, not including, 1.
        second_momentum: β2, 0 up to, not including, 1.
        tau: τ, above 0; coordinates whose updates are much shorter go less far.

    Raises:
        ConfigurationError: a number out of its range.
    """

    BARE: ClassVar[str] = "kind"

    kind: Literal["profile", "adam"] = "profile"
    rate: float = 0.03
    momentum: float = 0.9
    second_momentum: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        for name, value, good, what in (
            ("rate", self.rate, self.rate > 0, "a number above 0"),
            ("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 up to, not including, 1"),
            ("second_momentum", self.second_momentum, 0 <= self.second_momentum < 1, "from 0 up to, not including, 1"),
            ("tau", self.tau, self.tau > 0, "a number above 0"),
        ):
            if not good:
                raise ConfigurationError(f"{name} = {value}: {what}")


@dataclass(frozen=True, slots=True)
class ServerStep:
    """Rate, momentum and FedAdam's numbers of a delta; the names are the delta's."""

    rate: float
    momentum: float
    adam: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class _Record(Table):
    KIND: ClassVar[str] = "step"
    model: B32
    bits: U8
    coords: U32
    clip: F64
    first: F64
    step: F64
    opened: U32


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a plan says of its encoding; the names are the plan's."""

    codec: int
    bits: int
    coords: int
    keep: float
    clip: float
    step: float


def choose(
    store: Store,
    codec: Codec,
    clip: float,
    expected: int,
    policy: Policy,
    model: ModelSpec,
    model_hash: bytes,
    anew: bool = False,
) -> tuple[Encoding, list[Action]]:
    """The encoding of the next plan, and what is to be saved with it.

    Args:
        store: the coordinator's records.
        codec: plain, or a profile of the rotated codec.
        clip: the plan's clipping norm, above 0.
        expected: uploads that are expected, at least 1.
        policy, model, model_hash: of the newest documents.
        anew: whether to begin with the first step again.
    """
    from hushfleet.codec import PLAIN_BITS, plain_step
    from hushfleet.encoding.profiles import PROFILES
    from hushfleet.encoding.steps import bits_for, bounded, first_step
    from hushfleet.encoding.subset import coordinates

    parameters = model.parameters()
    if codec == "plain":
        step = plain_step(clip, policy.largest_survivor_set)
        return Encoding(PLAIN, PLAIN_BITS, parameters, 1.0, clip, step), []
    profile = PROFILES[codec]
    coords, bits = coordinates(parameters, profile.keep), bits_for(expected, profile.spare_bits)
    first = step = first_step(clip, expected, bits, coords)
    opened = 0
    saved = store.get(STEP)
    if saved is not None and not anew:
        record = _Record.from_body(saved)
        if (record.model, record.bits, record.coords, record.clip) == (model_hash, bits, coords, clip):
            step, opened = bounded(record.step, first), record.opened
    save = Save(STEP, _Record(model_hash, bits, coords, clip, first, step, opened).to_body())
    return Encoding(ROTATED, bits, coords, profile.keep, clip, step), [save]


def statistics_encoding(schema: Schema, policy: Policy) -> Encoding:
    """The encoding of a statistics plan under this schema and policy."""
    from hushfleet.codec import PLAIN_BITS
    from hushfleet.statistics import CLIP, Digits, coordinates

    digits = Digits.of(policy.largest_survivor_set)
    return Encoding(PLAIN, PLAIN_BITS, coordinates(schema, digits), 1.0, CLIP, digits.step)


def next_step(
    store: Store, plan: Plan, outcome: int, reason: int, metrics: Metrics, weight: float
) -> tuple[float, list[Action]]:
    """The step for the round after one that ended, as its result tells it, and what is to be saved.

    Args:
        store: the coordinator's records.
        plan, outcome, reason, metrics: of the round that ended.
        weight: the survivors' weights together; 0 if nothing was opened.
    """
    from hushfleet.encoding.steps import after_wrapping, growth, smallest_change
    from hushfleet.encoding.steps import next_step as following

    saved = store.get(STEP)
    if plan.codec == PLAIN or saved is None:
        return plan.step, []
    record, step = _Record.from_body(saved), plan.step
    opened = record.opened + (outcome == APPLIED)
    if outcome == APPLIED:
        rms = metrics.norm * weight / plan.step / math.sqrt(plan.coords)
        room, smallest = growth(opened, plan.keep), smallest_change(opened, plan.keep)
        step = following(step, record.first, rms, plan.bits, plan.coords, room, smallest)
    elif (outcome, reason) == (VOID, CHECKSUM):
        step = after_wrapping(step, record.first)
    return step, [Save(STEP, replace(record, step=step, opened=opened).to_body())]


def check_optimizer(optimizer: ServerOptimizer, codec: Codec) -> None:
    """ConfigurationError for FedAdam with a codec that sends a part of the coordinates."""
    from hushfleet.encoding.profiles import PROFILES, check_server

    if optimizer.kind == "adam" and codec != "plain":
        check_server(optimizer.momentum, adam=True, everything=PROFILES[codec].keep == 1.0)


def server_step(plan: Plan, optimizer: ServerOptimizer) -> ServerStep:
    """The server's step in a plan's deltas: FedAdam's where it was chosen, else that of the profile that sends its
    fraction. A plan from before the choice may send a part of the coordinates, and ends as it was begun."""
    from hushfleet.encoding.profiles import PROFILES

    if optimizer.kind == "adam" and plan.keep == 1.0:
        return ServerStep(optimizer.rate, optimizer.momentum, (optimizer.second_momentum, optimizer.tau))
    if plan.codec == PLAIN:
        return ServerStep(1.0, 0.0)
    (profile,) = (profile for profile in PROFILES.values() if profile.keep == plan.keep)
    return ServerStep(profile.server_rate, profile.server_momentum)
