"""The byte ledger as lines of a terminal: today and the last round, sent and received, by purpose and item."""

from collections.abc import Iterator
from typing import Any

_WIDTH = 22


def byte_table(view: dict[str, Any]) -> Iterator[str]:
    """The lines of `ByteLedger.view`; an item of which nothing was carried is left out."""
    tables = [view["today"], *([view["last_round"]] if view["last_round"] else [])]
    titles = [view["day"], *([f"round {view['round']}"] if view["last_round"] else [])]
    yield ""
    yield "bytes".ljust(_WIDTH) + "".join(f"{title:^24}" for title in titles).rstrip()
    yield " " * _WIDTH + f"{'sent':>12}{'received':>12}" * len(titles)
    for purpose in dict.fromkeys(purpose for table in tables for purpose in table):
        groups = [table.get(purpose, {}) for table in tables]
        yield _line(purpose, [_sum(group) for group in groups])
        for item in groups[0] if len(groups[0]) > 1 else ():
            figures = [group[item] for group in groups]
            if any(map(any, figures)):
                yield _line(f"  {item}", figures)
    totals = [_sum({purpose: _sum(group) for purpose, group in table.items()}) for table in tables]
    yield _line("total", totals)
    if view["cap"]:
        yield _line("cap, both ways", [[view["cap"]]]) + f"   {100 * sum(totals[0]) / view['cap']:.0f} % spent"


def _sum(group: dict[str, list[int]]) -> list[int]:
    return [sum(figures[way] for figures in group.values()) for way in (0, 1)]


def _line(name: str, figures: list[list[int]]) -> str:
    return name.ljust(_WIDTH) + "".join(f"{number:>12,}" for pair in figures for number in pair)
