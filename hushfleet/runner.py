"""Runs one role: its events in order, its records committed before anything leaves (hushfleet/actions.py).

One thread, a queue, a store and a link. Events that wait are handled together, at most 64, under one commit; only then
are their messages sent and the broker's messages acknowledged. When the store fails the runner ends: what was not
committed was never acknowledged, and the next start goes on from the disk.
"""

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hushfleet.actions import Erase, Note, Publish, Save, Store, Subscribe, Unsubscribe, Wake
from hushfleet.errors import StorageError
from hushfleet.journal import Journal
from hushfleet.mqtt.events import AckToken

BATCH = 64
TICK = 10.0
"""Seconds after which a role looks at the clock anyway."""
SET_BACK = 60.0
"""Seconds by which a clock goes back, at least, for a role to start anew: what it waits for would be as late."""

Event = Callable[[Any, float], Iterable[Any]]
"""What happened, as a call of the role with the time; it returns the role's actions."""


class TransactionStore(Store, Protocol):
    """A store with transactions: a vault, a ledger, or a scratch store."""

    def begin(self) -> None:
        """Start a transaction."""

    def save(self, key: str, value: bytes) -> None:
        """Write a record."""

    def erase(self, key: str) -> None:
        """Remove a record."""

    def commit(self) -> None:
        """Make the transaction durable."""

    def rollback(self) -> None:
        """Take the transaction back."""


class Outlet(Protocol):
    """Where messages leave: a link."""

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Send a message."""

    def subscribe(self, topic: str, again: bool = True) -> None:
        """Listen."""

    def unsubscribe(self, topic: str) -> None:
        """Stop listening."""

    def ack(self, token: AckToken) -> None:
        """Confirm a message to the broker."""


class Runner:
    """One role under way.

    Args:
        make_role: builds the role from its records; called again if the role ever fails in a way nobody foresaw.
        store: its durable records; it is used on the thread of `run` alone.
        link: where messages leave.
        journal: where notes go.
        perform: what to do with actions that are none of the common ones.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        make_role: Callable[[], Any],
        store: TransactionStore,
        link: Outlet,
        journal: Journal,
        perform: Callable[[Any], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._make_role, self._store, self._link, self._journal = make_role, store, link, journal
        self._perform, self._clock = perform, clock
        self._events: queue.SimpleQueue[tuple[Event | None, AckToken | None]] = queue.SimpleQueue()
        self._wakes: list[float] = []
        self._looked = 0.0
        self._stopping = threading.Event()
        self._newest = 0.0
        self.role: Any = None
        self.failures = 0

    def post(self, event: Event, token: AckToken | None = None) -> None:
        """Let something happen; from any thread. `token` is acknowledged once its records are durable."""
        self._events.put((event, token))

    def stop(self) -> None:
        """End once the events at hand are handled; from any thread or signal handler.

        What waits was not acknowledged.
        """
        self._stopping.set()
        self._events.put((None, None))

    def run(self, start: Event) -> None:
        """Build the role, handle `start`, then everything posted, until `stop`.

        Raises:
            StorageError: the store failed; nothing of the events at hand has left or was acknowledged.
        """
        self.role = self._make_role()
        self._start = start
        self._handle([(start, None)])
        while not self._stopping.is_set():
            self._handle(self._collect())

    def _collect(self) -> list[tuple[Event | None, AckToken | None]]:
        """The events that wait, at most a batch; the clock's own when its time has come."""
        now = self._clock()
        # Counted from the last look: what happens meanwhile may be no role's matter, and must not put it off.
        tick = self._looked + TICK if 0 <= now - self._looked < TICK else now
        wake = min(self._wakes[0], tick) if self._wakes else tick
        batch: list[tuple[Event | None, AckToken | None]] = []
        try:
            batch.append(self._events.get(timeout=max(0.0, wake - now)))
            while len(batch) < BATCH:
                batch.append(self._events.get_nowait())
        except queue.Empty:
            pass
        now = self._clock()
        while self._wakes and self._wakes[0] <= now:
            heapq.heappop(self._wakes)
        if not batch or now >= wake:
            self._looked = now
            batch.append((lambda role, time: role.on_wake(time), None))
        return batch

    def _handle(self, batch: list[tuple[Event | None, AckToken | None]]) -> None:
        leaving: list[Any] = []
        self._store.begin()
        for event, _ in batch:
            if event is not None:
                leaving += self._decide(event)
        self._store.commit()
        for action in leaving:
            self._execute(action)
        for _, token in batch:
            if token is not None:
                self._link.ack(token)

    def _decide(self, event: Event) -> list[Any]:
        """One event's actions; its records are written into the open transaction."""
        now = self._clock()
        anew: list[Any] = []
        if now < self._newest - SET_BACK:
            self._journal.write("clock-set-back", seconds=round(self._newest - now))
            anew = self._write(self._begin_anew(now))
        self._newest = now
        try:
            return [*anew, *self._write(event(self.role, now))]
        except StorageError:
            raise
        except Exception as error:
            # Whatever the role half remembers of this event is in no record: it starts anew from those.
            self.failures += 1
            # Whoever found out how to cause it can cause it again.
            place = _place(error)
            self._journal.hear("internal-error", place, error=f"{type(error).__name__}: {error}", place=place)
            return [*anew, *self._write(self._begin_anew(now))]

    def _begin_anew(self, now: float) -> Iterable[Any]:
        """Build the role from its records again, as after a crash."""
        self.role = self._make_role()
        return [*self._start(self.role, now), *self.role.on_connected(False, now)]

    def _write(self, actions: Iterable[Any]) -> list[Any]:
        """Write the actions' records into the open transaction."""
        done = list(actions)
        for action in done:
            if isinstance(action, Save):
                self._store.save(action.key, action.value)
            elif isinstance(action, Erase):
                self._store.erase(action.key)
        return done

    def _execute(self, action: Any) -> None:
        match action:
            case Save() | Erase():
                pass
            case Publish(topic, payload, retain):
                self._link.publish(topic, payload, retain)
            case Subscribe(topic, again):
                self._link.subscribe(topic, again)
            case Unsubscribe(topic):
                self._link.unsubscribe(topic)
            case Wake(at):
                heapq.heappush(self._wakes, at)
            case Note(event, fields, sender):
                if sender:
                    self._journal.hear(event, sender, **fields)
                else:
                    self._journal.write(event, **fields)
            case _:
                self._perform(action)


def _place(error: BaseException) -> str:
    """File and line where it happened; values stay out of the log."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else "?"
