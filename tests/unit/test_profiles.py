"""Firmware profiles: those that come with the package, and an owner's own."""

from pathlib import Path

import pytest

from firmware_profiles import catalog
from hushfleet.errors import ConfigurationError

OWN = """
name = "tiny"
description = "small slices, to be cut in the middle"
memory = 64
[link]
class = "wifi"
chunk = 256
window = 1
keepalive = 30
"""


@pytest.mark.parametrize("name", catalog.names())
def test_every_profile_loads_under_the_name_of_its_file(name: str) -> None:
    profile = catalog.load(name)
    assert profile.name == name
    assert profile.description


SHIPPED = (
    "gateway-2g",
    "gateway-lte-m",
    "gateway-nb-iot",
    "gateway-wifi",
    "industrial-imx8m",
    "openwrt-router",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2-w",
    "x86-box",
)


def test_what_is_shipped() -> None:
    assert catalog.names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_figure_says_what_it_rests_on_and_none_is_missing(name: str) -> None:
    profile = catalog.load(name)
    assert profile.lacking() == ()
    assert [place for place, figure in profile.figures().items() if not figure.source and not figure.guess] == []


@pytest.mark.parametrize("name", [name for name in SHIPPED if catalog.load(name).link.link_class != "ethernet"])
def test_the_window_carries_what_is_under_way_during_a_round_trip(name: str) -> None:
    link = catalog.load(name).link
    assert link.rate_up is not None
    assert link.round_trip is not None
    assert link.window * link.chunk >= 1000 / 8 * link.rate_up.value * link.round_trip.value / 1000


def test_figures_are_found_by_their_place() -> None:
    figures = catalog.load("raspberry-pi-zero-2-w").figures()
    assert figures["memory"] == catalog.Figure(512, source="Raspberry Pi Zero 2 W product brief")
    assert figures["link.rate_up"].guess
    assert figures["energy.idle"].source.startswith("cnx-software.com")
    assert "energy.battery" not in figures
    assert "energy.battery" in catalog.load("gateway-nb-iot").figures()


def test_sleep_windows_may_overlap_and_run_over_midnight() -> None:
    assert catalog.Schedule(asleep=("22:00-04:00", "03:00-06:00")).awake_share() == pytest.approx(16 / 24)
    assert catalog.Schedule().awake_share() == 1


def test_a_mistyped_name_gets_a_remedy() -> None:
    with pytest.raises(ConfigurationError, match="no firmware profile 'gateway-wfi'; did you mean 'gateway-wifi'"):
        catalog.load("gateway-wfi")


def test_a_file_of_the_owners_own_is_named_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(OWN)
    profile = catalog.load(str(file))
    assert profile.link == catalog.Link("wifi", 256, 1, 30)
    assert profile.memory == catalog.Figure(64)
    assert profile.lacking() == ("link.rate_up", "link.rate_down", "link.round_trip", "compute", "energy", "flash")


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("chunk = 256", "chunk = 255", "link.chunk: expected a whole number from 256 to 61440, got the number 255"),
        ("chunk = 256", "chnk = 256", "link.chnk: unknown key; did you mean 'chunk'?"),
        ('class = "wifi"', 'class = "wify"', "link.class: 'wify' is unknown; did you mean 'wifi'?"),
        ('name = "tiny"', 'name = ""', "name '' is not 1 to 64 plain ASCII characters"),
        ("keepalive = 30", "keepalive = 4000", "link.keepalive: expected a whole number from 5 to 3600"),
        ("memory = 64", "memory = -1", "memory.value: expected a number of at least 0, got the number -1"),
        ("memory = 64", "memory = 0", "memory: a figure is above 0"),
        (
            "memory = 64",
            'memory = { value = 1, source = "a", guess = "b" }',
            "memory: a figure has a source or is a guess",
        ),
        ("memory = 64", "memory = { value = 1, gues = 2 }", "memory.gues: unknown key; did you mean 'guess'?"),
        ("[link]", "[schedul]\n[link]", "schedul: unknown key; did you mean 'schedule'?"),
        ("[link]", '[schedule]\nasleep = ["22-5"]\n[link]', "asleep: '22-5' is not a window like \"23:00-05:00\""),
        ("[link]", '[schedule]\nasleep = ["00:00-00:00"]\n[link]', "asleep: the device never wakes"),
        ("[link]", "[schedule]\nduty_cycle = 0.5\n[link]", "schedule.duty_cycle needs link.rate_up and link.rate_down"),
        ("[link]", "[schedule]\nspread = -1\n[link]", "schedule.spread: expected a whole number from 0 to 86400"),
        ("[link]", "[compute]\nstep = 1\n[link]", "compute.keystream: missing; it has no default"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, written: str, instead: str, said: str) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(OWN.replace(written, instead))
    with pytest.raises(ConfigurationError) as refused:
        catalog.load(str(file))
    assert said in str(refused.value)
    assert str(file) in str(refused.value)
