"""`hushfleet plan`: what a fleet will cost, before anything is deployed."""

import json
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from firmware_profiles import catalog
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.wire.documents import LARGEST_SURVIVOR_SET, ModelSpec
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.layers import Dense, Layer, parameter_count
from planner.costs import Training
from planner.planner import TARGETS, Option, Proposal, Wishes, propose

_LARGEST_MODEL = 2_000_000
_share = click.FloatRange(0, 1, max_open=True)


@click.command()
@click.option(
    "--model",
    required=True,
    help="Layer widths (64-512-8), a number of parameters, or a signed model document (FLEET/documents/model).",
)
@click.option("--profile", required=True, help=f"Firmware profile: {', '.join(catalog.names())}, or a file's path.")
@click.option("--devices", type=click.IntRange(3, 100_000), required=True, help="Participants in the fleet.")
@click.option("--rounds", type=click.IntRange(1, 1_000_000), required=True, help="Rounds that plain averaging takes.")
@click.option(
    "--target",
    type=click.Choice(tuple(TARGETS)),
    default="bytes",
    show_default=True,
    help="What a recommendation makes small.",
)
@click.option("--survivors", type=click.IntRange(1, LARGEST_SURVIVOR_SET), help="Uploads in a sum; else all devices.")
@click.option("--steps", type=click.IntRange(1, 65_535), default=20, show_default=True, help="Local training steps.")
@click.option("--batch", type=click.IntRange(1, 65_535), default=32, show_default=True, help="Rows a step.")
@click.option(
    "--pause", type=click.FloatRange(0), default=3600.0, show_default=True, help="Seconds between two rounds."
)
@click.option("--corrupt", type=_share, default=0.05, show_default=True, help="Share of the fleet that is corrupt.")
@click.option(
    "--downtime", type=_share, default=0.05, show_default=True, help="Share of time for which a member is away."
)
@click.option(
    "--risk", type=_share, default=0.01, show_default=True, help="Largest probability of a corrupt committee."
)
@click.option(
    "--epoch-rounds",
    type=click.IntRange(1, 1024),
    default=32,
    show_default=True,
    help="Rounds of one committee's keys, as in the policy.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it into this file: .png, .svg or .html."
)
@click.option("--json", "as_json", is_flag=True, help="Every choice with every figure, as JSON.")
def plan(
    model: str,
    profile: str,
    devices: int,
    rounds: int,
    target: str,
    survivors: int | None,
    steps: int,
    batch: int,
    pause: float,
    corrupt: float,
    downtime: float,
    risk: float,
    epoch_rounds: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Reckon bytes, airtime, energy, time, flash wear and privacy risk of a fleet, and recommend how to run it."""
    layers, personal = model_of(model)
    wishes = Wishes(
        layers=layers,
        profile=catalog.load(profile),
        devices=devices,
        survivors=min(survivors or devices, devices, LARGEST_SURVIVOR_SET),
        training=Training(rounds, steps, batch, pause),
        corrupt=corrupt,
        downtime=downtime,
        risk=risk,
        epoch_rounds=epoch_rounds,
        personal=personal,
    )
    proposal = propose(wishes, TARGETS[target])
    if plot is not None:
        _draw(proposal, plot)
    if as_json:
        click.echo(json.dumps(as_table(proposal), indent=1))
    else:
        _show(proposal)
        if plot is not None:
            click.echo(f"picture: {plot}")


def model_of(model: str) -> tuple[tuple[Layer, ...], int]:
    """The layer list, from widths, a number of parameters, or a signed model document's path; how many are personal.

    Raises:
        ConfigurationError: it is none of these, or too large to plan for.
    """
    layers: tuple[Layer, ...]
    personal = 0
    if re.fullmatch(r"[1-9][0-9]{0,9}(-[1-9][0-9]{0,9})+", model):
        layers = tuple(Dense(inputs, outputs, "relu") for inputs, outputs in pairwise(map(int, model.split("-"))))
    elif re.fullmatch(r"[1-9][0-9]{0,9}", model):
        # Any layer with so many parameters: only their number counts.
        layers = (Dense(int(model) - 1, 1, "relu"),)
    else:
        layers, personal = _model_of_document(Path(model))
    parameters = parameter_count(layers)
    if parameters > _LARGEST_MODEL:
        raise ConfigurationError(f"the model has {parameters:,} parameters; at most {_LARGEST_MODEL:,} can be planned")
    return layers, personal


def _model_of_document(path: Path) -> tuple[tuple[Layer, ...], int]:
    try:
        spec = read(Frame.from_bytes(path.read_bytes()), ModelSpec)
    except OSError as error:
        raise ConfigurationError(
            f"--model {path}: {error.strerror}; give layer widths like 64-512-8, a number of parameters, or the path "
            "of a signed model document"
        ) from None
    except MalformedError as error:
        raise ConfigurationError(f"{path} is no model document: {error}") from None
    return spec.layers, spec.personal


def _show(proposal: Proposal) -> None:
    try:
        from planner.table import show
    except ModuleNotFoundError as error:
        raise _needs_report(error, "the table") from None
    show(proposal)


def _draw(proposal: Proposal, path: Path) -> None:
    if path.suffix not in (".png", ".svg", ".html"):
        raise ConfigurationError(f"--plot {path}: name a file that ends in .png, .svg or .html")
    try:
        from planner.picture import draw
    except ModuleNotFoundError as error:
        raise _needs_report(error, "the picture") from None
    draw(proposal, path)


def _needs_report(error: ModuleNotFoundError, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} needs {error.name}, of the extra [report]: pip install 'hushfleet[report]'; --json does without"
    )


def as_table(proposal: Proposal) -> dict[str, Any]:
    """Everything about a proposal, for programs."""
    wishes = proposal.wishes
    guessed = [place for place, figure in wishes.profile.figures().items() if not figure.source]
    return {
        "profile": wishes.profile.name,
        "guessed": guessed,
        "parameters": wishes.parameters,
        "devices": wishes.devices,
        "survivors": wishes.survivors,
        "training": asdict(wishes.training),
        "corrupt": wishes.corrupt,
        "downtime": wishes.downtime,
        "risk": wishes.risk,
        "target": proposal.target.name,
        "recommended": _row(proposal.best),
        "others": {
            part: [{**_row(verdict.option), "why_not": verdict.why} for verdict in verdicts]
            for part, verdicts in proposal.others.items()
        },
        "options": [_row(option) for option in proposal.options],
    }


def _row(option: Option) -> dict[str, Any]:
    choice = option.choice
    return {
        "encoding": asdict(choice.encoding),
        "committee": asdict(choice.committee),
        "window": choice.window,
        "rounds": option.rounds if option.rounds < float("inf") else None,
        "privacy_failure": option.privacy_failure,
        "round_failure": option.round_failure,
        "against": list(option.against),
        "participant": asdict(option.participant),
        "member": asdict(option.member),
    }
