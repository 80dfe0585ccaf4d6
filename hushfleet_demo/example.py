"""The examples that `hushfleet demo` knows, and what each of them is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hushfleet_demo.comparison import Split
from hushfleet_demo.federation import Course, Federation
from hushfleet_demo.outcome import Finding, Words
from hushfleet_demo.task import Flat, Task


class Example(Protocol):
    """One demo. Made from nothing; raises `ConfigurationError` if the recordings that it is about cannot be had."""

    words: Words
    task: Task
    fewest_rounds: int
    choices: int
    """How many choices there are of who is new."""

    def federation(self, directory: Path, rounds: int, changed: Callable[[Course], None]) -> Federation:
        """The fleet, and what befalls it."""

    def without_federation(self) -> tuple[float, float]:
        """The scores, on the rows of who is new in the federation, of a model alone and of one of all rows pooled."""

    def finding(self, model: Flat, course: Course) -> Finding | None:
        """What the federation's last model shows beside its score; None if nothing."""

    def splits(self, count: int, each: Callable[[Split], None]) -> list[Split]:
        """The first `count` choices of who is new, sums in memory; `each` is called after every one."""


def examples() -> dict[str, Callable[[], Example]]:
    """The examples by name, the first one first."""
    from hushfleet_demo.home import SimulatedHomes
    from hushfleet_demo.turbines import Turbines
    from hushfleet_demo.watch import Watch
    from hushfleet_demo.wind import Wind

    return {"watch": Watch, "turbines": Turbines, "wind": Wind, "home": SimulatedHomes}
