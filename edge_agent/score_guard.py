"""Live scores of a new version beside those of the version before, until they can be believed. No I/O, no clock.

A device without labels has no loss to judge a version by; what it has are windows. For its first windows a version is
shadowed by the one before: the same windows, both scored, so that whatever is different is the model's doing. It is
gone back from when a score of its own is no number, or when its scores are distributed otherwise.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_agent.inference import WORSE, Model, score
from hushfleet.stability import MOVED, stability_index
from hushfleet.wire.schema import ANOMALY, CLASSES, Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOWS = 100
"""Windows that both versions score. An index of ten bins wants some ten windows in each; and with so many, a class that
was told of every tenth window and is told no more is as much as the index lets pass."""
BINS = 10
"""Of numbers: the deciles of what the version before says."""
PATIENCE = 3
"""Versions in a row that are gone back from because of their distribution: with the next one, what has changed is the
fleet's model, and a device that stayed behind would stay behind for ever."""


@dataclass(frozen=True, slots=True)
class Back:
    """A version that is at work no more.

    Attributes:
        version: its number.
        stays: number of the one that is at work again.
        why: in words.
    """

    version: int
    stays: int
    why: str


@dataclass(slots=True)
class ScoreGuard:
    """The version at work, and while that is on trial the one before.

    Attributes:
        at_work: scores the next window.
        schema: what it takes in.
    """

    at_work: Model | None = None
    schema: Schema | None = None
    _before: Model | None = None
    _by_scores: bool = False
    _said: list[tuple[Any, Any]] = field(default_factory=list)
    _backs: int = 0

    def put(self, model: Model, schema: Schema, better: bool) -> None:
        """Put a version to work; one that is on trial still is followed by another beside the same version before.

        Args:
            better: the device's own rows say that it is no worse than the one at work: how its scores are distributed
                is not asked then, since learning may well change it.
        """
        before = self._before or self.at_work
        comparable = before and schema == self.schema and before.layers == model.layers
        # A lower number is one that the owners went back to themselves.
        self._before = before if before and comparable and model.version >= before.version else None
        self._by_scores = not better and self._backs < PATIENCE
        self.at_work, self.schema = model, schema
        self._said.clear()

    def score(self, window: "NDArray[np.float32]") -> tuple[dict[str, Any] | None, Back | None]:
        """What is told of the next window, float32[inputs], None if that is no number; and whether it was gone back.

        Every window is told by one version: by the one before, if the window is where the new one breaks.
        """
        assert self.at_work is not None
        assert self.schema is not None
        said = score(self.schema, self.at_work, window)
        if self._before is None:
            return said, None
        shadow = score(self.schema, self._before, window)
        if shadow is None:
            return said, None
        if said is None:
            return shadow, self._go_back(self._before, "a score is no number")
        self._said.append((shadow["value"], said["value"]))
        if len(self._said) < WINDOWS:
            return said, None
        why = _broken(self.schema.task, self._said) if self._by_scores else ""
        if why:
            self._backs += 1
            return shadow, self._go_back(self._before, why)
        self._before, self._backs = None, 0
        self._said.clear()
        return said, None

    def _go_back(self, before: Model, why: str) -> Back:
        assert self.at_work is not None
        back = Back(self.at_work.version, before.version, why)
        self.at_work, self._before = before, None
        self._said.clear()
        return back


def _broken(task: str, said: list[tuple[Any, Any]]) -> str:
    """Why the second of each pair cannot be believed where the first could; empty if they can."""
    import numpy as np

    before, after = zip(*said, strict=True)
    if task == ANOMALY:
        # How unlike a window is what the model makes of it is the model's loss: what makes it less has learned.
        was, now = float(np.mean(before)), float(np.mean(after))
        return f"windows are {now:.3g} unlike instead of {was:.3g}" if now > WORSE * was else ""
    if task == CLASSES:
        places = {name: at for at, name in enumerate(sorted({*before, *after}))}
        bins, count = np.array([[places[name] for name in side] for side in (before, after)]), len(places)
    else:
        edges = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
        bins, count = np.searchsorted(edges, [before, after], side="right"), len(edges) + 1
    shares, since = (np.bincount(side, minlength=count) / len(said) for side in bins)
    if np.count_nonzero(shares) == 1:
        # Whatever told all windows the same had no distribution that could break.
        return ""
    index = stability_index(shares, since, 0.5 / len(said))
    return f"scores of {len(said)} windows moved by {index:.2f}, more than {MOVED}" if index > MOVED else ""
