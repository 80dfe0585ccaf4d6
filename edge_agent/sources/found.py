"""What a device's readings come to: rows, and what they lack."""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.sources.quality import Counts
from edge_agent.sources.rows import LocalData


@dataclass(frozen=True, slots=True)
class Found:
    """What a device's readings come to.

    Attributes:
        data: the rows.
        counts: by channel: readings, and what was left out.
        measured: by channel: the part of its samples that were measured, over the time that is looked at.
        refused: windows with too much imputed.
        unlabelled: windows without a target.
        spare: windows with one that are not among the rows, since memory holds no more.
    """

    data: LocalData
    counts: Mapping[str, Counts]
    measured: Mapping[str, float]
    refused: int
    unlabelled: int
    spare: int

    def lacks(self) -> str:
        """Why there are not more windows, for the owner."""
        found = []
        for name, counts in self.counts.items():
            if not counts.readings:
                found.append(f"no readings of {name!r} are kept yet")
            elif counts.left_out() == counts.readings:
                reason = max(counts.reasons().items(), key=lambda one: one[1])[0].replace("_", " ")
                found.append(f"all {counts.readings} readings of {name!r} were left out, most as {reason}")
        if self.refused:
            worst = min(self.measured, key=lambda name: self.measured[name])
            found.append(
                f"{self.refused} windows had too much imputed ({self.measured[worst]:.0%} of the samples of {worst!r} "
                "were measured; is its hold long enough?)"
            )
        if self.unlabelled:
            found.append(f"{self.unlabelled} windows had no label or target")
        return "; ".join(found) or "the readings do not fill enough windows yet"
