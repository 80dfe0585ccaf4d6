"""Mosquitto's configuration and access list as text. What a real Mosquitto makes of them: tests/integration."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from broker.render import Access, Configuration, access_list, configuration
from hushfleet.errors import ConfigurationError
from hushfleet.mosquitto import find_mosquitto
from hushfleet.mqtt.chunks import LARGEST
from hushfleet.mqtt.topics import Topics

TOPICS = Topics(bytes(range(16)))
LISTENER = Configuration(
    port=8883,
    address="192.0.2.1",
    directory=Path("/var/lib/fleet"),
    access_list=Path("/var/lib/fleet/acl"),
    authority=Path("/etc/fleet/ca.pem"),
    certificate=Path("/etc/fleet/broker.pem"),
    key=Path("/etc/fleet/broker.key"),
    revocation_list=None,
    system_user="mosquitto",
    memory=1_000_000_000,
)

indices = st.integers(0, 12) | st.integers(0, 2**32 - 1)


def allows(text: str, user: str, wish: str, topic: str) -> bool:
    """What Mosquitto answers: the user block's denials, its grants, then the patterns."""
    block, own, patterns = None, [], []
    for line in text.splitlines():
        match line.split(" "):
            case ["user", name]:
                block = name
            case ["topic", access, rule] if block == user:
                own.append((access, rule))
            case ["pattern", access, rule]:
                patterns.append((access, rule.replace("%u", user)))
    matching = [access for access, rule in own if topic_matches_sub(rule, topic)]
    if "deny" in matching:
        return False
    matching += [access for access, rule in patterns if topic_matches_sub(rule, topic)]
    return any(wish in access for access in matching)


def written_by(device: int, other: int, epoch: int) -> dict[str, bool]:
    """Topics that are `device`'s to write, and whether only a candidate may."""
    return {
        TOPICS.up(3, device, "upload", 9, 1): False,
        TOPICS.up(3, device, "share", 9, part=other): False,
        TOPICS.state(device): False,
        TOPICS.card(epoch, device): True,
        TOPICS.key(epoch, device, 4): True,
        TOPICS.ready(epoch, device): True,
        TOPICS.share(epoch, device, other): True,
        TOPICS.complaint(epoch, device): True,
    }


@settings(max_examples=50)
@given(indices, indices, indices, st.sets(indices, max_size=3), st.sets(indices, max_size=2), indices)
def test_whoever_one_is_only_ones_own_topics_can_be_written(
    coordinator: int, device: int, other: int, candidates: set[int], revoked: set[int], epoch: int
) -> None:
    text = access_list(Access(TOPICS.fleet, coordinator, tuple(candidates), tuple(revoked)))
    for topic, needs_candidacy in written_by(device, other, epoch).items():
        may = not needs_candidacy or device in candidates or device == coordinator
        assert allows(text, str(device), "write", topic) == (may and device not in revoked)
        if other != device:
            assert allows(text, str(other), "write", topic) == (other == coordinator and other not in revoked)


@settings(max_examples=30)
@given(indices, indices)
def test_a_device_reads_no_other_ones_messages(device: int, other: int) -> None:
    text = access_list(Access(TOPICS.fleet, 0, (device,)))
    for topic in (TOPICS.down(other, "receipt", 1), TOPICS.certificate(other), TOPICS.share(1, other, other)):
        assert allows(text, str(device), "read", topic) == (other == device or device == 0)


def test_a_join_changes_nothing_and_no_rule_trusts_a_client_id() -> None:
    text = access_list(Access(TOPICS.fleet, 0, (1, 2)))
    assert "%c" not in text
    assert set(re.findall(r"^user (.*)$", text, re.MULTILINE)) == {"0", "1", "2", "operator"}
    assert allows(text, "77", "write", TOPICS.up(0, 77, "upload", 1))


def test_a_revoked_candidate_or_coordinator_is_denied_and_nothing_else_is_said_of_it() -> None:
    text = access_list(Access(TOPICS.fleet, 0, (1, 2), revoked=(0, 2, 9)))
    for user in ("0", "2", "9"):
        block = text.split(f"user {user}\n")[1].split("\n\n")[0]
        assert block == "topic deny #"


def setting(text: str, name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in text.splitlines() if line.startswith(f"{name} ")]


def test_the_configuration_says_what_the_protocol_needs() -> None:
    text = configuration(LISTENER)
    expected = {
        "listener": "8883 192.0.2.1",
        "tls_version": "tlsv1.3",
        "require_certificate": "true",
        "use_identity_as_username": "true",
        "use_username_as_clientid": "true",
        "allow_anonymous": "false",
        "user": "mosquitto",
        "acl_file": "/var/lib/fleet/acl",
        "persistence": "true",
        "persistence_location": "/var/lib/fleet/",
        "max_queued_bytes": "250000000",
    }
    assert {name: setting(text, name) for name in expected} == {name: [value] for name, value in expected.items()}
    assert int(setting(text, "max_queued_messages")[0]) > 0
    assert int(setting(text, "message_size_limit")[0]) >= LARGEST + 1_000


def test_all_interfaces_unless_told_otherwise() -> None:
    assert setting(configuration(replace(LISTENER, address="")), "listener") == ["8883"]


def test_a_revocation_list_is_named_only_once_there_is_one() -> None:
    assert setting(configuration(LISTENER), "crlfile") == []
    text = configuration(replace(LISTENER, revocation_list=Path("/etc/fleet/crl.pem")))
    assert setting(text, "crlfile") == ["/etc/fleet/crl.pem"]


def test_a_large_memory_does_not_overflow_mosquittos_integer() -> None:
    assert setting(configuration(replace(LISTENER, memory=2**40)), "max_queued_bytes") == [str(2**31 - 1)]


@pytest.mark.parametrize("name", ["two\nlines", "trailing ", "tab\t"])
def test_a_path_that_would_become_another_line_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"mosquitto\.conf"):
        configuration(replace(LISTENER, key=Path("/etc") / name))


def test_a_missing_mosquitto_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(ConfigurationError, match="apt-get install mosquitto"):
        find_mosquitto()
