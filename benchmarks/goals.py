"""A goal, and whether a run met it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A ratio to reach, or to stay within."""

    text: str
    value: float
    goal: float
    at_least: bool

    def line(self) -> str:
        """The goal, what was measured, and whether that is enough."""
        met = self.value >= self.goal if self.at_least else self.value <= self.goal
        bound = "at least" if self.at_least else "at most"
        return f"{'met   ' if met else 'MISSED'}  {self.text}: {self.value:.2f}, {bound} {self.goal:g}"
