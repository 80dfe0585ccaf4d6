"""What learning costs this device, in joules and in bytes that cost money, and what is left to pay for it.

Joules are reckoned as docs/planning.md reckons them: those beyond what the device draws anyway while it waits, for its
processor at work, its radio sending and receiving, and the radio's tail after the last byte. What was spent is metered,
by the process's processor time and the bytes at its socket; what a round will cost is reckoned from the firmware
profile, which `agent calibrate` measures. Bytes cost money on the links that the owner names.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from edge_agent.metered import MeteredSettings, metered_interface
from edge_agent.power import Unfit
from firmware_profiles.catalog import Compute, Energy, FirmwareProfile, Schedule
from hushfleet.configuration import Range
from hushfleet.errors import ConfigurationError
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.round import BATTERY, BUSY, ROTATED, TRAIN, Plan

Spent = TypeVar("Spent", int, float)
WATT_HOUR = 3_600.0
WRITES = 32
"""Parts of a day's energy or a month's bytes; the file is written when so much more was spent, and a crash forgets no
more."""
REMEMBERED = 3
"""Days whose joules, and months whose metered bytes are remembered."""
TUNING = 0.25
"""Part of a day's energy that goes into fine-tuning at most, as it is reckoned, and since the agent has started."""


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """`[budget]`: what this device spends on learning at most, and when.

    Attributes:
        energy: Wh a day beyond what the device draws anyway; 0 for no limit.
        shortest: 0 to 1: if the day does not pay for a whole round, it trains with fewer steps, down to this part of
            the plan's; below that it sits the round out.
        hours: daily windows "HH:MM-HH:MM", local time, in which alone it takes part; any time if it is left out.
        metered: links that cost by the byte, and how much of them.
    """

    energy: Annotated[float, Range(0)] = 0.0
    shortest: Annotated[float, Range(0, 1)] = 0.5
    hours: tuple[str, ...] | None = None
    metered: MeteredSettings = field(default_factory=MeteredSettings)

    def __post_init__(self) -> None:
        try:
            Schedule(asleep=self.hours or ())
        except ConfigurationError as error:
            raise ConfigurationError(f"hours under [budget], read like a profile's asleep: {error}") from None


@dataclass(frozen=True, slots=True)
class _Known:
    compute: Compute
    energy: Energy
    up: float
    down: float
    tail: float


def _known(profile: FirmwareProfile) -> _Known | None:
    link, energy = profile.link, profile.energy
    if profile.compute is None or energy is None or link.rate_up is None or link.rate_down is None:
        return None
    tail = energy.tail.value if energy.tail else 0.0
    return _Known(profile.compute, energy, 125 * link.rate_up.value, 125 * link.rate_down.value, tail)


def check_figures(settings: BudgetSettings, profile: FirmwareProfile) -> None:
    """ConfigurationError if there is a limit, and the profile lacks the figures to keep it."""
    if settings.energy and _known(profile) is None:
        raise ConfigurationError(
            f"energy is set under [budget], but the profile {profile.name} lacks {', '.join(profile.lacking())}: "
            "docs/planning.md tells what stands there"
        )


