"""What a round of secure aggregation costs: this project, Flower's SecAgg+ and the floor, side by side in one run.

    python benchmarks/secagg.py --devices 100 --parameters 100000 --codec full --json secagg.json

Each side runs in a process of its own, one after the other; with several runs the sides take turns, and the median of
each figure counts. Seconds are processor seconds: of one client and of one member (medians), of the coordinator for the
whole round. Transport, disk and training are left out on all sides.

The codec `full` is the rotated one's default profile: a tenth of the coordinates, as many bits as the devices need.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from statistics import median
from typing import Any

import click
from goals import Goal

from hushfleet.codec import PLAIN_BITS
from hushfleet.encoding.profiles import PROFILES
from hushfleet.encoding.steps import bits_for
from hushfleet.encoding.subset import coordinates

HERE = Path(__file__).parent
FLOWER = "flwr==1.42.0"
CODECS = {"plain": "plain", "full": "default"}
"""What the coordinator's settings call them."""
LARGEST_SLICE = 61_440
GOALS_FOR = (100, 100_000)
"""Devices and parameters."""
TWO_CORES = 1.8
"""Two threads that only hash must be so much faster than one, or there are no two free cores to judge threads by."""
COLUMNS = ("hushfleet", "flower", "floor")
ROWS = {
    "client_seconds": ("client, ms CPU", 1e3, 2),
    "member_seconds": ("member, ms CPU", 1e3, 2),
    "coordinator_seconds": ("coordinator, ms CPU a round", 1e3, 1),
    "bytes_up": ("bytes up a client", 1, 0),
    "bytes_down": ("bytes down a client", 1, 0),
    "peak_rss_mb": ("peak memory, MB, all parties in one process", 1, 0),
}

Side = dict[str, dict[str, float]]
"""`figures`, as they are written to the file, and `details`, which are only shown."""


def flower_python() -> Path:
    """The interpreter of Flower's own virtual environment, which need not be there yet."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "hushfleet" / FLOWER.replace("==", "-") / "bin" / "python"


def make_flower() -> None:
    """Make that virtual environment, unless it is there.

    Raises:
        click.ClickException: it cannot be made, with the reason.
    """
    python = flower_python()
    if python.exists():
        return
    folder = python.parent.parent
    click.echo(f"installing {FLOWER} into {folder}")
    try:
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", FLOWER]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        # A half-made environment would be taken for a whole one.
        python.unlink(missing_ok=True)
        raise click.ClickException(f"cannot install {FLOWER}: {error}; --without-flower leaves it out") from None


def run(python: Path | str, script: str, *arguments: int | str) -> Side:
    """One side's measurements.

    Raises:
        click.ClickException: it failed; what it said stands above.
    """
    command = [str(python), str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise click.ClickException(f"{script} failed; its last words stand above")
    side: Side = json.loads(done.stdout.splitlines()[-1])
    return side


def middle(runs: list[Side]) -> Side:
    """The median of each figure."""
    return {
        group: {name: median(side[group][name] for side in runs) for name in figures}
        for group, figures in runs[0].items()
    }


def table(sides: dict[str, Side | None]) -> list[str]:
    """All figures, with Flower's and our distance from the floor as ratios to ours."""
    lines = [f"{'':44}" + "".join(f"{name:>12}" for name in (*COLUMNS, "flower/ours", "ours/floor"))]
    for field, (text, factor, digits) in ROWS.items():
        numbers = {name: side["figures"][field] for name, side in sides.items() if side}
        cells = [f"{numbers[name] * factor:.{digits}f}" if numbers.get(name) else "-" for name in COLUMNS]
        ratios = [_ratio(numbers.get("flower"), numbers["hushfleet"]), _ratio(numbers["hushfleet"], numbers["floor"])]
        lines.append(f"{text:44}" + "".join(f"{cell:>12}" for cell in (*cells, *ratios)))
    return lines


def _ratio(one: float | None, other: float) -> str:
    return f"{one / other:.2f}" if one else "-"


