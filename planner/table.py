"""A proposal on the terminal."""

from rich.console import Console
from rich.table import Table

from planner.planner import Option, Proposal

WIDE = 165
"""Columns of a terminal that shows the whole comparison."""
COLUMNS = ("choice", "rounds", "bytes", "airtime", "energy", "days", "flash", "privacy fails", "round fails")
COLUMNS_IN_NARROW = ("choice", "bytes", "energy", "days")
_PARTS = {"encoding": "Other encodings", "committee": "Other committees", "window": "Other windows"}


def show(proposal: Proposal, console: Console | None = None) -> None:
    """Print what is recommended, what it costs, and why the others lose."""
    console = console or Console()
    wishes = proposal.wishes
    console.print(
        f"\n[bold]{wishes.parameters:,} parameters, {wishes.devices:,} devices of class {wishes.profile.name}, "
        f"{wishes.survivors:,} uploads in a sum, {wishes.training.rounds:,} rounds of plain averaging[/bold]\n"
    )
    console.print(_recommendation(proposal))
    console.print(_comparison(proposal, console.width))
    for line in notes(proposal):
        console.print(f"· {line}", highlight=False)


def _recommendation(proposal: Proposal) -> Table:
    best = proposal.best
    table = Table(title=f"Recommended for the {_least(proposal)}: {name(best)}", title_justify="left")
    for column in ("what one device spends", "participant", "participant and member"):
        table.add_column(column, justify="left" if column.startswith("what") else "right")
    both = (best.participant, best.member)
    rows = {
        "up a round, on the line": [size(cost.up) for cost in both],
        "down a round, on the line": [size(cost.down) for cost in both],
        "  of it MQTT, as the agent counts": [f"{size(cost.mqtt_up)} + {size(cost.mqtt_down)}" for cost in both],
        "joining; joining late besides": [f"{size(cost.joining)}; {size(cost.catching_up)}" for cost in both],
        "airtime a round": [duration(cost.airtime) for cost in both],
        "one core a round": [duration(cost.compute) for cost in both],
        "from plan to delta": [duration(cost.latency) for cost in both],
        "written to files a round": [size(cost.flash) for cost in both],
        "all rounds: bytes on the line": [size(cost.bytes) for cost in both],
        "all rounds: energy": [f"{cost.energy:.3g} Wh" for cost in both],
        "all rounds: life of the flash": [percent(cost.wear) for cost in both],
        "days": [f"{cost.days:.3g}" for cost in both],
        "the pace is set by": [cost.limit for cost in both],
        "memory": [f"{cost.memory:.0f} MiB" for cost in both],
    }
    if best.participant.battery is not None:
        rows["battery a day"] = [percent(cost.battery or 0.0) for cost in both]
    for what, values in rows.items():
        table.add_row(what, *values)
    return table


def _least(proposal: Proposal) -> str:
    return f"{'fewest' if proposal.target.fewer == 'fewer' else 'least'} {proposal.target.name}"


def _comparison(proposal: Proposal, width: int) -> Table:
    columns = COLUMNS if width >= WIDE else COLUMNS_IN_NARROW
    table = Table(title="Why the others lose, each with all else equal", title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "choice" else "right", no_wrap=column != "choice")
    table.add_column("why not", min_width=20)

    def add(option: Option, label: str, why: str, style: str = "") -> None:
        cells = _cells(option, label)
        table.add_row(*(cells[column] for column in columns), why, style=style)

    add(proposal.best, name(proposal.best), "recommended", "bold green")
    for part, verdicts in proposal.others.items():
        table.add_section()
        table.add_row(f"[italic]{_PARTS[part]}")
        for verdict in verdicts:
            add(verdict.option, part_name(verdict.option, part), verdict.why)
    return table


def _cells(option: Option, label: str) -> dict[str, str]:
    cost = option.participant
    # What was not seen to get there has no costs to compare.
    in_all = (f"{option.rounds:.0f}", size(cost.bytes), f"{cost.energy:.3g} Wh", f"{cost.days:.3g}", percent(cost.wear))
    rounds, count, energy, days, wear = in_all if option.rounds < float("inf") else ("-",) * len(in_all)
    return {
        "choice": label,
        "rounds": rounds,
        "bytes": count,
        "airtime": duration(cost.airtime),
        "energy": energy,
        "days": days,
        "flash": wear,
        "privacy fails": f"{option.privacy_failure:.1g}",
        "round fails": percent(option.round_failure),
    }


def notes(proposal: Proposal) -> list[str]:
    """What the figures rest on."""
    profile = proposal.wishes.profile
    figures = profile.figures()
    guessed = [place for place, figure in figures.items() if not figure.source]
    lines = [
        "bytes, energy, days and flash are a participant's, over all rounds; airtime is a round's",
        f"of {profile.name}'s {len(figures)} figures {len(guessed)} are guesses: {', '.join(guessed)}"
        if guessed
        else f"all figures of {profile.name} have a source",
        "rounds of the rotated encodings follow one measurement on handwritten digits; yours will differ",
        f"privacy fails: more than c - 2f - 1 corrupt candidates are drawn from a fleet of which "
        f"{percent(proposal.wishes.corrupt)} is corrupt",
        "cut connections, members that fail and TLS sessions that resume are not in the bytes",
    ]
    if any(not figure.source and not figure.guess for figure in figures.values()):
        lines.insert(2, "figures without a source count as guesses")
    return lines


def name(option: Option) -> str:
    """A choice in words."""
    return ", ".join(part_name(option, part) for part in _PARTS)


def part_name(option: Option, part: str) -> str:
    """One part of a choice in words."""
    choice = option.choice
    match part:
        case "encoding":
            return choice.encoding.name
        case "committee":
            return f"committee ({choice.committee.members}, {choice.committee.recoveries})"
        case _:
            return f"window {choice.window}"


def size(count: float) -> str:
    """Bytes with a unit of powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits."""
    if seconds >= 7_200:
        return f"{seconds / 3_600:.3g} h"
    if seconds >= 120:
        return f"{seconds / 60:.3g} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def percent(share: float) -> str:
    """A share in per cent, with two digits."""
    return f"{100 * share:.2g} %"
