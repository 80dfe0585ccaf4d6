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


def test_the_links_carry_their_rate_times_round_trip() -> None:
    """Window · chunk of at least that keeps the link busy: 2G at 50 kbit/s and 0.6 s, Wi-Fi at 1 Mbit/s and 0.1 s."""
    assert catalog.names() == ("gateway-2g", "gateway-wifi")
    slow, fast = catalog.load("gateway-2g").link, catalog.load("gateway-wifi").link
    assert slow.window * slow.chunk >= 50_000 / 8 * 0.6
    assert fast.window * fast.chunk >= 1_000_000 / 8 * 0.1
    assert (fast.chunk, fast.window, fast.keepalive) == (4096, 4, 60)
    assert slow.keepalive > fast.keepalive


def test_a_mistyped_name_gets_a_remedy() -> None:
    with pytest.raises(ConfigurationError, match="no firmware profile 'gateway-wfi'; did you mean 'gateway-wifi'"):
        catalog.load("gateway-wfi")


def test_a_file_of_the_owners_own_is_named_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(OWN)
    assert catalog.load(str(file)).link == catalog.Link("wifi", 256, 1, 30)


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("chunk = 256", "chunk = 255", "link.chunk: expected a whole number from 256 to 61440, got the number 255"),
        ("chunk = 256", "chnk = 256", "link.chnk: unknown key; did you mean 'chunk'?"),
        ('class = "wifi"', 'class = "wify"', "link.class: 'wify' is unknown; did you mean 'wifi'?"),
        ('name = "tiny"', 'name = ""', "name '' is not 1 to 64 plain ASCII characters"),
        ("keepalive = 30", "keepalive = 4000", "link.keepalive: expected a whole number from 5 to 3600"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, written: str, instead: str, said: str) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(OWN.replace(written, instead))
    with pytest.raises(ConfigurationError) as refused:
        catalog.load(str(file))
    assert said in str(refused.value)
    assert str(file) in str(refused.value)