class Budget:
    """One device's spending of energy and of metered bytes. Safe to use from several threads.

    Args:
        settings, profile: this device's.
        path: of the file that remembers what the day and the month have cost.
        failed: is told once why the file cannot be written, or what was found instead of it.
        clock: seconds since 1970 UTC, this device's own.
        metered: the metered interface that traffic takes now, if it does.

    Raises:
        ConfigurationError: there is a limit, and the profile lacks the figures to keep it.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        profile: FirmwareProfile,
        path: Path,
        failed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        metered: Callable[[MeteredSettings], str | None] = metered_interface,
    ) -> None:
        check_figures(settings, profile)
        self._settings, self._known = settings, _known(profile)
        self._only = Schedule(asleep=settings.hours) if settings.hours else None
        self._path, self._failed, self._clock, self._interface = path, failed, clock, metered
        self._lock = threading.Lock()
        self._counted: tuple[float, int, int] | None = None
        self._active = -math.inf
        self._day, self._joules, self._written, self._tuned = "", 0.0, 0.0, 0.0
        self._days: dict[str, float] = {}
        self._months: dict[str, int] = {}
        self._bytes_written = 0
        self._read()

    # What was spent.

    def note(self, processor: float, sent: int, received: int) -> None:
        """Book what was spent since the last time; the first time only tells where counting begins.

        Args:
            processor: s of processor time, since any moment.
            sent, received: bytes at the socket, since any moment.
        """
        now = self._clock()
        with self._lock:
            before, self._counted = self._counted, (processor, sent, received)
            self._today(now)
            if before is None:
                return
            sent, received = sent - before[1], received - before[2]
            if (sent or received) and self._interface(self._settings.metered):
                self._months[self._day[:7]] += sent + received
            if self._known is not None:
                self._book(self._known, now, processor - before[0], sent, received)
            share, part = self._allowed() / WRITES, self._settings.metered.bytes / WRITES
            if (
                self._joules >= self._written + share > self._written
                or self._bytes() >= self._bytes_written + part > self._bytes_written
            ):
                self._write()

    def _book(self, known: _Known, now: float, processor: float, sent: int, received: int) -> None:
        """Joules of what was spent since the last time, up to now."""
        up, down = sent / known.up, received / known.down
        self._joules += known.energy.compute.value * processor
        self._joules += known.energy.sending.value * up + known.energy.receiving.value * down
        if up or down:
            # The radio stays on after the last byte: the tail before this one ends here, if it has not ended.
            begins = max(now - up - down, self._active)
            self._joules -= known.energy.receiving.value * max(0.0, self._active + known.tail - begins)
            self._joules += known.energy.receiving.value * known.tail
            self._active = now

    def _allowed(self) -> float:
        """J a day; 0 without a limit."""
        return WATT_HOUR * self._settings.energy

    def _today(self, now: float) -> None:
        day = time.strftime("%Y-%m-%d", time.localtime(now))
        # A clock that begins in 1970, or goes back, finds the day and the month that it has spent from already.
        if day != self._day:
            if self._day:
                self._days[self._day] = self._joules
            self._joules = self._written = self._days.pop(day, 0.0)
            self._day, self._tuned, self._days = day, 0.0, _newest(self._days)
        if next(reversed(self._months), None) != (month := day[:7]):
            self._months[month] = self._bytes_written = self._months.pop(month, 0)
            self._months = _newest(self._months)

    def _bytes(self) -> int:
        """Over metered links, this month."""
        return self._months[self._day[:7]]

    def view(self) -> dict[str, object]:
        """Wh of today, and the limit, for a person and for machines; empty where the profile lacks the figures."""
        if self._known is None:
            return {}
        with self._lock:
            self._today(self._clock())
            spent = round(self._joules / WATT_HOUR, 2)
            return {"day": self._day, "spent": spent, "limit": self._settings.energy or None}

    def view_metered(self) -> dict[str, object]:
        """Bytes of this month over metered links, and the limit; empty where none is named."""
        metered = self._settings.metered
        if not metered.interfaces:
            return {}
        with self._lock:
            self._today(self._clock())
            found = {"month": self._day[:7], "spent": self._bytes(), "limit": metered.bytes}
        return {**found, "interface": self._interface(metered)}

    # What a round will cost.

    def steps(self, plan: Plan, model: ModelSpec, members: int, size: int) -> int | Unfit:
        """How many of the plan's local steps to train, or why to sit the round out.

        Args:
            plan: a verified plan.
            model: its model spec.
            members: of the committee.
            size: bytes of the upload with what is around it.
        """
        now = self._clock()
        if not self._within_hours(now):
            return BUSY, "not in the hours in which [budget] has this device take part"
        if interface := self._interface(self._settings.metered):
            with self._lock:
                self._today(now)
                bytes_left = self._settings.metered.bytes - self._bytes()
            if bytes_left < size:
                spare = f"{max(0, bytes_left) / 1e6:.2g} of the {self._settings.metered.megabytes:g} MB a month"
                return BUSY, f"on the metered link {interface}, where {spare} that [budget] allows are left"
        known, allowed = self._known, self._allowed()
        if known is None or not allowed:
            return plan.steps
        with self._lock:
            self._today(now)
            left = allowed - self._joules
        step, rest = round_joules(known.compute, known.energy, plan, model, members)
        rest += known.energy.sending.value * size / known.up + known.energy.receiving.value * size / known.down
        rest += 2 * known.tail * known.energy.receiving.value
        if plan.kind != TRAIN and left >= rest:
            return plan.steps
        pays = min(plan.steps, math.floor((left - rest) / step))
        if plan.kind == TRAIN and pays >= max(1, self._settings.shortest * plan.steps):
            return pays
        spent = f"{max(0.0, left) / WATT_HOUR:.2g} of the {self._settings.energy:g} Wh a day"
        return BATTERY, f"{spent} that [budget] allows are left: too few for this round"

    def pays_for_tuning(self, plan: Plan, model: ModelSpec, parts: int) -> bool:
        """Whether to fine-tune for this device alone, which is booked: rounds come first where energy has a limit.

        Args:
            plan: whose local steps are taken, so many times.
        """
        now = self._clock()
        known, allowed = self._known, self._allowed()
        if not self._within_hours(now):
            return False
        if known is None or not allowed:
            return True
        step, _ = round_joules(known.compute, known.energy, plan, model, 0)
        cost = parts * plan.steps * step
        with self._lock:
            self._today(now)
            if self._tuned + cost > TUNING * allowed or self._joules + cost > allowed:
                return False
            self._tuned += cost
            return True

    def _within_hours(self, now: float) -> bool:
        _, _, _, hour, minute, *_ = time.localtime(now)
        return self._only is None or bool(self._only.sleeps_on(60 * hour + minute))

    # The file.

    def _read(self) -> None:
        try:
            kept = json.loads(self._path.read_bytes())
            days = {str(day): float(joules) for day, joules in kept["joules"].items()}
            self._months = {str(month): int(count) for month, count in kept["metered"].items()}
            self._day, self._joules = days.popitem()
            self._days = days
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._failed(f"cannot read {self._path}: {error}; what was spent begins anew")

    def _write(self) -> None:
        self._written, self._bytes_written = self._joules, self._bytes()
        joules = {day: round(spent, 1) for day, spent in (self._days | {self._day: self._joules}).items()}
        kept = {"joules": joules, "metered": self._months}
        part = self._path.with_name(self._path.name + ".part")
        try:
            part.write_text(json.dumps(kept))
            part.replace(self._path)
        except OSError as error:
            self._failed(f"cannot write {self._path}: {error.strerror}; a restart would forget what was spent")


def _newest(spent: dict[str, Spent]) -> dict[str, Spent]:
    return dict(list(spent.items())[-REMEMBERED:])


def round_joules(speed: Compute, energy: Energy, plan: Plan, model: ModelSpec, members: int) -> tuple[float, float]:
    """J of one local step, and of a round's other computing: encoding and one mask for each member."""
    step = speed.training_step(model.layers, plan.batch)
    word = 1 if plan.bits <= 8 else 2
    mask = 1e-6 * speed.multiplication.value + 1e-9 * speed.keystream.value * word * plan.coords
    encoding = speed.rotation if plan.codec == ROTATED else speed.encoding
    rest = members * mask + 1e-9 * encoding.value * model.parameters()
    return energy.compute.value * step, energy.compute.value * rest
