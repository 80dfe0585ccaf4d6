"""When a device sits rounds out to spare itself, on trees of files as the kernel shows them."""

from pathlib import Path

import pytest

from edge_agent.power import Power, PowerSettings
from hushfleet.wire.round import BATTERY, BUSY


def show(root: Path, **files: str) -> Path:
    """Write files; `BAT0__type` is power_supply/BAT0/type, `zone0` a temperature."""
    for name, content in files.items():
        supply, _, file = name.partition("__")
        path = root / "power_supply" / supply / file if file else root / "thermal" / f"thermal_{name}" / "temp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


BATTERY_ALONE = {"BAT0__type": "Battery", "BAT0__status": "Discharging", "BAT0__capacity": "40"}
ON_MAINS = {**BATTERY_ALONE, "BAT0__status": "Charging", "AC__type": "Mains", "AC__online": "1"}


@pytest.mark.parametrize(
    ("files", "battery", "unfit"),
    [
        ({}, 1.0, False),
        (BATTERY_ALONE, 0.0, False),
        (BATTERY_ALONE, 0.4, False),
        (BATTERY_ALONE, 0.41, True),
        ({**BATTERY_ALONE, "BAT0__capacity": "100"}, 1.0, True),
        (ON_MAINS, 1.0, False),
        ({**ON_MAINS, "AC__online": "0"}, 0.5, True),
        # Full, and the kernel knows of no other supply.
        ({**BATTERY_ALONE, "BAT0__status": "Full"}, 1.0, False),
        # The fullest battery counts; a mouse's is not this device's.
        ({**BATTERY_ALONE, "BAT1__type": "Battery", "BAT1__capacity": "90"}, 0.5, False),
        ({**BATTERY_ALONE, "BAT0__scope": "Device"}, 1.0, False),
        ({**BATTERY_ALONE, "BAT0__capacity": "unknown"}, 1.0, False),
    ],
)
def test_on_battery_a_device_needs_some_charge(
    tmp_path: Path, files: dict[str, str], battery: float, unfit: bool
) -> None:
    found = Power(PowerSettings(battery=battery), show(tmp_path, **files)).unfit()
    assert (found is not None) == unfit
    if found:
        assert found[0] == BATTERY
        assert "on battery with" in found[1]


@pytest.mark.parametrize(("hottest", "unfit"), [(0.0, False), (70.0, True), (71.5, False)])
def test_a_hot_device_does_not_train(tmp_path: Path, hottest: float, unfit: bool) -> None:
    found = Power(PowerSettings(hottest=hottest), show(tmp_path, zone0="42000", zone1="71500", zone2="")).unfit()
    assert found == ((BUSY, "at 72 degrees Celsius, more than 70") if unfit else None)
