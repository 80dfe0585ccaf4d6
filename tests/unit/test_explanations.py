"""Explanations that need no network: every reason has its words, and words for a person never fail."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from hushfleet.mqtt.diagnostics import OVERHEAD, Ending, explain, lacking
from hushfleet.mqtt.events import LinkSettings

SETTINGS = LinkSettings("broker.example", 8883, Path("ca.pem"), Path("7.pem"), Path("7.key"), "7")


@pytest.mark.parametrize("reason", [*Ending, *range(256), OSError(), OSError(errno.EPIPE, "odd"), KeyError("x")])
def test_every_reason_has_a_place_and_a_remedy(reason: BaseException | Ending | int) -> None:
    what, remedy = explain(reason, SETTINGS)
    assert "broker.example:8883" in what
    assert len(remedy) > 10


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN])
def test_no_route(number: int) -> None:
    what, remedy = explain(OSError(number, "unreachable"), SETTINGS)
    assert what == "there is no route to broker.example:8883"
    assert "is it online" in remedy


def test_absent_properties_mean_that_all_is_offered() -> None:
    assert lacking(SimpleNamespace(), SETTINGS) == ()


def test_what_the_broker_lacks() -> None:
    packet = SETTINGS.max_payload + OVERHEAD
    expected = {
        ("MaximumQoS", 0, 1): "QoS 1",
        ("RetainAvailable", 0, 1): "retained messages",
        ("WildcardSubscriptionAvailable", 0, 1): "wildcard subscriptions",
        ("SessionExpiryInterval", 3600, SETTINGS.session_expiry): "sessions of 1209600 s",
        ("MaximumPacketSize", packet - 1, packet): "messages of 61440 bytes",
    }
    for (name, less, enough), words in expected.items():
        assert lacking(SimpleNamespace(**{name: less}), SETTINGS) == (words,)
        assert lacking(SimpleNamespace(**{name: enough}), SETTINGS) == ()
