"""The live model at work: each new window is scored and told on the owner's broker."""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

from edge_agent.collector import PAUSE
from edge_agent.inference import OFFLINE, ONLINE, Bounds, Model, Topics, discovery, is_better_left
from edge_agent.local_mqtt import LocalBroker, LocalMqtt
from edge_agent.score_guard import Back, ScoreGuard
from edge_agent.sources.sensors import Sensors
from hushfleet.configuration import Range
from hushfleet.errors import ConfigurationError
from hushfleet.journal import Journal
from hushfleet.wire.schema import Schema

if TYPE_CHECKING:
    from hushfleet.judgement import Judgement

LATE = 0.2
"""Samples that a score is late, at most, because nobody has looked."""


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    """`[decisions]`: where the live model's scores are told.

    Attributes:
        broker: the owner's.
        topic: what all topics of scores begin with.
        discovery: the prefix of Home Assistant's discovery topics; empty for none.
        personalise: whether each version is trained on here, for these scores alone, and used if it is better.
        alarm: 0 to 1, the part of the fleet's windows that are no anomalies; what is more unlike than these, is one.
        band: 0 to 1, the part of the fleet's errors, in the middle, that `low` and `high` of a number leave room for.
    """

    broker: LocalBroker = field(default_factory=LocalBroker)
    topic: str = "hushfleet"
    discovery: str = "homeassistant"
    personalise: bool = True
    alarm: Annotated[float, Range(0, 1)] = 0.99
    band: Annotated[float, Range(0, 1)] = 0.8

    def __post_init__(self) -> None:
        for name in (self.topic, self.discovery):
            if name.startswith("/") or name.endswith("/") or {"+", "#", "$", "\0"} & set(name):
                raise ConfigurationError(f"{name!r} cannot begin a topic; use words with / between them")
        if not self.topic:
            raise ConfigurationError("topic is empty; leave it out for hushfleet")


class Decisions:
    """Scores the newest window with the newest model that is fit for it. `step` belongs to one thread.

    Args:
        settings: where to tell it.
        sensors: the readings.
        name: the device's.
        unique: what no other device of any fleet has.
        journal: told of models that are not put to work.

    Raises:
        ConfigurationError: the broker's password or certificates cannot be read.
    """

    def __init__(self, settings: DecisionSettings, sensors: Sensors, name: str, unique: str, journal: Journal) -> None:
        self._settings, self._sensors, self._journal = settings, sensors, journal
        self._topics = Topics(settings.topic, settings.discovery, name, unique)
        self._guard = ScoreGuard()
        self._newer: deque[tuple[Model, Schema, bool]] = deque()
        self._back: Back | None = None
        self._bounds: Bounds | None = None
        self._told = 0
        self._last: int | None = None
        self._announced: tuple[Schema, bool] | None = None
        self._link = LocalMqtt(settings.broker, (self._topics.availability, OFFLINE.encode()))
        self._link.keep(self._topics.availability, ONLINE.encode())
        if self._topics.birth:
            self._link.listen(frozenset([self._topics.birth]))

    def at_work(self) -> Model | None:
        """The version that scores windows now, or from the next on."""
        return next((model for model, _, _ in reversed(tuple(self._newer))), self._guard.at_work)

    def use(self, model: Model, schema: Schema, losses: Sequence[float]) -> None:
        """Put a new version to work from the next window on, unless it is much worse here than the one before.

        From any thread: which of them `step` has is `step`'s alone, so that no window lacks a score or has two.

        Args:
            losses: mean losses on this device's own rows, of the version and of the one that is at work; or none.
        """
        before, bounds = self.at_work(), self._bounds
        if before and bounds and model.version < min(before.version, bounds.version):
            # The owners went back: how the fleet's rows did under a version that was left holds no more.
            self._bounds = None
        if before and len(losses) == 2 and is_better_left(*losses):
            self._journal.write("model-left", version=model.version, stays=before.version)
        else:
            self._newer.append((model, schema, len(losses) == 2 and losses[0] <= losses[1]))

    def judged(self, schema: Schema, version: int, sums: "Judgement") -> None:
        """From the next window on, hold what is told against how the fleet's rows did under some version.

        From any thread, as `use`.
        """
        if sums.present[0] > 0:
            self._bounds = Bounds.of(schema, version, sums, self._settings.alarm, self._settings.band)

    def step(self, now: float) -> tuple[float, str | None]:
        """Score the newest window, if it is a new one.

        Returns:
            Seconds until it is time to look for the next, and why nobody hears of it just now.
        """
        return self._look(now), self._link.trouble

    def _look(self, now: float) -> float:
        while self._newer:
            # Put to work before it is taken away: `at_work` is never the one before it.
            self._guard.put(*self._newer[0])
            self._newer.popleft()
        if (schema := self._guard.schema) is None:
            return PAUSE
        bounds = self._bounds
        bounds = bounds if bounds and bounds.schema == schema else None
        self._announce(schema, bounds is not None)
        found = self._sensors.newest(schema, now, self._last)
        pause = min(PAUSE, LATE / schema.rate)
        if found is None:
            return pause
        self._last, window = found
        said, back = self._guard.score(window) if window is not None else (None, None)
        if back:
            self._back = back
            self._journal.write("model-back", version=back.version, stays=back.stays, why=back.why)
        if said is not None and bounds is not None:
            said |= bounds.beside(said["value"])
        if said is not None and self._link.say(
            self._topics.state, json.dumps({**said, "at": round(self._last / schema.rate, 3)}).encode()
        ):
            self._told += 1
        return pause

    def _announce(self, schema: Schema, judged: bool) -> None:
        """Tell Home Assistant what there is, again whenever it says that it has started."""
        born = ONLINE.encode() in [message.payload for message in iter(self._link.take, None)]
        before = self._announced
        if self._topics.birth and (born or before is None or schema is not before[0] or judged != before[1]):
            self._announced = schema, judged
            self._link.keep(self._topics.config, discovery(schema, self._topics, judged))

    def view(self) -> dict[str, object]:
        """For the status."""
        model, back, bounds = self.at_work(), self._back, self._bounds
        return {
            "model": model.version if model else None,
            "personalised": bool(model and model.personalised),
            "told": self._told,
            "judged": bounds.version if bounds else None,
            "back": asdict(back) if back and model and model.version < back.version else None,
        }

    def close(self) -> None:
        """Say goodbye."""
        self._link.keep(self._topics.availability, OFFLINE.encode())
        self._link.close()
