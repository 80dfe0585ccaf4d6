"""The watch federation over every choice of two unseen people: 45 splits, through the real codec, sums in memory.

    python benchmarks/watch_splits.py --json splits.json

For each split, accuracy on the two unseen people of
* federated: the other eight train together; only the opened sum of their encoded updates changes the model;
* alone: a model trained on one person's rows with as many steps, averaged over the eight;
* pooled: a model trained on the rows of all eight in one place with as many steps.
Masks are left out, since they cancel exactly: what is added here is what remains of the uploads after the masks.
"""

# ruff: noqa: E402  (numpy reads the number of threads when it is first imported)
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from hushfleet.errors import HushfleetError
from hushfleet_demo.comparison import Split, summary
from hushfleet_demo.watch_data import load_people
from hushfleet_demo.watch_splits import run_splits


@contextmanager
def progress(total: int) -> Iterator[Callable[[Split], None]]:
    """Show the splits as they come: a bar where rich is installed, plain lines elsewhere."""
    try:
        from rich.progress import Progress
    except ImportError:
        yield lambda split: click.echo(_line(split))
        return
    with Progress() as bar:
        shown = bar.add_task("splits", total=total)

        def show(split: Split) -> None:
            bar.console.print(_line(split), highlight=False)
            bar.advance(shown)

        yield show


def _line(split: Split) -> str:
    one, other = split.new
    return (
        f"{one:>2} and {other:>2} unseen: federated {split.federated:.3f}  "
        f"alone {split.alone:.3f}  pooled {split.pooled:.3f}"
    )


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Write the means here.")
@click.option("--splits", type=click.IntRange(1, 45), default=45, show_default=True, help="Only the first so many.")
def main(json_path: Path, splits: int) -> None:
    """Accuracy on two unseen people, federated, alone and pooled, over all 45 choices of the two."""
    began = time.monotonic()
    try:
        people = load_people()
    except HushfleetError as error:
        raise click.ClickException(str(error)) from None
    with progress(splits) as show:
        results = run_splits(people, splits, show)
    means = summary(results)
    over_alone = min(split.federated - split.alone for split in results)
    to_pooled = min(split.federated - split.pooled for split in results)
    click.echo(
        f"mean of {splits}: federated {means['federated']:.3f}, alone {means['alone']:.3f}, "
        f"pooled {means['pooled']:.3f}; worst split {over_alone:+.3f} over alone, {to_pooled:+.3f} to pooled; "
        f"{time.monotonic() - began:.0f} s"
    )
    try:
        json_path.write_text(json.dumps(means, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {json_path}: {error.strerror}; name another file") from None


if __name__ == "__main__":
    main()
