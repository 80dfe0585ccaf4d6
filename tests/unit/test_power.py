"""When a device sits rounds out to spare itself, on trees of files as the kernel shows them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.power import Power, PowerSettings
from hushfleet.errors import ConfigurationError
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


@contextmanager
def upsd(*answers: str) -> Iterator[str]:
    """The address of a UPS whose server gives these answers, one to each line, as upsd 2.8.0 does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            line, _ = server.accept()
            with line, line.makefile("r", encoding="utf-8") as questions:
                for answer in (*answers, "OK Goodbye"):
                    told.append(questions.readline().strip())
                    line.sendall(f"{answer}\n".encode())

        told: list[str] = []
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"box@127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)
        assert told == ["GET VAR box ups.status", "GET VAR box battery.charge", "LOGOUT"]


@pytest.mark.parametrize(
    ("status", "charge", "battery", "unfit"),
    [
        ('VAR box ups.status "OL CHRG"', 'VAR box battery.charge "20"', 1.0, False),
        ('VAR box ups.status "OB DISCHRG"', 'VAR box battery.charge "37"', 0.37, False),
        ('VAR box ups.status "OB DISCHRG"', 'VAR box battery.charge "37"', 0.38, True),
        ('VAR box ups.status "OB LB"', "ERR VAR-NOT-SUPPORTED", 0.1, True),
        ("ERR UNKNOWN-UPS", "ERR UNKNOWN-UPS", 0.1, True),
        ("ERR DATA-STALE", 'VAR box battery.charge "90"', 0.1, True),
    ],
)
def test_a_ups_counts_as_its_battery(tmp_path: Path, status: str, charge: str, battery: float, unfit: bool) -> None:
    with upsd(status, charge) as nut:
        found = Power(PowerSettings(battery=battery, nut=nut), tmp_path).unfit()
    assert (found is not None) == unfit
    if found:
        assert found[0] == BATTERY
        told = "on battery with" if status.startswith("VAR") else f"does not say whether it is on battery: {status}"
        assert told in found[1]


def test_the_lower_of_two_batteries_counts(tmp_path: Path) -> None:
    with upsd('VAR box ups.status "OB"', 'VAR box battery.charge "90"') as nut:
        found = Power(PowerSettings(battery=0.5, nut=nut), show(tmp_path, **BATTERY_ALONE)).unfit()
    assert found == (BATTERY, "on battery with 40% of its charge, where battery = 0.5 is set")


def test_a_ups_that_does_not_answer_lets_nobody_train_and_one_that_is_not_asked_for_does(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = Power(PowerSettings(battery=0.1, nut=f"box@127.0.0.1:{port}"), tmp_path).unfit()
    why = f"the UPS box@127.0.0.1:{port} does not answer: Connection refused; is upsd running there?"
    assert found == (BATTERY, why)
    assert Power(PowerSettings(nut=f"box@127.0.0.1:{port}"), tmp_path).unfit() is None
    with pytest.raises(ConfigurationError, match="name the UPS like"):
        PowerSettings(nut="localhost")
