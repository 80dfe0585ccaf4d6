"""Mosquitto's configuration and access list for one fleet, as text (docs/operations.md).

Identity is the client certificate: its common name is the roster index, becomes the user name and the client id, and
is what `%u` stands for in a topic pattern. A joining device therefore needs no new access list; candidates, the
coordinator and revocations do, and a SIGHUP makes the broker read it again.
"""

from dataclasses import dataclass
from pathlib import Path

from hushfleet.errors import ConfigurationError

OPERATOR = "operator"
"""Common name of the certificate for the operator's tools; never a roster index, so never a device's session."""

MESSAGE_SIZE_LIMIT = 65_536
"""Bytes; the largest chunk and its header stay below, because clients repeat a message that is too large for ever."""

_LARGEST_INTEGER = 2**31 - 1

_EVERYONE_READS = (
    "root/+",
    "manifest",
    "date",
    "doc/+/+/+",
    "committee/+/call",
    "committee/+/list",
    "committee/+/transcript/+",
    "plan",
    "result/+",
    "sums/+/+",
    "model/+/+/+",
)
_CANDIDATE_READS = ("card/+", "key/+/+", "ready/+", "complaint/+")


@dataclass(frozen=True, slots=True)
class Access:
    """Who stands in the access list by name.

    Attributes:
        fleet: the fleet's topic segment, eight base32 characters in lower case.
        coordinator: roster index.
        candidates: roster indices of the committee's candidates, who may write set-up topics.
        revoked: roster indices that may do nothing, whatever else is said of them.
    """

    fleet: str
    coordinator: int
    candidates: tuple[int, ...]
    revoked: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Configuration:
    """One listener and where its files are.

    Attributes:
        port: TCP, 1 to 65535.
        address: where to listen; empty means all interfaces.
        directory: the broker's own, for its persistence.
        access_list: the file that holds `access_list()`.
        authority, certificate, key: PEM files of the fleet's transport authority and of the broker.
        revocation_list: PEM file, or None before the first revocation: Mosquitto refuses every client once a list has
            expired, so there is none without need.
        system_user: whom Mosquitto runs as. It drops root before it reads its keys, so it must be told to stay.
        memory: bytes of the machine; queued messages get a quarter.
    """

    port: int
    address: str
    directory: Path
    access_list: Path
    authority: Path
    certificate: Path
    key: Path
    revocation_list: Path | None
    system_user: str
    memory: int


def access_list(access: Access) -> str:
    """The text of Mosquitto's acl_file.

    Order inside Mosquitto, whatever the order of lines: the denials of the client's own user block, its grants, then
    the patterns. So a denial in a user block stands above every pattern.
    """
    prefix = f"hf/{access.fleet}"
    lines = [
        "# Written by hushfleet broker. Patterns without %u grant every certified client; Mosquitto warns of each.",
        *(f"pattern read {prefix}/{topic}" for topic in _EVERYONE_READS),
        f"pattern read {prefix}/cert/%u",
        f"pattern read {prefix}/down/%u/#",
        f"pattern write {prefix}/up/+/%u/#",
        "# A denied subscription looks granted: a client finds out by listening to what it writes itself.",
        f"pattern readwrite {prefix}/state/%u",
    ]
    for index in sorted(set(access.revoked)):
        lines += ["", f"user {index}", "topic deny #"]
    for index in sorted(set(access.candidates) - set(access.revoked) - {access.coordinator}):
        lines += ["", f"user {index}", *_candidate(f"{prefix}/committee/+", index)]
    if access.coordinator not in access.revoked:
        lines += ["", f"user {access.coordinator}", f"topic readwrite {prefix}/#", "topic read $SYS/#"]
    lines += ["", f"user {OPERATOR}", f"topic readwrite {prefix}/#", "topic read $SYS/#"]
    return "\n".join(lines) + "\n"


def _candidate(epoch: str, index: int) -> list[str]:
    return [
        *(f"topic read {epoch}/{topic}" for topic in _CANDIDATE_READS),
        f"topic read {epoch}/share/+/{index}",
        f"topic write {epoch}/card/{index}",
        f"topic write {epoch}/key/{index}/+",
        f"topic write {epoch}/ready/{index}",
        f"topic write {epoch}/share/{index}/+",
        f"topic write {epoch}/complaint/{index}",
    ]


def configuration(settings: Configuration) -> str:
    """The text of mosquitto.conf.

    Raises:
        ConfigurationError: a path that Mosquitto's line-based format cannot carry.
    """
    lines = [
        "# Written by hushfleet broker.",
        f"listener {settings.port} {settings.address}".rstrip(),
        f"cafile {_path(settings.authority)}",
        f"certfile {_path(settings.certificate)}",
        f"keyfile {_path(settings.key)}",
        *([f"crlfile {_path(settings.revocation_list)}"] if settings.revocation_list else []),
        "tls_version tlsv1.3",
        "require_certificate true",
        "use_identity_as_username true",
        "# Without this, any certificate could take over another's session by its client id.",
        "use_username_as_clientid true",
        "",
        f"user {settings.system_user}",
        "allow_anonymous false",
        f"acl_file {_path(settings.access_list)}",
        "",
        "# Not 0: a denied publish would then also end the connection.",
        "max_queued_messages 1000000",
        f"max_queued_bytes {min(settings.memory // 4, _LARGEST_INTEGER)}",
        "max_inflight_messages 200",
        f"message_size_limit {MESSAGE_SIZE_LIMIT}",
        "max_keepalive 3600",
        "",
        "persistence true",
        f"persistence_location {_path(settings.directory)}/",
        "autosave_interval 5",
        "persistent_client_expiration 14d",
        "",
        "log_dest stderr",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
    ]
    return "\n".join(lines) + "\n"


def _path(path: Path) -> str:
    text = str(path.absolute())
    if not text.isprintable() or text != text.strip():
        raise ConfigurationError(
            f"{text!r} cannot be named in mosquitto.conf; choose a path without control characters"
        )
    return text
