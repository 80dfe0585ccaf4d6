"""What the demo measured: the JSON report and the picture."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hushfleet.codec import lanes, unpack_opened
from hushfleet.errors import ConfigurationError
from hushfleet.secagg.residues import Vector, padded, signed
from hushfleet_demo.comparison import Split


@dataclass(frozen=True, slots=True)
class Words:
    """What an example calls things.

    Attributes:
        name: of the example, and of its picture.
        agents: how many agents start, in words.
        choices: what is gone through one after the other, beside a bar.
        score: heads the scores' column while it runs.
        title: of the picture's curve.
        measure: what a score is.
        new: what the scores at the end are.
        alone: the model that a device has without a fleet.
        mean: what the choices are, in the row of their mean.
        epilogue: what is to be said under the figures.
        more_is_better: whether a higher score is a better one.
    """

    name: str
    agents: str
    choices: str
    score: str
    title: str
    measure: str
    new: str
    alone: str
    mean: str
    epilogue: str
    more_is_better: bool


@dataclass(frozen=True, slots=True)
class Accuracy:
    """On the rows of who is new: the federation, a model without a fleet, all rows pooled.

    Accuracies, 0 to 1; of an example that predicts a number the mean absolute errors, in units of its rated value.
    """

    federated_unseen: float
    local_unseen: float
    central_unseen: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """MQTT bytes at the participants' sockets, TLS excluded, by device and round."""

    up_per_device_round: float
    down_per_device_round: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything measured in one run, as the JSON report holds it.

    Attributes:
        broker: name and version of the real broker.
        dropouts: participants killed while their upload was incomplete.
        recoveries: committee members whose masks the others recovered.
        bits_per_parameter: of one upload, tail included.
        all_splits: the means over all choices of who is new, or the first ones, sums in memory.
        seconds: from the first process to the last, set-up of the fleet included.
    """

    devices: int
    rounds: int
    broker: str
    dropouts: int
    recoveries: int
    parameters: int
    bits_per_parameter: float
    accuracy: Accuracy
    bytes: Traffic
    all_splits: dict[str, float]
    seconds: float

    def write(self, path: Path) -> None:
        """Write the report; ConfigurationError if that cannot be done."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}; name another file") from None


@dataclass(frozen=True, slots=True)
class Finding:
    """What the federated model is good for, beside its score.

    Attributes:
        rows: of the table.
        draw: draws it onto matplotlib's axes.
    """

    rows: list[tuple[str, str]]
    draw: Callable[[Any], None]


