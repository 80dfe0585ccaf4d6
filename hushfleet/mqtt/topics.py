"""The topics of one fleet: one table that both writes and reads them (docs/protocol.md, section 11.5).

Short names, because a topic rides in every chunk. Devices and members are roster indices in decimal. A parsed topic is
what an access list of the broker has let pass, never a proof of anything: signatures inside the payload decide.
"""

import re
from base64 import b32encode
from dataclasses import dataclass

from hushfleet.errors import MalformedError

LONGEST = 160
"""Characters; no topic of the table is longer."""

_TABLE = {
    "root": "root/{version}",
    "manifest": "manifest",
    "date": "date",
    "certificate": "cert/{device}",
    "document": "doc/{name}/{version}/{chunk}",
    "call": "committee/{epoch}/call",
    "list": "committee/{epoch}/list",
    "transcript": "committee/{epoch}/transcript/{chunk}",
    "card": "committee/{epoch}/card/{device}",
    "key": "committee/{epoch}/key/{device}/{chunk}",
    "ready": "committee/{epoch}/ready/{device}",
    "share": "committee/{epoch}/share/{device}/{to}",
    "complaint": "committee/{epoch}/complaint/{device}",
    "plan": "plan",
    "result": "result/{round_number}",
    "sums": "sums/{round_number}/{chunk}",
    "model": "model/{version}/{name}/{chunk}",
    "up": "up/{shard}/{device}/{name}/{item}/{chunk}",
    "down": "down/{device}/{name}/{item}/{chunk}",
    "state": "state/{device}",
}

_U16, _U32, _U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1
_LIMITS = {
    "version": _U32,
    "device": _U32,
    "to": _U32,
    "epoch": _U32,
    "shard": _U16,
    "chunk": _U16,
    "round_number": _U64,
    "part": _U32,
}
_NUMBER, _NAME = "0|[1-9][0-9]{0,19}", "[a-z][a-z0-9_-]{0,31}"
_PATTERNS = {
    "name": f"(?P<name>{_NAME})",
    "item": rf"(?P<round_number>{_NUMBER})(?:\.(?P<part>{_NUMBER}))?",
} | {field: f"(?P<{field}>{_NUMBER})" for field in _LIMITS}

_BY_HEAD: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _kind, _template in _TABLE.items():
    _pattern = re.compile(_template.format(**_PATTERNS), re.ASCII)
    _BY_HEAD.setdefault(_template.partition("/")[0], []).append((_kind, _pattern))


@dataclass(frozen=True, slots=True)
class Parsed:
    """A topic taken apart. Fields that the topic does not have keep their default.

    Attributes:
        kind: root, manifest, date, certificate, document, call, list, transcript, card, key, ready, share, complaint,
            plan, result, sums, model, up, down or state.
        device: whose topic it is; in `share` the sender. u32, as are `to`, `epoch` and `version`.
        to: the member that a `share` is sealed to.
        name: the document's name, the model's kind (delta, snapshot), or the type of an `up` or `down` message.
        round_number: u64; in `up` and `down` the item's first number.
        part: the group of a mask sum or the lost member of a share, u32; None if the item is a round alone.
        shard, chunk: u16.
    """

    kind: str
    device: int = 0
    to: int = 0
    epoch: int = 0
    version: int = 0
    shard: int = 0
    name: str = ""
    round_number: int = 0
    part: int | None = None
    chunk: int = 0


