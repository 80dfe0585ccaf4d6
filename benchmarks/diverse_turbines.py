"""Unlike turbines: what `diverse_fleets.py` asks where a number is learned, the power of a wind turbine.

Four turbines, judged on a half-year in which none trains (hushfleet_demo/turbines.py): mean absolute errors in parts of
the rated power. Every turbine has all rows of the time before, or those of one season alone, or of one range of wind
alone; or one of the four is new, has 17 days, and joins at half of the rounds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from bytes_federation import HushfleetSums
from bytes_sizes import messages
from bytes_tasks import Rows as TaskRows
from bytes_tasks import Task
from diverse_ways import Way

from hushfleet.learning.local import train
from hushfleet_demo.newcomer import Newcomers
from hushfleet_demo.task import Flat, Rows, together
from hushfleet_demo.turbines import JUDGED, OWN, TASK
from hushfleet_demo.turbines_data import load_turbines

QUARTER = 365.25 / 4 * 86_400
"""Seconds of a season, and of the first row's year on."""
WIND = 0
"""The column of the wind's speed."""


def turbines() -> Newcomers:
    """The recordings; ConfigurationError if they cannot be found or fetched."""
    return Newcomers(TASK, load_turbines(), OWN, JUDGED)


def fleets(here: Newcomers) -> dict[str, list[Rows]]:
    """What each turbine trains on, by kind of fleet."""
    whole, seasons = [], []
    for place, one in enumerate(here.recordings):
        rows = one.between(one.times[0], JUDGED[0])
        times = one.times[: len(rows)]
        mine = ((times - one.times[0]) // QUARTER).astype(int) % len(here.recordings) == place
        whole.append(rows)
        seasons.append(Rows(rows.x[mine], rows.y[mine]))
    edges = np.quantile(np.concatenate([rows.x[:, WIND] for rows in whole]), np.linspace(0, 1, len(whole) + 1))
    winds = []
    for rows, low, high in zip(whole, edges, edges[1:], strict=False):
        mine = (low <= rows.x[:, WIND]) & (rows.x[:, WIND] <= high)
        winds.append(Rows(rows.x[mine], rows.y[mine]))
    return {"all rows each": whole, "one season each": seasons, "one range of wind each": winds}


def judged(here: Newcomers) -> Rows:
    """All turbines' rows of the half-year in which none trains."""
    return together([one.between(*JUDGED) for one in here.recordings])


def newcomers(here: Newcomers) -> Iterator[tuple[list[Rows], Rows]]:
    """Each turbine in turn as the new one: what all train on, it last, and what it is judged on."""
    for one in here.recordings:
        rows = here.training(one.name)
        others = [mine for name, mine in rows.items() if name != one.name]
        yield [*others, rows[one.name]], one.between(*JUDGED)


def learn(
    devices: Sequence[Rows], way: Way, rounds: int, present: Callable[[int], Sequence[int]]
) -> Iterator[tuple[Flat, int]]:
    """The model after each round, and how many were void so far; `present` gives a round's devices, ascending."""
    numbers: Mapping[str, float] = {"steps": TASK.steps, "proximal": 0.0} | way.changes
    shapes = [TaskRows(one.x[:0], np.zeros(0, np.int64)) for one in devices]
    task = Task("turbines", TASK.layers, shapes, shapes[0], TASK.steps, TASK.batch, TASK.rate, TASK.momentum, TASK.clip)
    sums = HushfleetSums(task, way.codec, messages(way.codec, TASK.layers, len(devices)), way.server)
    flat = TASK.start()
    for number in range(1, rounds + 1):
        places = present(number)
        trained = [
            train(
                flat,
                TASK.layers,
                devices[place].x,
                devices[place].y,
                head=TASK.head,
                steps=int(numbers["steps"]),
                batch=TASK.batch,
                rate=TASK.rate,
                momentum=TASK.momentum,
                proximal=numbers["proximal"],
                order_seed=f"{number}, {place}".encode(),
            )
            for place in places
        ]
        flat = sums.apply(flat, trained, number, places)
        yield flat, sums.void
