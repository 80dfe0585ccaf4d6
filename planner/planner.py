"""From a fleet's wishes to a recommendation, and why the other choices lose (docs/planning.md)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from firmware_profiles.catalog import FirmwareProfile
from hushfleet.errors import ConfigurationError
from hushfleet.wire.layers import Layer, parameter_count
from planner.choices import Choice, committees, encodings, is_setting, more_rounds, windows
from planner.costs import Cost, Training, cost
from planner.messages import Committee, Encoding, Messages
from planner.risk import privacy_failure, round_failure, tolerated
from planner.traffic import Traffic

LARGEST_ROUND_FAILURE = 0.05
CLOSE, CLOSE_IN_TIME = 0.03, 0.05
"""A choice that is no more than this part better is not worth a larger committee, or a larger window."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a recommendation makes small.

    Attributes:
        name: as it is asked for.
        fewer: the word for less of it.
        measure: the figure of one option.
    """

    name: str
    fewer: str
    measure: Callable[["Option"], float]


@dataclass(frozen=True, slots=True)
class Wishes:
    """The fleet that is planned.

    Attributes:
        layers: the model's.
        profile: of every device.
        devices: certified participants, N.
        survivors: uploads in a sum, at most N.
        training: see there.
        corrupt: share of the fleet that is corrupt.
        downtime: share of the time for which a committee member is away.
        risk: largest probability that is accepted of a committee with too many of them.
        epoch_rounds: rounds of one committee's keys.
        personal: how many of the last layers each device has to itself: they are trained and not sent.
    """

    layers: tuple[Layer, ...]
    profile: FirmwareProfile
    devices: int
    survivors: int
    training: Training
    corrupt: float
    downtime: float
    risk: float
    epoch_rounds: int
    personal: int = 0

    @property
    def parameters(self) -> int:
        """d, of the shared layers."""
        return parameter_count(self.layers[: len(self.layers) - self.personal])


@dataclass(frozen=True, slots=True)
class Option:
    """One choice, what it costs, and what speaks against it.

    Attributes:
        choice: see there.
        rounds: rounds that it takes; infinity if it was not seen to get there.
        participant, member: what a device spends without and with a seat in the committee.
        privacy_failure, round_failure: probabilities (docs/protocol.md, section 7).
        against: why it cannot be recommended; empty if it can.
    """

    choice: Choice
    rounds: float
    participant: Cost
    member: Cost
    privacy_failure: float
    round_failure: float
    against: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An option beside the recommended one, of which it differs in one thing.

    Attributes:
        option: the other.
        why: what it would cost, or what speaks against it.
    """

    option: Option
    why: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan.

    Attributes:
        wishes, target: what was asked for.
        options: every choice, costed.
        best: the one recommended.
        others: by what they differ in (encoding, committee, window), in order.
    """

    wishes: Wishes
    target: Target
    options: tuple[Option, ...]
    best: Option
    others: dict[str, tuple[Verdict, ...]]


TARGETS = {
    target.name: target
    for target in (
        Target("bytes", "fewer", lambda option: option.participant.bytes),
        Target("energy", "less", lambda option: option.participant.energy),
        Target("time", "less", lambda option: option.participant.days),
        Target("flash", "less", lambda option: option.participant.wear),
    )
}


def propose(wishes: Wishes, target: Target) -> Proposal:
    """Cost every choice and recommend one.

    Raises:
        ConfigurationError: nothing can be recommended, with what speaks against the nearest; or the profile lacks
            figures.
    """
    options = tuple(_options(wishes))
    allowed = [option for option in options if not option.against]
    if not allowed:
        nearest = min(options, key=lambda option: (len(option.against), target.measure(option)))
        raise ConfigurationError(f"nothing can be recommended; of the nearest: {'; '.join(nearest.against)}")
    best = _best(allowed, target)
    others = {part: tuple(_beside(best, options, part, target)) for part in ("encoding", "committee", "window")}
    return Proposal(wishes, target, options, best, others)


def _options(wishes: Wishes) -> Iterator[Option]:
    for encoding in encodings(wishes.survivors):
        for committee in committees(wishes.devices):
            yield from _with_each_window(wishes, encoding, committee)


def _with_each_window(wishes: Wishes, encoding: Encoding, committee: Committee) -> Iterator[Option]:
    more, failing = more_rounds(encoding, wishes.survivors), round_failure(wishes.downtime, committee)
    corrupt = math.ceil(wishes.corrupt * wishes.devices)
    # Where it was not seen to get there, its costs are those of as many rounds as plain averaging takes; a round that
    # fails is run again.
    rounds = wishes.training.rounds * (more if math.isfinite(more) else 1.0) / (1 - failing)
    messages = Messages(
        layers=wishes.layers,
        devices=wishes.devices,
        survivors=wishes.survivors,
        encoding=encoding,
        committee=committee,
        epoch_rounds=wishes.epoch_rounds,
        round=max(1, math.ceil(rounds / 2)),
        device=max(1, wishes.devices // 2),
        chunk=wishes.profile.link.chunk,
        profile=wishes.profile.name,
        personal=wishes.personal,
    )
    roles = (Traffic(messages, member=False), Traffic(messages, member=True))
    for window in windows(wishes.profile.link.window):
        participant, member = (cost(wishes.profile, role, window, wishes.training, rounds) for role in roles)
        option = Option(
            Choice(encoding, committee, window),
            rounds if math.isfinite(more) else more,
            participant,
            member,
            privacy_failure(wishes.devices, corrupt, committee),
            failing,
            (),
        )
        yield replace(option, against=tuple(_against(wishes, option)))


def _against(wishes: Wishes, option: Option) -> Iterator[str]:
    committee, encoding = option.choice.committee, option.choice.encoding
    if not is_setting(encoding, wishes.survivors):
        yield "no setting of a coordinator, shown beside them"
    if not math.isfinite(option.rounds):
        yield f"f = {encoding.keep:g} was not seen to reach the target with so many devices"
    if tolerated(committee) < 1:
        yield "bears no corrupt member: devices refuse it unless the owners sign committee_trusted"
    if option.privacy_failure > wishes.risk:
        yield f"too many corrupt members with probability {option.privacy_failure:.2g}, above {wishes.risk:g}"
    if option.round_failure > LARGEST_ROUND_FAILURE:
        failing = f"{100 * option.round_failure:.2g} % of rounds fail"
        yield f"{failing} with members away {100 * wishes.downtime:g} % of the time"
    memory = wishes.profile.memory.value
    if option.participant.memory > memory / 2:
        yield f"needs {option.participant.memory:.0f} MiB of {memory:.0f}"


def _best(options: list[Option], target: Target) -> Option:
    """The cheapest; of nearly equal ones that with the smaller committee, then the smaller window."""
    least = min(map(target.measure, options))
    near = [option for option in options if target.measure(option) <= least * (1 + CLOSE)]
    fast = min(option.participant.latency for option in near)
    near = [option for option in near if option.participant.latency <= fast * (1 + CLOSE_IN_TIME)]
    return min(near, key=lambda option: (_size(option.choice.committee), option.choice.window))


def _size(committee: Committee) -> tuple[int, int]:
    return committee.members, -committee.recoveries


def _beside(best: Option, options: tuple[Option, ...], part: str, target: Target) -> Iterator[Verdict]:
    """The options that differ from the best in this part alone, and what would become of it."""
    for option in options:
        same = replace(option.choice, **{part: getattr(best.choice, part)})
        if option is not best and same == best.choice:
            yield Verdict(option, _why(best, option, part, target))


def _why(best: Option, option: Option, part: str, target: Target) -> str:
    """What speaks against it, what it would cost, and what it would save in spite of that."""
    if not math.isfinite(option.rounds):
        return "; ".join(option.against)
    ratio = target.measure(option) / target.measure(best)
    if ratio >= 2:
        compared = f"{ratio:.2g} times the {target.name}"
    elif ratio > 1 + CLOSE:
        compared = f"{100 * (ratio - 1):.0f} % more {target.name}"
    elif ratio < 1 - CLOSE:
        compared = f"{100 * (1 - ratio):.0f} % {target.fewer} {target.name}"
    elif part == "window":
        compared = _slower(best, option)
    else:
        smaller = _size(option.choice.committee) < _size(best.choice.committee)
        compared = f"about the same {target.name}" if smaller or part == "encoding" else "larger for the same"
    return "; ".join((*option.against, compared))


def _slower(best: Option, option: Option) -> str:
    longer = option.participant.latency / best.participant.latency - 1
    if option.choice.window < best.choice.window:
        return f"a round takes {100 * longer:.0f} % longer"
    gain = f"{-100 * longer:.0f} % faster" if longer < -0.005 else "no faster"
    return f"{gain}, and a lost connection wastes more"