class Topics:
    """Writes and reads the topics of one fleet.

    Args:
        fleet_id: 16 bytes; the topics carry the first five of them as eight lower-case base32 characters.
    """

    def __init__(self, fleet_id: bytes) -> None:
        self.fleet = b32encode(fleet_id[:5]).decode("ascii").lower()
        self._prefix = f"hf/{self.fleet}/"

    # Documents of the owner.

    def root(self, version: int) -> str:
        """The fleet root of one version."""
        return self._write("root", version=version)

    def manifest(self) -> str:
        """The newest manifest."""
        return self._write("manifest")

    def date(self) -> str:
        """The newest manifest's date."""
        return self._write("date")

    def certificate(self, device: int) -> str:
        """A device's own certificate."""
        return self._write("certificate", device=device)

    def document(self, name: str, version: int, chunk: int) -> str:
        """A chunk of a document that the manifest lists."""
        return self._write("document", name=name, version=version, chunk=chunk)

    # Setting up a committee.

    def call(self, epoch: int) -> str:
        """The coordinator's call for an epoch."""
        return self._write("call", epoch=epoch)

    def list(self, epoch: int) -> str:
        """The list of cards that became the committee."""
        return self._write("list", epoch=epoch)

    def transcript(self, epoch: int, chunk: int) -> str:
        """A chunk of an epoch's transcript."""
        return self._write("transcript", epoch=epoch, chunk=chunk)

    def card(self, epoch: int, device: int) -> str:
        """A candidate's card."""
        return self._write("card", epoch=epoch, device=device)

    def key(self, epoch: int, device: int, chunk: int) -> str:
        """A chunk of a dealer's committee key."""
        return self._write("key", epoch=epoch, device=device, chunk=chunk)

    def ready(self, epoch: int, device: int) -> str:
        """A member's signed transcript."""
        return self._write("ready", epoch=epoch, device=device)

    def share(self, epoch: int, sender: int, to: int) -> str:
        """The box of shares from one member to another."""
        return self._write("share", epoch=epoch, device=sender, to=to)

    def complaint(self, epoch: int, device: int) -> str:
        """A member's complaint about a dealer."""
        return self._write("complaint", epoch=epoch, device=device)

    # Rounds and the model.

    def plan(self) -> str:
        """The current round's plan."""
        return self._write("plan")

    def result(self, round_number: int) -> str:
        """A round's result."""
        return self._write("result", round_number=round_number)

    def sums(self, round_number: int, chunk: int) -> str:
        """A chunk of the sums that a statistics round opened."""
        return self._write("sums", round_number=round_number, chunk=chunk)

    def model(self, version: int, kind: str, chunk: int) -> str:
        """A chunk of a model version; `kind` is delta or snapshot."""
        return self._write("model", version=version, name=kind, chunk=chunk)

    def up(
        self, shard: int, device: int, kind: str, round_number: int, chunk: int = 0, *, part: int | None = None
    ) -> str:
        """A chunk of a message to the coordinator; `part` is the group of a mask sum, the lost member of a share."""
        return self._write("up", shard=shard, device=device, name=kind, item=_item(round_number, part), chunk=chunk)

    def down(self, device: int, kind: str, round_number: int, chunk: int = 0, *, part: int | None = None) -> str:
        """A chunk of a message from the coordinator to one device; `part` as in `up`."""
        return self._write("down", device=device, name=kind, item=_item(round_number, part), chunk=chunk)

    def state(self, device: int) -> str:
        """Whether a device is online, for the operator's eyes."""
        return self._write("state", device=device)

    # Filters to subscribe to.

    def any_call(self) -> str:
        """The calls of all epochs."""
        return self._write("call", epoch="+")

    def cards(self, epoch: int) -> str:
        """All cards of an epoch."""
        return self._write("card", epoch=epoch, device="+")

    def keys(self, epoch: int) -> str:
        """All chunks of all committee keys of an epoch."""
        return self._write("key", epoch=epoch, device="+", chunk="+")

    def readies(self, epoch: int) -> str:
        """All members' signed transcripts of an epoch."""
        return self._write("ready", epoch=epoch, device="+")

    def shares_to(self, epoch: int, member: int) -> str:
        """All boxes to one member."""
        return self._write("share", epoch=epoch, device="+", to=member)

    def complaints(self, epoch: int) -> str:
        """All complaints of an epoch."""
        return self._write("complaint", epoch=epoch, device="+")

    def results(self) -> str:
        """The results of all rounds."""
        return self._write("result", round_number="+")

    def ups(self, shard: int) -> str:
        """Everything from the devices of one shard."""
        return f"{self._prefix}up/{shard}/#"

    def downs(self, device: int) -> str:
        """Everything to one device."""
        return f"{self._prefix}down/{device}/#"

    def states(self) -> str:
        """The states of all devices."""
        return self._write("state", device="+")

    def kept(self) -> tuple[str, ...]:
        """Everything that the coordinator keeps retained."""
        return (
            self._write("root", version="+"),
            self.manifest(),
            self.date(),
            self._write("certificate", device="+"),
            self._write("document", name="+", version="+", chunk="+"),
            self.any_call(),
            self._write("list", epoch="+"),
            self._write("transcript", epoch="+", chunk="+"),
            self.plan(),
            self.results(),
            self._write("sums", round_number="+", chunk="+"),
            self._write("model", version="+", name="+", chunk="+"),
        )

    # Reading.

    def parse(self, topic: str) -> Parsed:
        """Take a topic of this fleet apart.

        Raises:
            MalformedError: another fleet, a topic that is not in the table, a number with a sign or leading zeros, or
                one that is too large.
        """
        if len(topic) > LONGEST or not topic.startswith(self._prefix):
            raise MalformedError(f"topic {topic[:LONGEST]!r} is not one of fleet {self.fleet}")
        rest = topic[len(self._prefix) :]
        for kind, pattern in _BY_HEAD.get(rest.partition("/")[0], ()):
            found = pattern.fullmatch(rest)
            if found:
                return _read(kind, found, topic)
        raise MalformedError(f"topic {topic!r} is not in the table of topics")

    def _write(self, kind: str, **parts: int | str) -> str:
        return self._prefix + _TABLE[kind].format(**parts)


def _item(round_number: int, part: int | None) -> str:
    return str(round_number) if part is None else f"{round_number}.{part}"


def _read(kind: str, found: re.Match[str], topic: str) -> Parsed:
    parts: dict[str, int | str] = {}
    for field, text in found.groupdict().items():
        if field == "name":
            parts["name"] = text
        elif text is not None:
            parts[field] = number = int(text)
            if number > _LIMITS[field]:
                raise MalformedError(f"topic {topic!r}: {text} is above {_LIMITS[field]}")
    return Parsed(kind, **parts)  # type: ignore[arg-type]
