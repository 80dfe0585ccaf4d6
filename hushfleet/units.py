"""Units of channels and readings, and what turns one into another: value · factor + offset is in the base unit."""

from dataclasses import dataclass

from hushfleet.configuration import did_you_mean
from hushfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: a value times `factor` plus `offset` is in the `base` unit of its quantity."""

    base: str
    factor: float = 1.0
    offset: float = 0.0


_UNITS: dict[str, Unit] = {
    "degC": Unit("degC"),
    "degF": Unit("degC", 5 / 9, -160 / 9),
    "K": Unit("degC", 1.0, -273.15),
    "%": Unit("%"),
    "1": Unit("%", 100.0),
    "ppm": Unit("ppm"),
    "ppb": Unit("ppm", 1e-3),
    "Pa": Unit("Pa"),
    "hPa": Unit("Pa", 1e2),
    "mbar": Unit("Pa", 1e2),
    "kPa": Unit("Pa", 1e3),
    "bar": Unit("Pa", 1e5),
    "psi": Unit("Pa", 6894.757293168),
    "mmHg": Unit("Pa", 133.322387415),
    "inHg": Unit("Pa", 3386.388640341),
    "W": Unit("W"),
    "mW": Unit("W", 1e-3),
    "kW": Unit("W", 1e3),
    "MW": Unit("W", 1e6),
    "Wh": Unit("Wh"),
    "kWh": Unit("Wh", 1e3),
    "MWh": Unit("Wh", 1e6),
    "V": Unit("V"),
    "mV": Unit("V", 1e-3),
    "A": Unit("A"),
    "mA": Unit("A", 1e-3),
    "VA": Unit("VA"),
    "kVA": Unit("VA", 1e3),
    "var": Unit("var"),
    "J": Unit("Wh", 1 / 3600),
    "kJ": Unit("Wh", 1 / 3.6),
    "MJ": Unit("Wh", 1e6 / 3600),
    "Hz": Unit("Hz"),
    "kHz": Unit("Hz", 1e3),
    "MHz": Unit("Hz", 1e6),
    "rpm": Unit("Hz", 1 / 60),
    "lx": Unit("lx"),
    "m/s": Unit("m/s"),
    "km/h": Unit("m/s", 1 / 3.6),
    "mph": Unit("m/s", 0.44704),
    "kn": Unit("m/s", 1852 / 3600),
    "m/s2": Unit("m/s2"),
    "g": Unit("m/s2", 9.80665),
    "rad/s": Unit("rad/s"),
    "deg/s": Unit("rad/s", 0.017453292519943295),
    "deg": Unit("deg"),
    "rad": Unit("deg", 57.29577951308232),
    "m": Unit("m"),
    "km": Unit("m", 1e3),
    "in": Unit("m", 0.0254),
    "ft": Unit("m", 0.3048),
    "cm": Unit("m", 1e-2),
    "mm": Unit("m", 1e-3),
    "s": Unit("s"),
    "ms": Unit("s", 1e-3),
    "min": Unit("s", 60.0),
    "h": Unit("s", 3600.0),
    "dB": Unit("dB"),
    "dBm": Unit("dBm"),
    "ug/m3": Unit("ug/m3"),
    "mg/m3": Unit("ug/m3", 1e3),
    "L": Unit("L"),
    "mL": Unit("L", 1e-3),
    "m3": Unit("L", 1e3),
    "L/min": Unit("L/min"),
    "L/h": Unit("L/min", 1 / 60),
    "m3/h": Unit("L/min", 1000 / 60),
}

_WRITTEN_OTHERWISE = {
    "°C": "degC",
    "°F": "degF",
    "µg/m³": "ug/m3",
    "μg/m³": "ug/m3",
    "m/s²": "m/s2",
    "°/s": "deg/s",
    "°": "deg",
    "mg/m³": "mg/m3",
    "m³": "m3",
    "m³/h": "m3/h",
    "lux": "lx",
}
"""As sensors publish them; the left side of a configuration takes them too."""


def canonical(unit: str) -> str:
    """The name of a unit here: ASCII, as a schema writes it."""
    return _WRITTEN_OTHERWISE.get(unit, unit)


def is_known(unit: str) -> bool:
    """Whether other units can be converted to this one."""
    return canonical(unit) in _UNITS


def conversion(of: str, to: str) -> tuple[float, float]:
    """(factor, offset): a value of one unit times factor plus offset is its value in the other.

    Units that are not known here convert to themselves alone.

    Raises:
        ConfigurationError: they are not of one quantity.
    """
    of, to = canonical(of), canonical(to)
    if of == to:
        return 1.0, 0.0
    if of not in _UNITS or to not in _UNITS:
        unknown = of if of not in _UNITS else to
        raise ConfigurationError(
            f"{of!r} cannot be converted to {to!r}: the unit {unknown!r} is unknown; {did_you_mean(unknown, _UNITS)}"
        )
    here, there = _UNITS[of], _UNITS[to]
    if here.base != there.base:
        raise ConfigurationError(f"{of!r} cannot be converted to {to!r}: they measure different things")
    return here.factor / there.factor, (here.offset - there.offset) / there.factor
