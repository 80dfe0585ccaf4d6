"""The coordinator as a service: roles, ledger, documents and link in one process (docs/architecture.md)."""

import json
import signal
import time
from pathlib import Path
from typing import Any

from nacl.utils import random

from coordinator.conductor import Conductor, Finished
from coordinator.context import Context
from coordinator.documents import NAMES, read_documents
from coordinator.ledger import Ledger
from coordinator.settings import CoordinatorSettings
from hushfleet import BUILD_TIME, __version__
from hushfleet.actions import RESTORED, Export, Store
from hushfleet.bundle import Bundle
from hushfleet.errors import ConfigurationError
from hushfleet.journal import Journal
from hushfleet.mqtt.events import LinkSettings, Message
from hushfleet.mqtt.topics import Topics
from hushfleet.runner import BATCH, Event
from hushfleet.service import Service
from hushfleet.trust import READY, Trust
from hushfleet.wire.framing import Identity


def link_settings(settings: CoordinatorSettings, bundle: Bundle) -> LinkSettings:
    """How the coordinator connects."""
    return LinkSettings(
        host=settings.broker.host or bundle.broker_host,
        port=settings.broker.port or bundle.broker_port,
        ca=bundle.authority,
        certificate=bundle.tls_certificate,
        key=bundle.tls_key,
        client_id=str(bundle.index),
        keepalive=settings.broker.keepalive,
        window=settings.broker.window,
        # While one batch is written to the disk, the next one arrives.
        unacknowledged=2 * BATCH,
        will_topic=Topics(bundle.fleet).state(bundle.index),
        will_payload=b'{"state": "offline"}',
    )


def make_conductor(settings: CoordinatorSettings, bundle: Bundle, store: Store) -> Conductor:
    """The coordinator's roles, from their records."""
    assert bundle.seal_secret is not None
    context = Context(
        fleet=bundle.fleet,
        index=bundle.index,
        identity=Identity(bundle.index, bundle.identity_seed),
        seal_secret=bundle.seal_secret,
        trust=Trust(bundle.fleet, bundle.root_hash, NAMES, store, BUILD_TIME),
        topics=Topics(bundle.fleet),
        store=store,
        draw=random,
        chunk=settings.broker.chunk,
    )
    return Conductor(context, settings.setup, settings.rounds)


def load_bundle(settings: CoordinatorSettings) -> Bundle:
    """The coordinator's bundle; ConfigurationError if it is a device's."""
    bundle = Bundle.load(settings.bundle)
    if bundle.seal_secret is None:
        raise ConfigurationError(
            f"{settings.bundle} is the bundle of device {bundle.name}; name the coordinator's, devices/coordinator in "
            "the fleet's directory"
        )
    return bundle


class Coordinator:
    """One coordinator, from its settings to its end."""

    def __init__(self, settings: CoordinatorSettings, journal: Journal, restored: bool = False) -> None:
        """`restored`: whether the operator vouches for a ledger that was put back from a copy.

        Raises:
            ConfigurationError: bundle, documents, or a ledger that was put back and nobody vouches for.
            StorageError: the ledger cannot be used.
        """
        self._settings = settings
        self._bundle = load_bundle(settings)
        self._signed = read_documents(settings.documents)
        self._ledger = Ledger(settings.ledger)
        self._take_restored(restored)
        self._service = Service(
            self._make_role,
            self._ledger,
            link_settings(settings, self._bundle),
            journal,
            self._perform,
            _arrival,
            status_path(settings),
            self._describe,
            kept=Topics(self._bundle.fleet).kept(),
        )

    def _take_restored(self, vouched: bool) -> None:
        """Rounds that ran since the copy was made are unknown to it: its numbers and its model would go back."""
        if self._ledger.get(RESTORED) is None:
            return
        if not vouched:
            self._ledger.close()
            raise ConfigurationError(
                f"{self._settings.ledger}: this ledger was put back from a copy, or copied to this place. If no round "
                "has run since the copy was made, say so: hushfleet coordinator run --restored. Otherwise move it away "
                'and start with an empty one ("A lost ledger" in docs/operations.md)'
            )
        with self._ledger.transaction():
            self._ledger.erase(RESTORED)

    def _make_role(self) -> Conductor:
        conductor = make_conductor(self._settings, self._bundle, self._ledger)
        conductor.offer(self._signed)
        return conductor

    def run(self) -> None:
        """Run until SIGTERM, SIGINT, or the rounds asked for are done; errors as `Service.run`."""
        self._service.journal.write("start", fleet=self._bundle.fleet.hex(), version=__version__)
        signal.signal(signal.SIGHUP, lambda *_: self._reload())
        online = {"state": "online", "version": __version__}
        try:
            self._service.run(lambda conductor, now: conductor.start(now), json.dumps(online).encode())
        finally:
            self._ledger.close()

    def _reload(self) -> None:
        """Take newer documents from the owners' directory; they come into force between two rounds."""
        try:
            self._signed = read_documents(self._settings.documents)
        except ConfigurationError as error:
            self._service.journal.write("documents-refused", why=str(error))
            return
        signed = self._signed

        def offer(conductor: Conductor, now: float) -> list[Any]:
            conductor.offer(signed)
            return conductor.advance(now)

        self._service.runner.post(offer)

    def _perform(self, action: Any) -> None:
        match action:
            case Export(name, content):
                self._export(self._settings.ledger.with_name(name), content)
            case Finished():
                self._service.runner.stop()

    def _export(self, path: Path, content: bytes) -> None:
        """The ledger has it too and gives it again at the next start, so that a full disk loses nothing here."""
        part = path.with_name(f"{path.name}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            self._service.journal.write("export-failed", file=str(path), why=error.strerror)
        else:
            self._service.journal.write("exported", file=str(path), bytes=len(content))

    def _describe(self, conductor: Conductor) -> dict[str, object]:
        plan, documents = conductor.round.plan, conductor.context.trust.state(time.time())
        back = conductor.round.models.last_rollback()
        return {
            "documents": documents,
            "round": conductor.round.last,
            "open": plan.round if plan else None,
            "uploads": conductor.round.accepted(),
            "model": conductor.round.version() if documents == READY else None,
            "rollback": {"round": back.round, "from": back.base, "version": back.version} if back else None,
            "setup": conductor.setup.trouble or None,
            "outcomes": dict(conductor.outcomes),
            "statistics": conductor.round.statistics.view(),
        }


def _arrival(message: Message) -> Event:
    return lambda conductor, now: conductor.on_message(message.topic, message.payload, message.retain, now)


def status_path(settings: CoordinatorSettings) -> Path:
    """Where a running coordinator says how it is, beside its ledger."""
    return settings.ledger.with_name("status.json")
