"""The thread that reads a device's feeds and keeps what the owner has named, and nothing else."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from edge_agent.sources.clock import SET, ClockWatch, running
from edge_agent.sources.feeds import FeedSettings
from edge_agent.sources.labels import LABEL
from edge_agent.sources.readings import Feed, Reading
from edge_agent.sources.sensors import SensorSettings
from edge_agent.sources.store import ReadingStore
from hushfleet.errors import ConfigurationError, HushfleetError
from hushfleet.journal import Journal

PAUSE = 0.2
"""Seconds between two looks at the feeds, where nobody waits for what they say."""
_SETTLING = 3.0
"""Seconds after the start in which nothing is told yet of what hinders: connections take a moment."""
_CHECK_EVERY = 60.0
"""Seconds between two looks at the units that sensors announce."""
_NO_NUMBER = "a text that the settings give no number"
_TOO_OLD = "a time longer ago than keep says"


class Collector:
    """Reads the feeds until it is closed.

    Args:
        feeds: as configured.
        sensors: which of their quantities are kept, and under which names.
        store: where; it is closed with the collector.
        journal: told what hinders it, once, and when that is over.
        after: what else is done after each look at the feeds; it gives the seconds until the next, and what hinders it.
        since_start: seconds by a clock that nobody sets.

    Attributes:
        trouble: what hinders it now, by feed.

    Raises:
        ConfigurationError: a feed cannot be opened.
    """

    def __init__(
        self,
        feeds: Sequence[FeedSettings],
        sensors: SensorSettings,
        store: ReadingStore,
        journal: Journal,
        after: Callable[[float], tuple[float, str | None]] = lambda _: (PAUSE, None),
        *,
        since_start: Callable[[], float] = running,
    ) -> None:
        self._label, self._channels, self._store, self._journal = sensors.label, sensors.addresses(), store, journal
        self._sensors = sensors
        self._longest = sensors.keep.days * 86_400
        self._after, self._since_start, self._watch = after, since_start, ClockWatch()
        self._set_count, self._moved = 0, 0.0
        self._unfit: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._newest: dict[str, float] = {}
        self.trouble: dict[str, str] = {}
        self._began = time.monotonic()
        self._check_at = self._settled = self._began + _SETTLING
        wanted = self._wanted(time.time())
        with ExitStack() as opened:
            self._feeds: list[Feed] = []
            for settings in feeds:
                self._feeds.append(settings.open(wanted))
                opened.callback(self._feeds[-1].close)
            self._opened = opened.pop_all()
        if store.put_aside:
            journal.write("readings-put-aside", file=str(store.put_aside), why="it was damaged; readings begin anew")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)
        self._thread.start()

    def _wanted(self, now: float) -> dict[str, float]:
        """The addresses to read, and how far each was kept before; a time ahead of the clock hides nothing to come."""
        newest = self._store.newest()
        kept = {
            address: min(now, *(newest.get(one.name, 0.0) for one in channels))
            for address, channels in self._channels.items()
        }
        if self._label and self._label.address:
            told = max((moment for name, moment in newest.items() if name.partition("/")[0] == LABEL), default=0.0)
            kept[self._label.address] = min(kept.get(self._label.address, now), told)
        return kept

    def _run(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = self.step(time.time())

    def step(self, now: float) -> float:
        """Take what the feeds have, once; seconds until it is time to look again."""
        if moved := self._watch.look(now, self._since_start()):
            self._set_count, self._moved = self._set_count + 1, round(moved.by, 1)
            self._store.add(SET, moved.begin, moved.end - moved.begin)
            self._journal.write("clock-set", seconds=self._moved)
        for number, feed in enumerate(self._feeds, start=1):
            try:
                for reading in feed.poll(now):
                    if reading.time < now - self._longest:
                        self._unfit[_TOO_OLD] += 1
                    else:
                        self._take(reading)
                trouble = feed.trouble
            except Exception as error:
                trouble = _why(error)
            self._tell(f"feed {number}", trouble)
        self._check_units()
        try:
            self._store.tick(now)
        except ConfigurationError as error:
            self._tell("readings", str(error))
        else:
            self._tell("readings", None)
        try:
            pause, trouble = self._after(now)
        except Exception as error:
            pause, trouble = PAUSE, _why(error)
        self._tell("decisions", trouble)
        return pause

    def _check_units(self) -> None:
        """Once a minute: a sensor may be set to another unit, or replaced."""
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + _CHECK_EVERY
        wrong = self._sensors.announced_otherwise(one for feed in self._feeds for one in feed.quantities())
        for name in {one.name for channels in self._channels.values() for one in channels}:
            self._tell(f"unit of {name}", wrong.get(name))

    def _take(self, reading: Reading) -> None:
        for channel in self._channels.get(reading.address, ()):
            number = channel.number(reading.value)
            if number is None:
                self._unfit[_NO_NUMBER] += 1
            else:
                self._keep(channel.name, reading.time, number)
        if self._label and reading.address == self._label.address:
            kept = self._label.told(reading.value)
            if kept is None:
                self._unfit["a label that the settings do not know"] += 1
            else:
                self._keep(kept[0], reading.time, kept[1])

    def _keep(self, name: str, moment: float, value: float) -> None:
        self._store.add(name, moment, value)
        self._kept[name] += 1
        self._newest[name] = moment

    def _tell(self, what: str, trouble: str | None) -> None:
        if trouble == self.trouble.get(what) or (trouble is not None and time.monotonic() < self._settled):
            return
        if trouble is None:
            del self.trouble[what]
            self._journal.write("sensors-well", what=what)
        else:
            self.trouble[what] = trouble
            self._journal.write("sensors-hindered", what=what, why=trouble)

    def heard(self) -> int:
        """How many channels, and labels, something was kept of."""
        return len(self._kept)

    def view(self) -> dict[str, object]:
        """For the status: what is kept, what was dropped and why, and what hinders; no values."""
        dropped = sum((feed.refused for feed in self._feeds), self._unfit.copy())
        return {
            "kept": {one.name: 0 for channels in self._channels.values() for one in channels} | self._kept,
            "newest": dict(self._newest),
            "dropped": dict(dropped),
            "trouble": dict(self.trouble),
            "clock_set": {"times": self._set_count, "seconds": self._moved} if self._set_count else None,
            "bytes": self._store.size(),
            "written": self._store.written(),
            "hours": round((time.monotonic() - self._began) / 3600, 2),
        }

    def close(self) -> None:
        """Stop reading; write what waits."""
        self._ended.set()
        self._thread.join()
        self._opened.close()
        try:
            self._store.close()
        except ConfigurationError as error:
            self._tell("readings", str(error))


def _why(error: Exception) -> str:
    """In words; of what nobody foresaw no more than its kind, for its text may hold what was measured."""
    return str(error) if isinstance(error, HushfleetError) else f"failed: {type(error).__name__}"
