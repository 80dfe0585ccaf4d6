"""Why a connection failed, in words that name the remedy."""

import errno
import socket
import ssl
from enum import Enum, auto

from hushfleet.mqtt.events import LinkSettings
from hushfleet.mqtt.tls import NotMqttError

OVERHEAD = 1024
"""Bytes that topic and properties may add to a payload."""


class Ending(Enum):
    """How a connection can end without an exception and without a reason code."""

    NO_HANDSHAKE = auto()  # closed during the TLS handshake, without an alert
    UNANSWERED = auto()  # closed after the TLS handshake, before the broker said a word
    CLOSED = auto()  # closed by the broker later on
    SILENT = auto()  # no answer to a ping
    STALLED = auto()  # owed answers, no byte in either direction
    UNINTELLIGIBLE = auto()  # the broker sent what the client library cannot read
    TAKEN_OVER = auto()  # closed by the broker again and again, shortly after it had accepted us


Explanation = tuple[str, str]
"""What is wrong and where; what to do."""


def explain(reason: BaseException | Ending | int, settings: LinkSettings) -> Explanation:
    """Put into words why the connection to the broker failed or ended.

    Args:
        reason: an exception of the connection, an ending without one, or the broker's MQTT 5 reason code.
        settings: of the link.
    """
    where = f"{settings.host}:{settings.port}"
    match reason:
        case Ending():
            return _explain_ending(reason, where, settings)
        case int():
            return _explain_code(reason, where, settings)
        case ssl.SSLCertVerificationError():
            return _explain_verification(reason, where, settings)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return _cut(where)
        case ssl.SSLError():
            return _explain_tls(reason, where, settings)
        case NotMqttError():
            return (
                f"{where} speaks TLS but is not an MQTT broker",
                "correct the address; the broker's TLS port is usually 8883",
            )
        case OSError() | UnicodeError():
            return _explain_network(reason, where, settings)
        case _:
            return f"{where}: {type(reason).__name__}: {reason}", "report this with the log lines before it"


def lacking(connack: object, settings: LinkSettings) -> tuple[str, ...]:
    """What the broker says in its CONNACK properties that it does not offer, in words; absent means offered.

    MQTT 5, section 3.2.2.3.
    """
    offered = {
        "QoS 1": getattr(connack, "MaximumQoS", 1) >= 1,
        "retained messages": getattr(connack, "RetainAvailable", 1) == 1,
        "wildcard subscriptions": getattr(connack, "WildcardSubscriptionAvailable", 1) == 1,
        f"sessions of {settings.session_expiry} s": (
            getattr(connack, "SessionExpiryInterval", settings.session_expiry) >= settings.session_expiry
        ),
        f"messages of {settings.max_payload} bytes": (
            getattr(connack, "MaximumPacketSize", settings.max_payload + OVERHEAD) >= settings.max_payload + OVERHEAD
        ),
    }
    return tuple(name for name, is_offered in offered.items() if not is_offered)


def _explain_network(error: OSError | UnicodeError, where: str, settings: LinkSettings) -> Explanation:
    match error:
        case socket.gaierror() | UnicodeError():
            return (
                f"the broker's name {settings.host} cannot be resolved",
                "correct the broker's address in the configuration, or this machine's name server",
            )
        case ConnectionRefusedError():
            return (
                f"nothing listens on {where}",
                "start the broker, or correct the port; its TLS port is usually 8883",
            )
        case ConnectionResetError() | BrokenPipeError():
            return _cut(where)
        case TimeoutError():
            return (
                f"{where} does not answer within {settings.connect_timeout:g} s",
                "check the address, this machine's network and the firewalls on the way",
            )
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN):
        return f"there is no route to {where}", "check this machine's network: is it online, is its gateway reachable?"
    return f"{where}: {error.strerror or error}", "check the address and this machine's network"


def _cut(where: str) -> Explanation:
    return (
        f"the connection to {where} was cut",
        "nothing if it is rare: it is made again; otherwise check the network, and look into the broker's log",
    )


# OpenSSL's verification results (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME = (62, 64)
_WRONG_PURPOSE = 26
_UNTRUSTED = (2, 7, 18, 19, 20, 21, 30)


def _explain_verification(error: ssl.SSLCertVerificationError, where: str, settings: LinkSettings) -> Explanation:
    code = error.verify_code
    if code in _WRONG_NAME:
        return (
            f"the certificate of the broker at {where} is not made out to {settings.host}",
            "use a name or address that the certificate contains, or have it issued again with "
            f"`--host {settings.host}`",
        )
    if code in (_NOT_YET_VALID, _EXPIRED):
        state = "is not valid yet" if code == _NOT_YET_VALID else "has expired"
        return (
            f"the certificate of the broker at {where} {state} by this machine's clock",
            "set this machine's clock if it is wrong; otherwise the fleet's owner has to issue the broker a new one",
        )
    if code in _UNTRUSTED:
        return (
            f"the certificate of the broker at {where} is not signed by the authority in {settings.ca}",
            "copy the fleet's transport authority certificate there again, or correct the address: this may be the "
            "broker of another fleet",
        )
    if code == _WRONG_PURPOSE:
        return (
            f"the certificate of the broker at {where} is not one for a broker",
            "give the broker the certificate that was issued for it, not a device's",
        )
    return (
        f"the certificate of the broker at {where} is not accepted: {error.verify_message}",
        "the fleet's owner has to issue the broker a new one",
    )


