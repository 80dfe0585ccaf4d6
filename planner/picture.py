"""A proposal as a picture: what each choice costs, the recommended one marked."""

import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from rich.console import Console

from planner.planner import Option, Proposal
from planner.table import name, part_name, show

_CHOSEN, _ALLOWED, _REFUSED = "#2a7f4f", "#8fb8a2", "#d9d9d9"


def draw(proposal: Proposal, path: Path) -> None:
    """Write the picture as PNG or SVG, or an HTML page with it and the table, by the ending of `path`."""
    mpl.use("Agg")
    figure = _figure(proposal)
    if path.suffix == ".html":
        page = io.StringIO()
        figure.savefig(page, format="svg")
        path.write_text(_page(proposal, page.getvalue()), "utf-8")
    else:
        figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _figure(proposal: Proposal) -> Any:
    figure, axes = pyplot.subplots(2, 4, figsize=(16, 7.4), layout="constrained")
    wishes = proposal.wishes
    figure.suptitle(
        f"{wishes.devices:,} devices of class {wishes.profile.name}, {wishes.training.rounds:,} rounds of plain "
        f"averaging: {name(proposal.best)} recommended\n"
        "dark: recommended, light: possible, grey: refused"
    )
    panels: tuple[tuple[str, str, Callable[[Option], float]], ...] = (
        ("encoding", "MB a participant, all rounds", lambda one: one.participant.bytes / 1e6),
        ("encoding", "s of airtime a round", lambda one: one.participant.airtime),
        ("encoding", "Wh a participant, all rounds", lambda one: one.participant.energy),
        ("encoding", "days until done", lambda one: one.participant.days),
        ("encoding", "MB written to files, all rounds", lambda one: one.rounds * one.participant.flash / 1e6),
        ("committee", "MB a member, all rounds", lambda one: one.member.bytes / 1e6),
        ("window", "s from plan to delta", lambda one: one.participant.latency),
    )
    for place, (part, title, measure) in zip(axes.flat, panels, strict=False):
        _bars(place, proposal, part, title, measure)
    _risks(axes[1][3], proposal)
    return figure


def _alternatives(proposal: Proposal, part: str) -> list[Option]:
    """The best and those that differ from it in this part, in the order of the grid."""
    beside = {id(verdict.option) for verdict in proposal.others[part]}
    return [option for option in proposal.options if option is proposal.best or id(option) in beside]


def _bars(axes: Any, proposal: Proposal, part: str, title: str, measure: Callable[[Option], float]) -> None:
    options = _alternatives(proposal, part)
    names = [part_name(option, part) for option in options]
    # What was not seen to get there has no costs to compare.
    values = [measure(option) if option.rounds < float("inf") else 0.0 for option in options]
    bars = axes.barh(names, values, color=[_color(proposal, option) for option in options])
    labels = [f"{value:.3g}" if value else "did not get there" for value in values]
    axes.bar_label(bars, labels=labels, padding=3, fontsize=8)
    axes.margins(x=0.18)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _color(proposal: Proposal, option: Option) -> str:
    if option is proposal.best:
        return _CHOSEN
    return _REFUSED if option.against else _ALLOWED


def _risks(axes: Any, proposal: Proposal) -> None:
    """Both ways in which a committee can fail, by committee."""
    options = _alternatives(proposal, "committee")
    names = [part_name(option, "committee").removeprefix("committee ") for option in options]
    smallest = 1e-9
    privacy = [max(smallest, option.privacy_failure) for option in options]
    rounds = [max(smallest, option.round_failure) for option in options]
    axes.plot(names, privacy, "o", color=_CHOSEN, label="too many corrupt members drawn")
    axes.plot(names, rounds, "s", color="#b5651d", label="a round fails: too many members away")
    axes.axhline(proposal.wishes.risk, color="#999999", linewidth=0.8, label=f"accepted risk {proposal.wishes.risk:g}")
    axes.axvline(options.index(proposal.best), color=_ALLOWED, linewidth=6, alpha=0.35, zorder=0)
    axes.set_yscale("log")
    axes.set_ylim(smallest / 1e5, 1)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title("probability by (c, f), 0 at the bottom", fontsize=10)
    axes.legend(fontsize=8, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)


def _page(proposal: Proposal, svg: str) -> str:
    text = io.StringIO()
    show(proposal, Console(file=text, width=180))
    drawing = svg[svg.index("<svg") :]
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>hushfleet plan</title>\n'
        "<style>body{font-family:sans-serif;margin:2em}svg{max-width:100%;height:auto}"
        "pre{overflow-x:auto;font-size:12px}</style>\n"
        f"<h1>hushfleet plan</h1>\n{drawing}\n<pre>{html.escape(text.getvalue())}</pre>\n</html>\n"
    )
