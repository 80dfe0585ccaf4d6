"""What goes into a link and what comes out of it: settings and events, without the library behind them."""

from dataclasses import dataclass, field
from pathlib import Path

from hushfleet.mqtt.chunks import LARGEST

NO_SUBSCRIBER = 0x10
"""Reason code: nobody has subscribed; for an upload, the coordinator's session does not exist."""
LEFT_BEHIND = 0
"""No reason code: the link was away, and what waited then may be out of date; who still wants it offers it again."""
NOT_AUTHORIZED = 0x87
"""Reason code: the broker's access list forbids it."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where the broker is, who we are there, and how patient we are.

    Attributes:
        host, port: the broker's name or address, as its certificate has it.
        ca, certificate, key: PEM files: the fleet's transport authority, our certificate, our private key.
        client_id: the roster index in decimal, as in the certificate's common name.
        keepalive: seconds of silence after which the line is tested, 1 to 3,600; by the profile's link class.
        window: messages sent and not yet acknowledged by the broker, at most.
        unacknowledged: messages that were received and not yet acknowledged, about; above it nothing more is read.
        max_payload: bytes of the largest message, either way.
        session_expiry: seconds for which the broker keeps our session while we are away.
        reconnect_min, reconnect_max: seconds; the n-th failure in a row waits a random time up to
            min(reconnect_max, reconnect_min · 2^n).
        connect_timeout: seconds for each of TCP and TLS; a deep NB-IoT link needs 31 for both.
        stall_timeout: seconds without a byte in either direction, while an answer is owed; then the line is dead.
        attempts: lost connections after which a message that is always the oldest unacknowledged one is given up.
        will_topic, will_payload: published (retained) by the broker when we are gone; an empty topic means no will.
    """

    host: str
    port: int
    ca: Path
    certificate: Path
    key: Path
    client_id: str
    keepalive: int = 60
    window: int = 4
    unacknowledged: int = 256
    max_payload: int = LARGEST
    session_expiry: int = 14 * 86_400
    reconnect_min: float = 1.0
    reconnect_max: float = 300.0
    connect_timeout: float = 30.0
    stall_timeout: float = 120.0
    attempts: int = 5
    will_topic: str = ""
    will_payload: bytes = b""


@dataclass(frozen=True, slots=True)
class AckToken:
    """Names a message to the link that delivered it; void once that connection is gone."""

    generation: int
    number: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker has accepted us.

    Attributes:
        session_present: whether it still has our session. Without it everything that was subscribed is subscribed
            again by the link; messages queued for us are lost, so that what has no receipt must be sent again.
        generation: counts connections from 1.
        lacking: what the protocol needs and this broker says it does not offer, in words; empty on a fit one.
    """

    session_present: bool
    generation: int
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is lost or could not be made; the link tries again by itself. Both texts are for a person."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a link is not to be connected now.

    Attributes:
        why: for a person.
        until: seconds since 1970 UTC.
    """

    why: str
    until: float


@dataclass(frozen=True, slots=True)
class Asleep:
    """The link has disconnected, or does not connect, as it was told; it connects again by itself afterwards."""

    absence: Absence


@dataclass(frozen=True, slots=True)
class Message:
    """A message. It comes again after the next connection unless its token is acknowledged.

    Attributes:
        retain: it was published with the retain flag, however it reached us.
        token: for `Link.ack`; None if the broker expects no acknowledgement.
    """

    topic: str
    payload: bytes = field(repr=False)
    retain: bool
    token: AckToken | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The broker has the message in its memory. It proves neither disk nor receipt."""

    topic: str


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The broker has refused or discarded the message: 0x87 not authorised, 0x10 no subscriber, or another code.

    Or `LEFT_BEHIND`: it was not sent at all.
    """

    topic: str
    reason_code: int


@dataclass(frozen=True, slots=True)
class SubscriptionRefused:
    """The broker has refused a subscription. One that hides behind its access list instead is silent: see the probe."""

    topic: str
    reason_code: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The message was given up: the connection broke on it too often. Most likely it is too large for the broker."""

    topic: str


@dataclass(frozen=True, slots=True)
class IdentityInUse:
    """Somebody else keeps connecting with our identity. The link has stopped; both texts are for a person."""

    reason: str
    remedy: str


LinkEvent = (
    Connected
    | Disconnected
    | Asleep
    | Message
    | Delivered
    | Undelivered
    | SubscriptionRefused
    | Dropped
    | IdentityInUse
)


@dataclass(slots=True)
class Counters:
    """What happened on a link since it was made; read only.

    Attributes:
        connections: accepted by the broker.
        resumed: of these, with a resumed TLS session.
        errors: exceptions of the events' receiver or, unforeseen, of the link itself.
        stale_acks: acknowledgements ignored because their connection was gone.
        undelivered, dropped: messages, as the events of these names.
    """

    connections: int = 0
    resumed: int = 0
    errors: int = 0
    stale_acks: int = 0
    undelivered: int = 0
    dropped: int = 0