_CERTIFICATE_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it received none",
    "TLSV1_ALERT_UNKNOWN_CA": "it was signed by another authority than the broker trusts",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it has expired by the broker's clock",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it was revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the broker gives no detail",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the broker gives no detail",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is not one for a client",
    "TLSV1_ALERT_DECRYPT_ERROR": "its signature is wrong",
    "TLSV1_ALERT_ACCESS_DENIED": "the broker gives no detail",
}


def _explain_tls(error: ssl.SSLError, where: str, settings: LinkSettings) -> Explanation:
    if error.reason in _CERTIFICATE_ALERTS:
        return (
            f"the broker at {where} does not accept our certificate {settings.certificate}: "
            f"{_CERTIFICATE_ALERTS[error.reason]}",
            "copy certificate and key again from the fleet's owner, who can say whether this device was revoked",
        )
    if error.reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
        return (
            f"the broker at {where} does not speak TLS 1.3",
            "set `tls_version tlsv1.3` in the broker's configuration",
        )
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
        return (
            f"{where} does not speak TLS",
            "correct the port; the broker's TLS port is usually 8883, the one without TLS 1883",
        )
    return f"TLS with {where} failed: {error.reason or error}", "look for its reason in the broker's log"


def _explain_ending(ending: Ending, where: str, settings: LinkSettings) -> Explanation:
    match ending:
        case Ending.NO_HANDSHAKE:
            return (
                f"{where} closed the connection during the TLS handshake",
                "most likely this port does not speak TLS: the broker's TLS port is usually 8883, the one without 1883",
            )
        case Ending.UNANSWERED:
            return (
                f"{where} closed the connection right after the TLS handshake",
                f"most likely it does not accept our certificate {settings.certificate}: TLS 1.3 refuses a missing, "
                "foreign, expired or revoked one in this way; copy certificate and key again from the fleet's owner, "
                "and look for the reason in the broker's log",
            )
        case Ending.CLOSED:
            return f"the broker at {where} closed the connection", "nothing if it was restarted: it is made again"
        case Ending.SILENT:
            return (
                f"the broker at {where} has not answered for longer than {settings.keepalive} s",
                "nothing if it is rare: the connection is made again; otherwise check the network",
            )
        case Ending.STALLED:
            return (
                f"the connection to {where} has stood still for {settings.stall_timeout:g} s",
                "nothing if it is rare: the connection is made again; otherwise check the network",
            )
        case Ending.UNINTELLIGIBLE:
            return (
                f"{where} sent something that is not MQTT 5",
                "a message may exceed the broker's `message_size_limit`: allow 65536 there; otherwise check that this "
                "is an MQTT 5 broker",
            )
        case Ending.TAKEN_OVER:
            return (
                f"this identity ({settings.client_id}) is in use elsewhere: the broker at {where} keeps closing the "
                "connection in favour of another one",
                f"find the other machine that has a copy of {settings.key} and stop it; if there is none, the key is "
                "stolen: the fleet's owner has to revoke this device and add it again. Then start this one again",
            )


_CODES = {
    0x82: ("a protocol error", "check that this is an MQTT 5 broker"),
    0x84: ("that it does not speak MQTT 5", "use a broker that does, such as Mosquitto 2"),
    0x85: ("that the client id is not valid", "the broker must take client ids that are decimal numbers"),
    0x86: ("bad user name or password", "the broker must take the certificate as identity (use_identity_as_username)"),
    0x87: (
        "not authorised",
        "the broker's access list does not know this device: render it again with `hushfleet broker render`; the "
        "fleet's owner can say whether the device was revoked",
    ),
    0x88: ("that it is not available", "nothing: it is tried again"),
    0x89: ("that it is busy", "nothing: it is tried again"),
    0x8A: ("that this client is banned", "ask the broker's operator"),
    0x8B: ("that it is shutting down", "nothing: it is tried again"),
    0x8D: ("that it heard nothing from us in time", "nothing if it is rare; otherwise check the network"),
    0x8E: ("that another connection with this identity took over", "look for a second copy of this device"),
    0x95: ("that a message was too large", "allow 65536 bytes there (`message_size_limit`, `max_packet_size`)"),
    0x97: ("that a quota is exceeded", "raise the limits of the broker"),
    0x9F: ("that there are too many connections at once", "nothing: it is tried again"),
}


def _explain_code(code: int, where: str, settings: LinkSettings) -> Explanation:
    what, remedy = _CODES.get(code, (f"reason code 0x{code:02x}", "look it up in the broker's log"))
    return f"the broker at {where} says {what} (client {settings.client_id}, code 0x{code:02x})", remedy
