"""What one device spends: in a round, and over the whole training (docs/planning.md has every formula in words)."""

import math
from dataclasses import dataclass

from firmware_profiles.catalog import Compute, Energy, Figure, FirmwareProfile, Flash
from hushfleet.errors import ConfigurationError
from hushfleet.secagg.residues import padded, word_dtype
from hushfleet.wire.round import ROTATED
from planner import flash
from planner.messages import Messages
from planner.packets import Count, ping
from planner.traffic import Traffic

DAY = 86_400.0
BASE_MEMORY = 55
"""MiB of an agent with numpy loaded and a small model, measured."""
BYTES_A_PARAMETER = 40
"""More memory for each parameter, measured at a million."""
COMMITS, MEMBER_COMMITS = 5, 2
"""Durable commits a round: plan seen, upload, its receipt, result seen, model; a member's answer and its erasure."""


@dataclass(frozen=True, slots=True)
class Training:
    """What is asked of every device in a round.

    Attributes:
        rounds: rounds that plain averaging would take.
        steps, batch: local training.
        pause: seconds between two rounds, at least.
    """

    rounds: int
    steps: int
    batch: int
    pause: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What one device spends. Bytes are on the line, with all headers, unless they say MQTT.

    Attributes:
        up, down: bytes a round, epochs' set-ups spread over it.
        mqtt_up, mqtt_down: the same in MQTT bytes, which the agent counts.
        joining: bytes of joining a fleet that begins.
        catching_up: bytes more for joining it later, or after a long absence.
        airtime: s a round in which the radio sends or receives.
        compute: s of one core a round.
        latency: s a round from plan to delta, for this device alone.
        days: until the last round is done.
        limit: what sets the pace, in words.
        bytes: all of it, keepalive included.
        energy: Wh beyond what the device draws without training, all of it.
        battery: share of the battery that a day takes; None on mains.
        flash: bytes written to files a round.
        wear: share of the flash's life that the training takes.
        memory: MiB that the agent needs.
    """

    up: float
    down: float
    mqtt_up: float
    mqtt_down: float
    joining: float
    catching_up: float
    airtime: float
    compute: float
    latency: float
    days: float
    limit: str
    bytes: float
    energy: float
    battery: float | None
    flash: float
    wear: float
    memory: float


@dataclass(frozen=True, slots=True)
class _Known:
    """The parts of a profile that a plan cannot do without."""

    rate_up: float
    rate_down: float
    round_trip: float
    compute: Compute
    energy: Energy
    flash: Flash


def known(profile: FirmwareProfile) -> _Known:
    """The profile's figures; ConfigurationError names what it lacks."""
    link = profile.link
    if (
        profile.compute is None
        or profile.energy is None
        or profile.flash is None
        or not (link.rate_up and link.rate_down and link.round_trip)
    ):
        raise ConfigurationError(
            f"the profile {profile.name} lacks {', '.join(profile.lacking())}: docs/planning.md tells what stands there"
        )
    return _Known(
        125 * link.rate_up.value,
        125 * link.rate_down.value,
        link.round_trip.value / 1e3,
        profile.compute,
        profile.energy,
        profile.flash,
    )


def cost(profile: FirmwareProfile, traffic: Traffic, window: int, training: Training, rounds: float) -> Cost:
    """What the device of this traffic spends over so many rounds, with `window` slices under way at once.

    Raises:
        ConfigurationError: the profile lacks figures.
    """
    device, said, per_round, joining = known(profile), traffic.messages, traffic.a_round, traffic.joining
    airtime = _airtime(device, per_round)
    compute = _compute(device.compute, traffic, training)
    waits = per_round.waits + math.ceil(per_round.fetched / window)
    commits = (COMMITS + MEMBER_COMMITS * traffic.member) * 1e-3 * device.compute.sync.value
    latency = compute + commits + airtime + waits * device.round_trip + _stalls(device, traffic, window)
    idle = ping() * (DAY * profile.schedule.awake_share() / profile.link.keepalive)
    a_day, limit = _pace(profile, training, per_round, idle, airtime, latency)
    days = rounds / a_day
    pings = _pings(profile, a_day, latency)
    written = _written(traffic)
    energy = (
        rounds * _round_energy(device, per_round, compute)
        + days * (_transfer_energy(device, ping() * pings) + pings * _tail(device))
        + _transfer_energy(device, joining)
    ) / 3_600
    battery = device.energy.battery
    return Cost(
        up=per_round.sent_line,
        down=per_round.received_line,
        mqtt_up=per_round.sent,
        mqtt_down=per_round.received,
        joining=joining.line,
        catching_up=traffic.catching_up.line,
        airtime=airtime,
        compute=compute,
        latency=latency,
        days=days,
        limit=limit,
        bytes=joining.line + rounds * per_round.line + days * pings * ping().line,
        energy=energy,
        battery=energy / days / battery.value if battery else None,
        flash=written,
        wear=rounds * written * device.flash.amplification.value / (1e12 * device.flash.endurance.value),
        memory=BASE_MEMORY + BYTES_A_PARAMETER * said.parameters / 2**20,
    )


