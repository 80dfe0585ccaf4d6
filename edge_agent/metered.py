"""Whether this device's traffic leaves over a link that costs by the byte, by the kernel's routing tables (proc(5)).

Which link that is, its owner says: NetworkManager's own guess can be asked over D-Bus alone, and the kernel has none.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar

from hushfleet.configuration import Range

PROC = Path("/proc/net")
_UP, _REJECT = 0x1, 0x200
"""Flags of a route (linux/route.h)."""


@dataclass(frozen=True, slots=True)
class MeteredSettings:
    """`metered` under `[budget]`: links that cost by the byte.

    Attributes:
        interfaces: their names, where * stands for anything: "wwan*", "ppp0"; "*" alone for a device that has no other.
        megabytes: in a calendar month for which it takes part over them; 0 for not at all.
    """

    BARE: ClassVar = "interfaces"

    interfaces: tuple[str, ...] = ()
    megabytes: Annotated[float, Range(0)] = 0.0

    @property
    def bytes(self) -> int:
        """The same in bytes."""
        return round(1e6 * self.megabytes)


def metered_interface(settings: MeteredSettings, root: Path = PROC) -> str | None:
    """The interface that the default route takes now, if it is one of the settings'.

    Args:
        root: the directory of `route` and `ipv6_route`; what is not there tells of no route.
    """
    if not settings.interfaces:
        return None
    routes = _routes(root / "route", _fourth) or _routes(root / "ipv6_route", _sixth)
    name = min(routes, default=(0, ""))[1]
    return name if any(fnmatchcase(name, pattern) for pattern in settings.interfaces) else None


def _fourth(fields: list[str]) -> tuple[int, str] | None:
    name, destination, _, flags, _, _, metric, mask, *_ = fields
    is_default = int(destination, 16) == int(mask, 16) == 0 and int(flags, 16) & _UP
    return (int(metric), name) if is_default else None


def _sixth(fields: list[str]) -> tuple[int, str] | None:
    _, length, _, _, _, metric, _, _, flags, name = fields
    is_default = int(length, 16) == 0 and int(flags, 16) & (_UP | _REJECT) == _UP
    return (int(metric, 16), name) if is_default else None


def _routes(path: Path, read: Callable[[list[str]], tuple[int, str] | None]) -> list[tuple[int, str]]:
    """Metric and interface of every default route of a table."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        # The heading is no route.
        with suppress(ValueError):
            found.append(read(line.split()))
    return [route for route in found if route]
