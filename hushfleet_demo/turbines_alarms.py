"""Alarms at one turbine: hours in which it gives much less power than the fleet's model expects.

How much is too much follows from the errors over all turbines, which only the masked sums tell: nobody's own rows, and
no hours that somebody knows to be good.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hushfleet.learning.layers import forward
from hushfleet_demo.newcomer import Recording
from hushfleet_demo.outcome import Finding, masked_row
from hushfleet_demo.task import Flat, Rows, Task

LEVEL = 0.01
"""An hour is an alarm if it lacks more than all but this part of the fleet's hours, each turbine counting as much."""


def alarms(
    task: Task, model: Flat, alone: Flat, turbine: Recording, judged: tuple[float, float], told: dict[str, Any]
) -> Finding:
    """The alarms at a turbine.

    Args:
        task: what the models learned.
        model, alone: the fleet's, and the turbine's own.
        turbine: the turbine.
        judged: from when until when, in seconds since 1970.
        told: how the fleet's model does over all turbines, as the coordinator opened it in a statistics round.
    """
    rows, threshold = turbine.between(*judged), told["quantiles"][str(LEVEL)]
    gaps = _gaps(task, model, rows)
    first = np.searchsorted(turbine.times, judged[0])
    hours = turbine.times[first : first + len(gaps)].astype("datetime64[s]")
    alarm = gaps < threshold
    by_alone = np.count_nonzero(_gaps(task, alone, rows) < threshold)

    def draw(axes: Any) -> None:
        axes.scatter(hours, gaps, s=2, color="#999999", linewidths=0)
        axes.scatter(hours[alarm], gaps[alarm], s=14, color="#b3541e", linewidths=0)
        axes.axhline(
            threshold, color="#b3541e", linewidth=0.8, label=f"alarm: {LEVEL:.0%} of the fleet's hours lack more"
        )
        axes.set(title=f"{turbine.name}: power less what is expected", ylabel="in parts of the rated power")
        axes.tick_params(axis="x", rotation=30)
        axes.legend(loc="upper right")

    return Finding(
        [
            masked_row("over all four turbines", told["mae"]),
            (
                f"alarms at {turbine.name}",
                f"{np.count_nonzero(alarm)} of {len(gaps)} hours lack more than {-threshold:.3f}, as {LEVEL:.0%} of "
                f"the fleet's hours do by the same sum, {_busiest(hours[alarm])}; "
                f"with its own 17 days alone {by_alone}",
            ),
        ],
        draw,
    )


def _gaps(task: Task, model: Flat, rows: Rows) -> Flat:
    """float32[n], what was measured less what the model expects."""
    return np.asarray(rows.y - forward(model, task.layers, rows.x))[:, 0]


def _busiest(hours: NDArray[np.datetime64]) -> str:
    """How many of these are in the month with the most of them."""
    months, counts = np.unique(hours.astype("datetime64[M]"), return_counts=True)
    return f"{counts.max()} of them in {months[counts.argmax()]}" if len(hours) else "none"