def _airtime(device: _Known, count: Count) -> float:
    return count.sent_line / device.rate_up + count.received_line / device.rate_down


def _stalls(device: _Known, traffic: Traffic, window: int) -> float:
    """Seconds for which a closed window leaves the link empty."""
    said = traffic.messages
    full = window * said.chunk / device.rate_up
    return max(0.0, device.round_trip - full) * (math.ceil(len(said.slices) / window) - 1)


def _compute(speed: Compute, traffic: Traffic, training: Training) -> float:
    """Seconds of one core: training, encoding, masks; a member's verifications and masks besides."""
    said = traffic.messages
    step = speed.training_step(said.layers, training.batch)
    multiplication = 1e-6 * speed.multiplication.value
    coords = padded(said.encoding.coords(said.parameters))
    word = word_dtype(said.encoding.bits).itemsize
    mask = multiplication + 1e-9 * speed.keystream.value * word * coords
    encoding = speed.rotation if said.encoding.codec == ROTATED else speed.encoding
    own = training.steps * step + 1e-9 * encoding.value * said.parameters + said.committee.members * mask
    # To verify a claim takes about as long as a multiplication.
    return own + said.survivors * (mask + multiplication) if traffic.member else own


def _pace(
    profile: FirmwareProfile, training: Training, per_round: Count, idle: Count, airtime: float, latency: float
) -> tuple[float, str]:
    """Rounds a day, and what does not let it be more."""
    awake = DAY * profile.schedule.awake_share()
    limits = {
        "the pause between rounds": awake / (latency + profile.schedule.spread + training.pause),
        "the duty cycle": DAY * profile.schedule.duty_cycle / airtime,
    }
    if profile.link.daily_bytes:
        limits["the daily cap on bytes"] = max(0.0, profile.link.daily_bytes - idle.line) / per_round.line
    limit = min(limits, key=lambda name: limits[name])
    if not limits[limit]:
        raise ConfigurationError(
            f"the profile {profile.name}: pings alone spend its daily_bytes; raise keepalive or the cap"
        )
    return limits[limit], limit


def _round_energy(device: _Known, per_round: Count, compute: float) -> float:
    """J of one round; the radio's tail follows plan and upload, and result and delta."""
    return device.energy.compute.value * compute + _transfer_energy(device, per_round) + 2 * _tail(device)


def _transfer_energy(device: _Known, count: Count) -> float:
    sending, receiving = device.energy.sending.value, device.energy.receiving.value
    return sending * count.sent_line / device.rate_up + receiving * count.received_line / device.rate_down


def _pings(profile: FirmwareProfile, a_day: float, latency: float) -> float:
    """Pings a day: each comes when the link has been quiet for a keepalive, so none where a round is due sooner."""
    quiet = DAY * profile.schedule.awake_share() / a_day - latency - profile.schedule.spread
    # Pauses are often whole keepalives; what reckoning adds to one behind the comma is no further ping.
    return a_day * max(0, math.ceil(round(quiet / profile.link.keepalive, 6)) - 1)


def _tail(device: _Known) -> float:
    tail: Figure | None = device.energy.tail
    return tail.value * device.energy.receiving.value if tail else 0.0


def _written(traffic: Traffic) -> float:
    """Bytes to files a round: what participant, live model and member save and erase (edge_agent)."""
    said: Messages = traffic.messages
    upload, state, vector = len(said.upload) + len(said.header) + 100, 150, 4 * said.parameters + 150
    # What an upload leaves out is known with the result; with all coordinates sent, nothing is left out.
    pending = [vector] if said.encoding.codec == ROTATED else []
    residual = pending if said.encoding.keep < 1 else []
    written = (
        flash.commit([state])  # plan seen
        + flash.commit([state], added=[upload, *pending])
        + flash.commit(erased=[upload])
        + flash.commit([state, *residual], erased=pending)  # result seen
        + flash.commit([4 * said.state + 150])
    )
    if not traffic.member:
        return written
    answer = len(said.mask_sum) + 200
    round_sheet = 32 * said.committee.members + 150
    set_up = flash.commit(added=[len(said.key), *[round_sheet] * said.epoch_rounds, len(said.ready)])
    return (
        written
        + flash.commit([answer])
        + flash.commit([state], erased=[answer, round_sheet])
        + set_up / said.epoch_rounds
    )
