"""How a device comes by its fleet's documents: roots in order, manifest, date, then what the manifest lists. No I/O."""

from collections.abc import Hashable
from contextlib import suppress

from edge_agent.context import Context
from edge_agent.fetch import REST, Fetcher
from hushfleet.actions import Action, Note, Subscribe, Unsubscribe
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.trust import REMEDIES, STALE, WAITING
from hushfleet.wire.documents import Entry

LONGEST_REST = 3600.0
"""Seconds between two askings for what does not come, at most."""


class Documents:
    """Feeds the device's trust. What comes before that which it needs is held until then."""

    def __init__(self, context: Context, fetcher: Fetcher) -> None:
        self._context = context
        self._fetcher = fetcher
        self._manifest = self._date = b""
        self._certificates: dict[str, bytes] = {}
        self._state = WAITING
        self._ask_at: float | None = None
        self._rest = REST

    def start(self, root: bytes, certificate: bytes) -> list[Action]:
        """Take what the owner put into the bundle, unless something newer is known."""
        trust = self._context.trust
        actions = trust.offer_root(root) if trust.root is None else []
        self._certificates["bundle"] = certificate
        try:
            return [*actions, *trust.offer_certificate(certificate, self._context.identity.public_key)]
        except RefusedError as error:
            # A signer of another root signed it: the way to that root, or a certificate held already, makes it good.
            refused = Note("refused", {"topic": "certificate", "why": str(error)}, "certificate")
            return [*actions, *([] if trust.certificate else [refused])]

    def topics(self) -> list[str]:
        """What is listened to for documents; the next root comes by its exact topic."""
        names, root = self._context.topics, self._context.trust.root
        return [
            names.manifest(),
            names.date(),
            names.root(root.version + 1 if root else 1),
            names.certificate(self._context.index),
        ]

    def ask_again(self, now: float) -> list[Action]:
        """What this device waits for may have been lost on its way: it is retained, so asking again brings it again.

        Less and less often, until something new comes.
        """
        if self._ask_at is None:
            self._ask_at = now + self._rest
        if now < self._ask_at:
            return []
        self._rest = min(2 * self._rest, LONGEST_REST)
        self._ask_at = now + self._rest
        return [Subscribe(topic) for topic in self.topics()]

    def _patience_again(self) -> None:
        self._rest, self._ask_at = REST, None

    def on_root(self, data: bytes) -> list[Action]:
        """Take the next root and listen for the one after it; a certificate may be waiting for it."""
        names, actions = self._context.topics, self._context.trust.offer_root(data)
        root = self._context.trust.root
        assert root is not None
        self._patience_again()
        for certificate in self._certificates.values():
            with suppress(HushfleetError):
                actions += self._context.trust.offer_certificate(certificate, self._context.identity.public_key)
        return [*actions, Unsubscribe(names.root(root.version)), Subscribe(names.root(root.version + 1))]

    def on_manifest(self, data: bytes) -> list[Action]:
        """Hold a manifest until its root is here."""
        self._manifest = data
        return []

    def on_date(self, data: bytes) -> list[Action]:
        """Hold a date until its manifest is here."""
        self._date = data
        return []

    def on_certificate(self, data: bytes) -> list[Action]:
        """Take this device's own certificate; one by a signer still to come is tried again with the next root."""
        self._certificates["broker"] = data
        return self._context.trust.offer_certificate(data, self._context.identity.public_key)

    def on_document(self, name: str, data: bytes) -> list[Action]:
        """Take a fetched document."""
        return self._context.trust.offer_document(name, data)

    def advance(self, now: float) -> list[Action]:
        """Use what is held, fetch what the manifest lists, and note when the fleet's state changes."""
        actions = [*self._take_manifest(), *self._take_date()]
        if self._manifest or self._context.trust.state(now) in (WAITING, STALE):
            actions += self.ask_again(now)
        return [*actions, *self._fetch(now), *self._note_state(now)]

    def _take_manifest(self) -> list[Action]:
        trust = self._context.trust
        if not self._manifest or trust.root is None:
            return []
        try:
            actions = trust.offer_manifest(self._manifest)
        except HushfleetError as error:
            # A manifest of a newer root is good as soon as that root is here; any other is not looked at twice.
            if trust.manifest_of_newer_root(self._manifest):
                return []
            self._manifest = b""
            return [Note("refused", {"topic": "manifest", "why": str(error)}, "manifest")]
        self._manifest = b""
        if actions:
            self._patience_again()
        return actions

    def _take_date(self) -> list[Action]:
        trust = self._context.trust
        if not self._date or trust.manifest is None:
            return []
        try:
            actions = trust.offer_date(self._date)
        except HushfleetError as error:
            if self._manifest:
                # It may be the date of the manifest that still waits for its root.
                return []
            actions = [Note("refused", {"topic": "date", "why": str(error)}, "date")]
        self._date = b""
        return actions

    def _fetch(self, now: float) -> list[Action]:
        missing = {("document", entry.name, entry.version): entry for entry in self._context.trust.missing()}
        names: set[Hashable] = set(missing)
        actions = self._fetcher.keep_only("document", names)
        for name, entry in missing.items():
            actions += self._want(name, entry, now)
        return actions

    def _want(self, name: Hashable, entry: Entry, now: float) -> list[Action]:
        names = self._context.topics
        return self._fetcher.want(
            name, lambda chunk: names.document(entry.name, entry.version, chunk), entry.length, now
        )

    def _note_state(self, now: float) -> list[Action]:
        state = self._context.trust.state(now)
        if state == self._state:
            return []
        self._state = state
        return [
            Note("state", {"state": state, "manifest": list(self._context.trust.pair), "remedy": REMEDIES.get(state)})
        ]
