"""The owner's directory: one fleet's keys, documents, transport material and the bundles to hand out.

    fleet.toml         the rules, edited by the owner
    register.json      every device ever added: its index is never given again
    keys/              the owners' secrets (keyring.py)
    documents/         root.1 …, manifest, date, committee, roster, policy, model, cert/<index>: exact frame bytes
    transport/         ca.pem; broker.pem, broker.key, broker.toml (where it is); operator.pem, operator.key for
                       hushfleet broker check; crl.pem once something is revoked
    devices/<name>/    the bundle of a device; devices/coordinator is the coordinator's

Secrets have mode 0600 in directories of mode 0700. A bundle may be removed here once it has been copied.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from firmware_profiles import catalog
from fleet import transport
from fleet.composition import DAY, TABLES, Composition, compose, expiry_warnings
from fleet.keyring import Keyring, write_secret
from fleet.owner import Credentials, Owner
from fleet.register import Line, Register
from fleet.settings import FleetSettings, template
from hushfleet import bundle, configuration
from hushfleet.actions import Draw
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.hashing import key_id
from hushfleet.wire.documents import COORDINATOR, MEMBER, PARTICIPANT, Cert, Certificate, Date, Manifest, Root
from hushfleet.wire.framing import Frame, TableType, read

COORDINATOR_NAME, COORDINATOR_INDEX = "coordinator", 0
ROOT_DAYS = 3_653

_DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_LARGEST_DOCUMENT = 64 * 1024 * 1024
_RESTORE = "restore it from a backup"


class Desk:
    """The owner's directory, held by one process at a time. Times are seconds since 1970 UTC."""

    def __init__(self, directory: Path) -> None:
        """For `open` and `create` alone."""
        self.directory = directory
        self.keys, self.documents = directory / "keys", directory / "documents"
        self.transport, self.devices = directory / "transport", directory / "devices"
        self.keyring = Keyring(self.keys)

    @classmethod
    @contextmanager
    def open(cls, directory: Path) -> Iterator["Desk"]:
        """The desk in `directory`; another process waits until it is free again."""
        if not (directory / "register.json").is_file():
            raise ConfigurationError(f"{directory} holds no fleet; make one with: hushfleet fleet init {directory}")
        handle = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield cls(directory)
        finally:
            os.close(handle)

    @classmethod
    def create(
        cls, directory: Path, *, hosts: Sequence[str], port: int, settings: Path | None, draw: Draw, now: int
    ) -> "Desk":
        """Make a new fleet: the owners' keys, root 1, the transport authority, the broker's and coordinator's keys.

        Args:
            directory: absent or empty.
            hosts: names and addresses under which clients reach the broker; bundles carry the first.
            settings: a fleet.toml to copy; None for the commented defaults.

        Raises:
            ConfigurationError: the directory is in use, or an argument cannot be used; then nothing was made.
        """
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigurationError(f"{directory} is not empty; name a new directory for the new fleet")
        name = directory.resolve().name[:40] or "fleet"
        text = template(name)
        if settings is not None:
            name, text = configuration.load(settings, FleetSettings).fleet.name, settings.read_text("utf-8")
        authority = transport.create_authority(name)
        broker = transport.issue_broker(authority, hosts)
        operator = transport.issue_client(authority, "operator")
        owner = Owner.create(draw)
        root = owner.sign_root(issued=now, not_after=now + ROOT_DAYS * DAY)

        desk = cls(directory)
        desk._make_directories()
        transport.write_file(directory / "fleet.toml", text.encode("utf-8", "replace"), 0o644)
        transport.write_file(desk.keys / "ca.key", authority.key_pem, 0o600)
        transport.write_file(desk.transport / "ca.pem", authority.certificate_pem, 0o644)
        desk.keyring.add(owner.key_sets())
        transport.write_file(desk.documents / "root.1", root.to_bytes(), 0o644)
        desk.save(Register(tuple(hosts), port))
        desk.write_broker(broker, operator)
        desk._hand_out(COORDINATOR_NAME, COORDINATOR, "", draw, now)
        return desk

    def settings(self) -> FleetSettings:
        """fleet.toml as it stands now."""
        return configuration.load(self.directory / "fleet.toml", FleetSettings)

    def register(self) -> Register:
        """register.json."""
        path = self.directory / "register.json"
        try:
            return Register.from_json(path.read_text("utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{path} is damaged ({error}); {_RESTORE}") from None

    def fleet(self) -> bytes:
        """The fleet's id, 16 bytes."""
        return self._read("root.1", Root)[1].fleet

    def root_hash(self) -> bytes:
        """The hash of root 1, which every bundle pins."""
        frame, root = self._read("root.1", Root)
        return frame.hash(root.fleet)

    def cert(self, index: int) -> Cert:
        """What the owners certified of a device."""
        return self._read(f"cert/{index}", Certificate)[1].cert

    def is_signed(self) -> bool:
        """Whether there is a manifest."""
        return (self.documents / "manifest").exists()

    def add(self, names: Sequence[str], roles: int, profile: str, *, draw: Draw, now: int) -> None:
        """Make keys, certificates and a bundle for each new device; in force with the next `sign`.

        Args:
            roles: PARTICIPANT, MEMBER or their sum.
            profile: the name of a firmware profile, or the path of one.

        Raises:
            ConfigurationError: a name that is taken or cannot be used; then nothing was added.
        """
        profile_name = self._keep_profile(profile)
        taken = {line.name for line in self.register().lines}
        for name in names:
            if not _DEVICE_NAME.fullmatch(name):
                raise ConfigurationError(f"{name!r} cannot name a device; use 1 to 63 letters, digits, '.', '_', '-'")
            if name in taken:
                raise ConfigurationError(f"the name {name!r} is taken; names, like indices, are never given again")
            if (self.devices / name).exists():
                raise ConfigurationError(
                    f"{self.devices / name} exists, but the register does not know it: an earlier command was "
                    "interrupted; remove that directory and try again"
                )
            taken.add(name)
        for name in names:
            self._hand_out(name, roles, profile_name, draw, now)

    def _keep_profile(self, profile: str) -> str:
        """Keep a copy of the profile's file, from which it is sealed with every signature; its name."""
        loaded, place = catalog.load(profile), self.directory / "profiles"
        kept = place / f"{loaded.name}.toml"
        if "/" in loaded.name or loaded.name.startswith("."):
            raise ConfigurationError(f"{profile}: the name {loaded.name!r} cannot name a file")
        text = catalog.path(profile).read_bytes()
        if kept.exists() and catalog.load(str(kept)) != loaded:
            raise ConfigurationError(
                f"{kept} is another profile of the name {loaded.name!r}; change that file and sign, or name this one "
                "otherwise"
            )
        if not kept.exists():
            place.mkdir(exist_ok=True)
            transport.write_file(kept, text, 0o644)
        return loaded.name

    def _links(self, certificates: Iterable[Certificate]) -> dict[str, catalog.Link]:
        """The link of each firmware profile that a device's certificate names."""
        named = {one.cert.profile for one in certificates if one.cert.roles & (PARTICIPANT | MEMBER)}
        links = {}
        for name in sorted(named):
            kept = self.directory / "profiles" / f"{name}.toml"
            if not kept.exists() and name not in catalog.names():
                raise ConfigurationError(f"{kept} is missing: put the file of the firmware profile {name!r} there")
            links[name] = catalog.load(str(kept) if kept.exists() else name).link
        return links

    def sign(self, *, draw: Draw, now: int) -> Composition:
        """Compose, sign and write the documents, under the newest root; an interrupted rotation is finished by it.

        Raises:
            ConfigurationError: fleet.toml or the register cannot be signed; the documents are as they were.
        """
        root = self.newest_root()
        owner = self.keyring.owner(root)
        composition, certificates = self.compose(owner, root, draw=draw, now=now)
        self.put_in_force(composition, certificates)
        self.keyring.settle(root)
        return composition

    def compose(self, owner: Owner, root: Root, *, draw: Draw, now: int) -> tuple[Composition, dict[int, Frame]]:
        """Everything signed under `root`, and by index the certificates that its signers have yet to sign.

        Raises:
            ConfigurationError: as `sign`; nothing is written here.
        """
        register = self.register()
        certificates = {line.index: self._read(f"cert/{line.index}", Certificate) for line in register.lines}
        revoked = [line.index for line in register.lines if line.revoked]
        composition = compose(
            owner,
            self.settings(),
            [certificate.cert for _, certificate in certificates.values()],
            now=now,
            draw=draw,
            revoked=revoked,
            previous={name: self._read(name, TABLES[name])[0] for name in TABLES if (self.documents / name).exists()},
            root_version=root.version,
            links=self._links(certificate for _, certificate in certificates.values()),
        )
        warnings = expiry_warnings(root, Date.from_body(composition.frames["date"].body).not_after, now)
        signed_anew = {
            index: owner.certificate(certificate.cert, issued=now)
            for index, (frame, certificate) in certificates.items()
            if index not in revoked and not _signed_under(root, frame)
        }
        return replace(composition, warnings=(*composition.warnings, *warnings)), signed_anew

    def put_in_force(self, composition: Composition, certificates: Mapping[int, Frame]) -> None:
        """Write what `compose` gave: the manifest after what it lists, its date last."""
        for index, frame in certificates.items():
            transport.write_file(self.documents / "cert" / str(index), frame.to_bytes(), 0o644)
        for name, frame in composition.frames.items():
            transport.write_file(self.documents / name, frame.to_bytes(), 0o644)

    def newest_root(self) -> Root:
        """The root of the highest version."""
        versions = [int(file.suffix[1:]) for file in self.documents.glob("root.*") if file.suffix[1:].isdecimal()]
        return self._read(f"root.{max(versions, default=1)}", Root)[1]

    def manifest(self) -> tuple[Frame, Manifest] | None:
        """The manifest in force; None before the first signature."""
        return self._read("manifest", Manifest) if self.is_signed() else None

    def date(self) -> Date | None:
        """The newest date, whichever manifest it is of."""
        return self._read("date", Date)[1] if (self.documents / "date").exists() else None

    def revoke(self, name: str, *, now: int) -> None:
        """Note in the register and in the broker's revocation list that a device is out.

        Devices learn of it with the next `sign`.
        """
        if self.register().line(name).index == COORDINATOR_INDEX:
            raise ConfigurationError("the coordinator cannot be revoked: every fleet has exactly one")
        register = self.register().with_revoked(name, now)
        self.save(register)
        serials = [serial for line in register.lines if line.revoked for serial in line.tls_serials]
        transport.write_file(self.transport / "crl.pem", transport.revocation_list(self.authority(), serials), 0o644)

    def lines_in_force(self) -> tuple[Line, ...]:
        """Every device that is not revoked."""
        return tuple(line for line in self.register().lines if not line.revoked)

    def authority(self) -> transport.Authority:
        """The transport authority, its key included."""
        return transport.Authority(_content(self.keys / "ca.key"), _content(self.transport / "ca.pem"))

    def write_broker(self, broker: transport.KeyPair, operator: transport.KeyPair) -> None:
        """What the broker's host gets beside the authority's certificate."""
        register = self.register()
        transport.write_key_pair(self.transport, "broker", broker)
        transport.write_key_pair(self.transport, "operator", operator)
        text = f"hosts = {json.dumps(register.hosts)}\nport = {register.port}\n"
        transport.write_file(self.transport / "broker.toml", text.encode(), 0o644)

    def write_tls(self, directory: Path, client: transport.KeyPair) -> None:
        """A device's key and certificate for the connection to the broker, with the authority's certificate."""
        transport.write_key_pair(directory, "tls", client)
        transport.write_file(directory / bundle.AUTHORITY, self.authority().certificate_pem, 0o644)

    def save(self, register: Register) -> None:
        """Replace register.json."""
        transport.write_file(self.directory / "register.json", register.to_json().encode(), 0o644)

    def _make_directories(self) -> None:
        try:
            (self.documents / "cert").mkdir(parents=True)
            for private in (self.keys, self.transport, self.devices):
                private.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"cannot make {self.directory}: {error.strerror}; name another place") from None

    def _hand_out(self, name: str, roles: int, profile: str, draw: Draw, now: int) -> None:
        register = self.register()
        index = self._next_index(register)
        not_after = now + self.settings().validity.certificates * DAY
        credentials = Credentials.draw(draw, index, name, roles, profile=profile, not_before=now, not_after=not_after)
        certificate = self.keyring.owner(self.newest_root()).certificate(credentials.cert, issued=now)
        authority = self.authority()
        client = transport.issue_client(authority, str(index))
        transport.write_file(self.documents / "cert" / str(index), certificate.to_bytes(), 0o644)
        self._write_bundle(register, credentials, certificate, client)
        until = min(client.not_after, authority.not_after)
        self.save(register.with_line(Line(index, name, (client.serial,), until)))

    def _next_index(self, register: Register) -> int:
        """One above every index given, those of interrupted commands among them."""
        given = [int(file.name) for file in (self.documents / "cert").iterdir() if file.name.isdecimal()]
        return max([*given, *(line.index for line in register.lines)], default=COORDINATOR_INDEX - 1) + 1

    def _write_bundle(
        self, register: Register, credentials: Credentials, certificate: Frame, client: transport.KeyPair
    ) -> None:
        cert, root = credentials.cert, self._read("root.1", Root)[0]
        settings = bundle.write_settings(
            fleet=self.fleet(),
            index=cert.index,
            name=cert.device,
            root_hash=self.root_hash(),
            broker_host=register.hosts[0],
            broker_port=register.port,
        )
        directory = self.devices / cert.device
        directory.mkdir(mode=0o700)
        write_secret(directory / bundle.IDENTITY, credentials.identity_seed)
        if credentials.seal_secret is not None:
            write_secret(directory / bundle.SEAL, credentials.seal_secret)
        self.write_tls(directory, client)
        transport.write_file(directory / bundle.FIRST_ROOT, root.to_bytes(), 0o644)
        transport.write_file(directory / bundle.CERTIFICATE, certificate.to_bytes(), 0o644)
        transport.write_file(directory / bundle.SETTINGS, settings.encode(), 0o644)

    def _read(self, name: str, table: type[TableType]) -> tuple[Frame, TableType]:
        path = self.documents / name
        try:
            frame = Frame.from_bytes(_content(path), _LARGEST_DOCUMENT)
            return frame, read(frame, table)
        except MalformedError as error:
            raise ConfigurationError(f"{path} is damaged ({error}); {_RESTORE}") from None


def _signed_under(root: Root, certificate: Frame) -> bool:
    """Whether a certificate is by enough of the signers that `root` names."""
    return sum(certificate.signed_by(key_id(key), key, root.fleet) for key in root.signer) >= root.signer_n


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}; {_RESTORE}") from None
