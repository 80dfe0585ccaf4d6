"""Whether this device has the power to train now: batteries, mains and heat by Linux (sysfs), a UPS by NUT."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edge_agent.nut import address, charge_on_battery
from hushfleet.configuration import Range
from hushfleet.errors import LinkError
from hushfleet.wire.round import BATTERY, BUSY

SYSFS = Path("/sys/class")
Unfit = tuple[int, str]
"""Reason of a decline, and for the owner why."""


@dataclass(frozen=True, slots=True)
class PowerSettings:
    """`[power]`: when this device sits rounds out to spare itself.

    Attributes:
        battery: 0 to 1: on battery it trains only with at least this charge; 1 for never on battery.
        hottest: degrees Celsius above which it does not train; 0 for no limit.
        nut: a UPS that supplies it, "ups@host" or "ups@host:port", for which `battery` holds as well; one that does not
            answer lets it not train.
    """

    battery: Annotated[float, Range(0, 1)] = 0.0
    hottest: Annotated[float, Range(0, 200)] = 0.0
    nut: str | None = None

    def __post_init__(self) -> None:
        if self.nut is not None:
            address(self.nut)


class Power:
    """Looks at the kernel's files each time it is asked; what is not there limits nothing.

    Args:
        root: the directory of `power_supply` and `thermal` (Documentation/ABI/testing/sysfs-class-power and -thermal).
    """

    def __init__(self, settings: PowerSettings, root: Path = SYSFS) -> None:
        self._settings, self._root = settings, root

    def unfit(self) -> Unfit | None:
        """Why not to train now; None if nothing speaks against it."""
        least = self._settings.battery
        try:
            charges = [self._charge(), charge_on_battery(self._settings.nut) if self._settings.nut and least else None]
        except LinkError as error:
            return BATTERY, str(error)
        charge = min((charge for charge in charges if charge is not None), default=None)
        if least and charge is not None and (charge < least or least == 1):
            return BATTERY, f"on battery with {charge:.0%} of its charge, where battery = {least:g} is set"
        heat = self._heat()
        if self._settings.hottest and heat is not None and heat > self._settings.hottest:
            return BUSY, f"at {heat:.0f} degrees Celsius, more than {self._settings.hottest:g}"
        return None

    def says(self) -> str:
        """What a UPS says now, for its owner; empty if none is named. LinkError if it does not answer."""
        if not self._settings.nut:
            return ""
        charge = charge_on_battery(self._settings.nut)
        return "not on battery" if charge is None else f"on battery with {charge:.0%} of its charge"

    def _charge(self) -> float | None:
        """Charge of the fullest battery while nothing else supplies this device; None otherwise."""
        supplies = [path for path in self._root.glob("power_supply/*") if _word(path / "scope") != "Device"]
        batteries = [path for path in supplies if _word(path / "type") == "Battery"]
        others = [path for path in supplies if path not in batteries]
        if not batteries or any(_word(path / "online") == "1" for path in others):
            return None
        if not others and not any(_word(path / "status") == "Discharging" for path in batteries):
            return None
        charges = [number / 100 for path in batteries if (number := _number(path / "capacity")) is not None]
        return max(charges, default=None)

    def _heat(self) -> float | None:
        found = [_number(path) for path in self._root.glob("thermal/thermal_zone*/temp")]
        return max((number / 1000 for number in found if number is not None), default=None)


def _word(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_word(path))
    except ValueError:
        return None
