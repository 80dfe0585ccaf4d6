"""From the owner's rules and register to the signed set of documents (docs/protocol.md, section 2). Pure.

A document whose content is what it was keeps its bytes; a changed one gets the next version. The manifest moves when
any of them moved, and otherwise only gets a new date.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from firmware_profiles.catalog import Link
from fleet.owner import Owner
from fleet.settings import FleetSettings, SchemaRules
from hushfleet.actions import Draw
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.units import is_known
from hushfleet.wire.documents import (
    MEMBER,
    PARTICIPANT,
    Cert,
    CommitteeDocument,
    Date,
    Document,
    Firmware,
    Manifest,
    ModelSpec,
    Policy,
    Profiles,
    Root,
    Roster,
)
from hushfleet.wire.framing import LARGEST_SIGNER_COUNT, Frame
from hushfleet.wire.schema import Schema

DAY = 86_400
"""Seconds."""
ROOT_NOTICE, DATE_NOTICE = 180 * DAY, 7 * DAY
"""How long before the end of a root, and of the documents, the owner is told."""

Make = Callable[[int, int], Frame]
"""Makes a document of a version (from 1) and a time of issue (seconds since 1970 UTC)."""

TABLES: dict[str, type[Document]] = {
    table.KIND: table for table in (CommitteeDocument, Roster, Policy, ModelSpec, Profiles, Schema, Manifest, Date)
}
"""The documents that are signed together."""


@dataclass(frozen=True, slots=True)
class Composition:
    """A set of documents that belong together.

    Attributes:
        frames: committee, roster, policy, model, the firmware profiles if links were given, the schema if the settings
            have one, manifest and date, in the order in which to put them in force.
        changes: one line for each that differs from before.
        warnings: what the owner should know before handing them out.
    """

    frames: dict[str, Frame]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]


def compose(
    owner: Owner,
    settings: FleetSettings,
    certs: Iterable[Cert],
    *,
    now: int,
    draw: Draw,
    revoked: Iterable[int] = (),
    previous: Mapping[str, Frame] | None = None,
    root_version: int = 1,
    links: Mapping[str, Link] | None = None,
) -> Composition:
    """Compose and sign the documents of a fleet.

    Args:
        certs: of the coordinator and of every device ever added, in any order.
        now: seconds since 1970 UTC.
        draw: gives a new model its 32-byte initialisation seed.
        revoked: roster indices.
        previous: the frames signed last, by name, the manifest among them; none for a new fleet.
        links: of each firmware profile that the certificates name; None seals no profiles.

    Raises:
        ConfigurationError: the rules contradict the protocol or each other, or the clock stands before the last
            signature.
    """
    before = {name: frame for name, frame in (previous or {}).items() if _is_readable(frame)}
    everyone, gone = tuple(certs), frozenset(revoked)
    present = [cert for cert in everyone if cert.index not in gone]
    if (candidates := _count(present, MEMBER)) > LARGEST_SIGNER_COUNT:
        raise ConfigurationError(
            f"{candidates} members stand as candidates; a committee has at most {LARGEST_SIGNER_COUNT}: revoke some"
        )
    try:
        frames = _documents(owner, settings, everyone, gone, before, now, draw, links)
        frames["manifest"] = _manifest(owner, frames.values(), before.get("manifest"), settings, root_version, now)
    except MalformedError as error:
        raise ConfigurationError(f"fleet.toml cannot be signed: {error}") from None
    not_after = now + settings.validity.manifest * DAY
    changes = [*_changes(before, frames), date_line(not_after)]
    frames["date"] = owner.sign_date(frames["manifest"], issued=now, not_after=not_after)
    return Composition(frames, tuple(changes), tuple(_warnings(settings, present, not_after)))


def day(time: int) -> str:
    """A time in seconds since 1970 as a date in UTC."""
    return datetime.fromtimestamp(time, UTC).date().isoformat()


def date_line(not_after: int) -> str:
    """What is said of a new date."""
    return f"date: valid until {day(not_after)}"


def clock_behind(manifest: Manifest, now: int) -> ConfigurationError:
    """The error of a clock that stands before the last signature."""
    return ConfigurationError(
        f"the clock of this machine says {day(now)}, but the manifest in force was signed on {day(manifest.issued)}; "
        "set the clock"
    )


def expiry_warnings(root: Root, not_after: int, now: int) -> list[str]:
    """What runs out soon: the newest root, or the documents, which were just dated until `not_after`."""
    warnings = []
    if root.not_after < now + ROOT_NOTICE:
        warnings.append(
            f"root {root.version} runs out on {day(root.not_after)}, and with it every document; make the next one in "
            "time: hushfleet fleet rotate --root"
        )
    if not_after < now + DATE_NOTICE:
        warnings.append(
            f"the documents run out on {day(not_after)}, and every device stops; sign again, or run hushfleet fleet "
            "date, before that"
        )
    return warnings


def _documents(
    owner: Owner,
    settings: FleetSettings,
    certs: tuple[Cert, ...],
    revoked: frozenset[int],
    before: Mapping[str, Frame],
    now: int,
    draw: Draw,
    links: Mapping[str, Link] | None,
) -> dict[str, Frame]:
    manifest = Manifest.from_body(before["manifest"].body) if "manifest" in before else None
    if manifest and manifest.issued > now:
        raise clock_behind(manifest, now)

    def advance(name: str, make: Make) -> Frame:
        listed = manifest.entry(name) if manifest else None
        return _advance(make, before.get(name), listed.version if listed else 0, now)

    model = settings.model
    init = _seed_in_force(before.get("model"), settings) or draw(32)
    spec = advance(
        "model",
        lambda version, at: owner.model_spec(
            model.name, model.layer_list(), init, version=version, issued=at, personal=model.personal
        ),
    )
    rules = settings.policy.fields()
    firmware = [_firmware(name, link, spec.hash(owner.fleet)) for name, link in (links or {}).items()]
    sealed = advance("profile", lambda version, at: owner.profiles(firmware, version=version, issued=at))
    return {
        "committee": advance(
            "committee",
            lambda version, at: owner.committee_document(certs, revoked=revoked, version=version, issued=at),
        ),
        "roster": advance(
            "roster", lambda version, at: owner.roster(certs, revoked=revoked, version=version, issued=at)
        ),
        "policy": advance("policy", lambda version, at: owner.policy(rules, [spec], version=version, issued=at)),
        "model": spec,
        **({} if links is None else {"profile": sealed}),
        **({} if settings.schema is None else {"schema": advance("schema", _schema(owner, spec, settings.schema))}),
    }


def _schema(owner: Owner, spec: Frame, rules: SchemaRules) -> Make:
    return lambda version, at: owner.schema(spec, rules.channel_list(), rules.windows(), version=version, issued=at)


def _firmware(name: str, link: Link, model: bytes) -> Firmware:
    """What is sealed of a profile: its link, and the model spec in force, which its devices may train."""
    return Firmware(name, link.link_class, link.chunk, link.window, link.keepalive, link.daily_bytes, (model,))


def _advance(make: Make, old: Frame | None, newest: int, now: int) -> Frame:
    """The old frame if its content is still right, else the version after it and after the newest one listed."""
    if old is not None:
        table = TABLES[old.kind].from_body(old.body)
        if table.version >= newest and make(table.version, table.issued) == old:
            return old
        newest = max(newest, table.version)
    return make(newest + 1, now)


def _is_readable(frame: Frame) -> bool:
    """Whether this software knows the form of a document; one of a form that is no more is made anew."""
    try:
        TABLES[frame.kind].from_body(frame.body)
    except MalformedError:
        return False
    return True


def _seed_in_force(old: Frame | None, settings: FleetSettings) -> bytes | None:
    if old is None:
        return None
    spec = ModelSpec.from_body(old.body)
    model = settings.model
    same = (spec.name, spec.layers, spec.personal) == (model.name, model.layer_list(), model.personal)
    return spec.init if same else None


def _manifest(
    owner: Owner, documents: Iterable[Frame], old: Frame | None, settings: FleetSettings, root_version: int, now: int
) -> Frame:
    listed = tuple(documents)
    not_after = now + settings.validity.manifest * DAY
    version = 1
    if old is not None:
        table = Manifest.from_body(old.body)
        same = owner.sign_manifest(
            listed, version=table.version, issued=table.issued, not_after=table.not_after, root_version=root_version
        )
        if same.body == old.body:
            return old
        version = table.version + 1
    return owner.sign_manifest(listed, version=version, issued=now, not_after=not_after, root_version=root_version)


def _changes(before: Mapping[str, Frame], after: Mapping[str, Frame]) -> Iterable[str]:
    for name, frame in after.items():
        if frame != before.get(name):
            yield f"{name}: version {TABLES[name].from_body(frame.body).version}"


def _count(certs: list[Cert], role: int) -> int:
    return sum(bool(cert.roles & role) for cert in certs)


def _warnings(settings: FleetSettings, present: list[Cert], not_after: int) -> Iterable[str]:
    policy = settings.policy
    candidates, participants = _count(present, MEMBER), _count(present, PARTICIPANT)
    if candidates < policy.committee_min:
        yield (
            f"no committee can be formed: {candidates} candidates, committee_min is {policy.committee_min}; add members"
        )
    elif candidates == policy.committee_min:
        yield (
            f"there are only {candidates} candidates for a committee of {policy.committee_min}: one that is dead ends "
            "training with the epoch; add members"
        )
    if participants < policy.smallest_survivor_set:
        yield (
            f"no round can be opened: {participants} participants, smallest_survivor_set is "
            f"{policy.smallest_survivor_set}; add participants"
        )
    if policy.noise_floor or policy.epsilon or policy.delta:
        yield (
            "this version adds no noise: with noise_floor above 0 every device sits out, and epsilon and delta bind "
            "nobody; set all three to 0"
        )
    for row in settings.schema.channels if settings.schema else ():
        if not is_known(row.unit):
            yield (
                f"channel {row.name!r} of the schema is in {row.unit!r}, which devices convert from no other unit: "
                "their readings must be in it; the units they know stand in docs/sensors.md"
            )
    for name in policy.exceptions():
        yield f"this policy gives up a rule of safety: {name} = true"
    for cert in present:
        if cert.not_after < not_after:
            yield f"the certificate of {cert.device} runs out on {day(cert.not_after)}, before the manifest"
