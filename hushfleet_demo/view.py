"""The demo on the terminal: a live table while it runs, plain lines where there is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hushfleet_demo.federation import Course

ROWS = 12
"""Rounds that the live table shows."""


class View:
    """Shows a course as it goes on; `score` heads the column of what the judges say."""

    def __init__(self, console: Console, rounds: int, score: str) -> None:
        self._console, self._rounds, self._score = console, rounds, score
        self._live = Live(console=console, refresh_per_second=8, transient=True, vertical_overflow="crop")
        self._started = time.monotonic()
        self._told = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, course: Course) -> None:
        """The course as it is now."""
        if self._console.is_terminal:
            self._live.update(self._picture(course))
            return
        while self._told < len(course.rounds):
            self._console.print(self._line(course, self._told), highlight=False, soft_wrap=True)
            self._told += 1

    def _picture(self, course: Course) -> Group:
        table = Table(title=f"rounds, {time.monotonic() - self._started:.0f} s", title_justify="left")
        for column in (
            "round",
            "outcome",
            "uploads",
            "recovered",
            "model",
            self._score,
            "bytes up",
            "bytes down",
        ):
            table.add_column(column, justify="right")
        for event in course.rounds[-ROWS:]:
            table.add_row(*cells(course, event))
        done, width = len(course.rounds), 40
        bar = "━" * (width * done // self._rounds)
        progress = Text(f"{bar:<{width}} {done}/{self._rounds} rounds, {course.epochs} committees", style="cyan")
        return Group(table, progress, *(Text(remark, style="yellow") for remark in course.remarks))

    def _line(self, course: Course, number: int) -> str:
        event = course.rounds[number]
        round_number, outcome, uploads, recovered, model, *_ = cells(course, event)
        helped = f", member {recovered} recovered" if recovered else ""
        return f"round {round_number}: {outcome}, {uploads} uploads{helped}, model version {model}"


def cells(course: Course, event: dict[str, object]) -> tuple[str, ...]:
    """One round as a row; bytes are the mean of the measured devices, at their sockets."""
    version = event["version"]
    assert isinstance(version, int)
    score = course.score(version)
    number, recovered = event["round"], event["recovered"]
    assert isinstance(number, int)
    assert isinstance(recovered, list)
    traffic = course.traffic.get(number, [])
    up, down = (sum(column) // len(traffic) for column in zip(*traffic, strict=True)) if traffic else (None, None)
    return (
        str(event["round"]),
        str(event["outcome"]),
        str(event["uploads"]),
        ", ".join(map(str, recovered)),
        str(version),
        "" if score is None else f"{score:.3f}",
        "" if up is None else f"{up:,}",
        "" if down is None else f"{down:,}",
    )


@contextmanager
def progress(console: Console, what: str, total: int) -> Iterator[Progress]:
    """A bar for work with a known number of steps; advance its task 0."""
    bar = Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=True
    )
    with bar:
        bar.add_task(what, total=total)
        yield bar