def masked_row(name: str, error: float) -> tuple[str, str]:
    """The row of the mean absolute error over everybody's rows kept aside, which no device tells by itself."""
    return name, f"{error:.3f}, as the coordinator opened it from the last masked sum"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the coordinator saw of the last round.

    Attributes:
        bits: B of the upload.
        upload, opened: one upload and the opened sum, signed integers, shape (m,).
        model: what they led to, float32, shape (d,).
    """

    bits: int
    upload: NDArray[np.int64] = field(repr=False)
    opened: NDArray[np.int64] = field(repr=False)
    model: NDArray[np.float32] = field(repr=False)


def read_evidence(directory: Path, coords: int, bits: int) -> Seen:
    """What `hushfleet coordinator evidence` wrote of a round with m = `coords` and `bits` each.

    The sum has a bit more where coordinates had wrapped and were put right.
    """
    upload, opened, model = ((directory / f"{name}.bin").read_bytes() for name in ("upload", "sum", "model"))
    vector = Vector.from_bytes(upload, bits, coords, lanes(0))
    return Seen(
        bits,
        signed(vector.body, bits)[:coords],
        unpack_opened(opened, 8 * len(opened) // padded(coords), coords),
        np.frombuffer(model, "<f4"),
    )


def draw(
    path: Path,
    words: Words,
    curve: list[tuple[int, float]],
    outcome: Outcome,
    seen: Seen,
    marks: dict[int, str],
    finding: Finding | None,
) -> None:
    """The picture: the scores by round with their baselines, and what the coordinator saw.

    Args:
        path: of the PNG.
        words: of the example.
        curve: (model version, score).
        outcome: the figures of the run.
        seen: what the coordinator saw of the last round.
        marks: what happened in which round.
        finding: gets a panel of its own.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    widths = [1.7, 1, 1] + ([1.7] if finding else [])
    figure, (left, middle, right, *more) = pyplot.subplots(
        1, len(widths), figsize=(4.05 * sum(widths), 4.6), width_ratios=widths, layout="constrained"
    )
    for axes in more:
        assert finding is not None
        finding.draw(axes)
    accuracy = outcome.accuracy
    left.plot(*zip(*curve, strict=True), color="#0b6e4f", label=f"federation ({accuracy.federated_unseen:.3f})")
    left.axhline(
        accuracy.central_unseen,
        color="#555555",
        linestyle="--",
        label=f"all rows pooled ({accuracy.central_unseen:.3f})",
    )
    left.axhline(
        accuracy.local_unseen,
        color="#b3541e",
        linestyle=":",
        label=f"{words.alone} ({accuracy.local_unseen:.3f})",
    )
    for number, text in marks.items():
        left.axvline(number, color="#999999", linewidth=0.8)
        left.annotate(text, (number, 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=8, ha="right")
    # Anew, with both baselines: one near the edge would lie on the frame.
    left.margins(y=0.08)
    left.set(xlabel="round", ylabel=words.measure, title=words.title)
    left.legend(loc="lower right" if words.more_is_better else "upper right")
    for axes, values, title in (
        (middle, seen.upload, "One upload, as the coordinator got it: noise"),
        (right, seen.opened, "The sum of all, opened: signal"),
    ):
        # Under a mask every residue is as likely as any other.
        half = 1 << (seen.bits - 1)
        bins = np.linspace(-half, half, min(16, 2 * half) + 1) - 0.5
        axes.hist(values, bins=bins, color="#5b7c99", edgecolor="white")
        axes.set(title=title, xlabel=f"residues, from {np.min(values)} to {np.max(values)}")
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(
    words: Words, outcome: Outcome, splits: list[Split], choices: int, finding: Finding | None
) -> list[tuple[str, str]]:
    """The figures as rows for a person; `choices` is how many there are, of which `splits` may be the first ones."""
    accuracy, traffic, means = outcome.accuracy, outcome.bytes, outcome.all_splits
    over = [split.federated - split.alone for split in splits]
    worst = min(over) if words.more_is_better else max(over)
    fewer = 4 * outcome.parameters / traffic.up_per_device_round
    return [
        ("broker", outcome.broker),
        ("devices, rounds", f"{outcome.devices}, {outcome.rounds} in {outcome.seconds:.0f} s"),
        ("accidents", f"uploads cut off: {outcome.dropouts}, recoveries of a member: {outcome.recoveries}"),
        (
            words.new,
            f"federated {accuracy.federated_unseen:.3f}, {words.alone} {accuracy.local_unseen:.3f}, "
            f"all rows pooled {accuracy.central_unseen:.3f}",
        ),
        (
            f"mean over {'all' if len(splits) == choices else f'{len(splits)} of'} {choices} {words.mean}",
            f"federated {means['federated']:.3f}, own model {means['alone']:.3f}, pooled {means['pooled']:.3f} "
            f"(sums in memory; the worst choice {worst:+.3f} over own)",
        ),
        *(finding.rows if finding else []),
        (
            "bytes a participant and round",
            f"{traffic.up_per_device_round:,.0f} up, {traffic.down_per_device_round:,.0f} down "
            "(MQTT at the agents' sockets, TLS not counted)",
        ),
        (
            "upload",
            f"{outcome.parameters} parameters, {outcome.bits_per_parameter:.2f} bits each"
            # A model of a few hundred parameters is smaller than the messages around it.
            + (f"; all counted, {fewer:.0f} times fewer bytes than in float32" if fewer >= 1.5 else ""),
        ),
    ]
