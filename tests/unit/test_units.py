"""Units of sensor readings and their conversions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushfleet.units import _UNITS, conversion
from hushfleet.errors import ConfigurationError


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
        ("g", "m/s²", 1.0, 9.80665),
        ("a unit of one's own", "a unit of one's own", 7.0, 7.0),
    ],
)
def test_values_are_converted(of: str, to: str, value: float, converted: float) -> None:
    factor, offset = conversion(of, to)
    assert value * factor + offset == pytest.approx(converted)


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
