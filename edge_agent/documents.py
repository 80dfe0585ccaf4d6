"""How a device comes by its fleet's documents: roots in order, manifest, date, then what the manifest lists. No I/O."""

from collections.abc import Hashable

from edge_agent.context import Context
from edge_agent.fetch import REST, Fetcher
from hushfleet.actions import Action, Note, Subscribe, Unsubscribe
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.trust import REMEDIES, WAITING
from hushfleet.wire.documents import Entry


class Documents:
    """Feeds the device's trust. A manifest or date that comes before what it needs is held until then."""

    def __init__(self, context: Context, fetcher: Fetcher) -> None:
        self._context = context
        self._fetcher = fetcher
        self._manifest = self._date = b""
        self._state = WAITING
        self._ask_at: float | None = None

    def start(self, root: bytes, certificate: bytes) -> list[Action]:
        """Take what the owner put into the bundle, unless something newer is known."""
        trust = self._context.trust
        actions = trust.offer_root(root) if trust.root is None else []
        try:
            return [*actions, *self.on_certificate(certificate)]
        except RefusedError as error:
            return [*actions, Note("refused", {"topic": "certificate", "why": str(error)})]

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
        """What this device waits for may have been lost on its way: it is retained, so asking again brings it again."""
        if self._ask_at is not None and now < self._ask_at:
            return []
        first, self._ask_at = self._ask_at is None, now + REST
        return [] if first else [Subscribe(topic) for topic in self.topics()]

    def on_root(self, data: bytes) -> list[Action]:
        """Take the next root and listen for the one after it."""
        names, actions = self._context.topics, self._context.trust.offer_root(data)
        root = self._context.trust.root
        assert root is not None
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
        """Take this device's own certificate."""
        return self._context.trust.offer_certificate(data, self._context.identity.public_key)

    def on_document(self, name: str, data: bytes) -> list[Action]:
        """Take a fetched document."""
        return self._context.trust.offer_document(name, data)

    def advance(self, now: float) -> list[Action]:
        """Use what is held, fetch what the manifest lists, and note when the fleet's state changes."""
        trust = self._context.trust
        actions: list[Action] = []
        if self._manifest and trust.root:
            try:
                actions += trust.offer_manifest(self._manifest)
                self._manifest = b""
            except HushfleetError as error:
                # A manifest of a newer root is good as soon as that root is here; any other is not looked at twice.
                if trust.manifest_of_newer_root(self._manifest):
                    return actions
                self._manifest = b""
                actions.append(Note("refused", {"topic": "manifest", "why": str(error)}))
        if self._date and trust.manifest:
            try:
                actions += trust.offer_date(self._date)
            except HushfleetError as error:
                actions.append(Note("refused", {"topic": "date", "why": str(error)}))
            self._date = b""
        if trust.state(now) == WAITING:
            actions += self.ask_again(now)
        return [*actions, *self._fetch(now), *self._note_state(now)]

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
