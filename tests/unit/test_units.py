"""Units of sensor readings and their conversions."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushfleet.errors import ConfigurationError
from hushfleet.units import _UNITS, conversion


@pytest.mark.parametrize(
    ("of", "to", "value", "converted"),
    [
        ("degC", "degC", 21.5, 21.5),
        ("°C", "degC", 21.5, 21.5),
        ("degF", "degC", 212.0, 100.0),
        ("degC", "°F", -40.0, -40.0),
        ("K", "degC", 273.15, 0.0),
        ("kWh", "Wh", 1.5, 1500.0),
        ("hPa", "kPa", 1013.25, 101.325),
        ("km/h", "m/s", 36.0, 10.0),
        ("inHg", "hPa", 29.92, 1013.2),
        ("kWh", "MJ", 1.0, 3.6),
        ("m³/h", "L/h", 1.0, 1000.0),
        ("g", "m/s²", 1.0, 9.80665),
        ("a unit of one's own", "a unit of one's own", 7.0, 7.0),
    ],
)
def test_values_are_converted(of: str, to: str, value: float, converted: float) -> None:
    factor, offset = conversion(of, to)
    assert value * factor + offset == pytest.approx(converted, rel=1e-5)


@given(st.sampled_from(sorted(_UNITS)), st.sampled_from(sorted(_UNITS)), st.floats(-1e6, 1e6))
def test_there_and_back_again_is_where_one_was(of: str, to: str, value: float) -> None:
    if _UNITS[of].base != _UNITS[to].base:
        return
    (there, plus), (back, again) = conversion(of, to), conversion(to, of)
    assert (value * there + plus) * back + again == pytest.approx(value, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("of", "to", "why"),
    [
        ("degC", "Pa", "'degC' cannot be converted to 'Pa': they measure different things"),
        ("degc", "degC", "'degc' cannot be converted to 'degC': the unit 'degc' is unknown"),
        ("W", "watts", "the unit 'watts' is unknown"),
    ],
)
def test_what_cannot_be_converted_is_named(of: str, to: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        conversion(of, to)


def test_the_page_has_all_units_by_what_they_measure() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sensors.md").read_text()
    groups = page.split("Units are converted within")[1].split("```text")[1].split("```")[0].split("·")
    bases = [{_UNITS[unit].base for unit in group.split()} for group in groups]
    assert all(len(base) == 1 for base in bases)
    assert len(set(map(str, bases))) == len(bases)
    assert sorted(unit for group in groups for unit in group.split()) == sorted(_UNITS)