def goals(sides: dict[str, Side | None], codec: str) -> list[Goal]:
    """What the project set itself for `GOALS_FOR`."""
    ours, flower, floor = sides["hushfleet"], sides["flower"], sides["floor"]
    assert ours
    assert floor
    figures, least = ours["figures"], floor["figures"]
    if codec == "full":
        over_floor = ours["details"]["alone_seconds"] / least["client_seconds"]
        found = [Goal("encoding and masking over its floor, both over and over", over_floor, 1.5, False)]
        if flower:
            ratio = flower["figures"]["client_seconds"] / figures["client_seconds"]
            found.append(Goal("Flower's client over ours", ratio, 50, True))
        return found
    found = [
        Goal("client over its floor", figures["client_seconds"] / least["client_seconds"], 2.0, False),
        Goal("member over its floor", figures["member_seconds"] / least["member_seconds"], 1.5, False),
    ]
    if ours["details"]["hashing_speed_up"] >= TWO_CORES:
        found.append(
            Goal("a member's two threads over one, by the clock", ours["details"]["member_speed_up"], 1.7, True)
        )
    if flower:
        peer = flower["figures"]
        found += [
            Goal("Flower's client over ours", peer["client_seconds"] / figures["client_seconds"], 50, True),
            Goal("Flower's server over ours", peer["coordinator_seconds"] / figures["coordinator_seconds"], 100, True),
        ]
    return found


def remarks(sides: dict[str, Any], codec: str) -> list[str]:
    """What the table does not show."""
    ours, floor = sides["hushfleet"]["details"], sides["floor"]["details"]
    result = "of it" if codec == "full" else "besides"
    return [
        f"one device alone, over and over, spends {ours['alone_seconds'] * 1e3:.2f} ms on encoding and masking",
        f"of a client's time {ours['upload_seconds'] * 1e3:.2f} ms make messages of a trained update",
        f"{result}, a device spends {ours['result_seconds'] * 1e3:.2f} ms on the result",
        f"besides, a device spends {ours['model_seconds'] * 1e3:.2f} ms on the new model",
        f"a member sends {ours['member_bytes_up']:,.0f} bytes and gets {ours['member_bytes_down']:,.0f}",
        f"two threads over one, by the clock: a member {ours['member_speed_up']:.2f}, hashing alone"
        f" {ours['hashing_speed_up']:.2f}; a member's are judged from {TWO_CORES} of hashing on",
        "a client's floor, ms: " + ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in floor.items()),
    ]


@click.command()
@click.option("--devices", type=click.IntRange(2, 1000), default=100, show_default=True, help="Participants.")
@click.option("--parameters", type=click.IntRange(2), default=100_000, show_default=True, help="Of the model.")
@click.option("--codec", type=click.Choice(list(CODECS)), default="plain", show_default=True, help="Of the uploads.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the figures here.")
@click.option("--slice", "size", type=click.IntRange(256, LARGEST_SLICE), default=LARGEST_SLICE, show_default=True,
              help="Bytes of a message's slice.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="Of each side, taking turns.")
@click.option("--install-flower", is_flag=True, help=f"Install {FLOWER} into a virtual environment of its own first.")
@click.option("--without-flower", is_flag=True, help="Leave Flower out.")
def main(
    devices: int,
    parameters: int,
    codec: str,
    json_path: Path,
    size: int,
    runs: int,
    install_flower: bool,
    without_flower: bool,
) -> None:
    """Processor time, bytes and memory of a round: this project, Flower's SecAgg+ and the floor, side by side."""
    python = flower_python()
    if install_flower:
        make_flower()
    if not without_flower and not python.exists():
        raise click.ClickException(
            f"{FLOWER} is not in {python.parent.parent}; --install-flower puts it there, --without-flower leaves it out"
        )
    coords = parameters if codec == "plain" else coordinates(parameters, PROFILES[CODECS[codec]].keep)
    bits = PLAIN_BITS if codec == "plain" else bits_for(devices)
    commands: dict[str, tuple[Path | str, str, tuple[int | str, ...]]] = {
        "hushfleet": (sys.executable, "secagg_hushfleet.py", (devices, parameters, size, CODECS[codec])),
        "flower": (python, "secagg_flower.py", (devices, parameters)),
        "floor": (sys.executable, "secagg_floor.py", (devices, parameters, coords, bits)),
    }
    if without_flower:
        del commands["flower"]
    taken: dict[str, list[Side]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, (interpreter, script, arguments) in commands.items():
            taken[name].append(run(interpreter, script, *arguments))
    sides = {name: middle(taken[name]) if name in taken else None for name in COLUMNS}
    click.echo(
        f"{devices} devices, {parameters:,} parameters of which {coords:,} are sent with {bits} bits each, 7 members of"
        f" which 1 may fail, slices of {size:,} bytes"
    )
    click.echo("\n".join(["", *table(sides), "", *remarks(sides, codec), ""]))
    judged = goals(sides, codec) if (devices, parameters) == GOALS_FOR else []
    click.echo("\n".join(goal.line() for goal in judged) or "nothing is judged: the goals are for 100 and 100,000")
    figures = {name: side["figures"] if side else None for name, side in sides.items()}
    try:
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {json_path}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
