"""What the demo measured: the JSON report and the picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hushfleet.codec import PLAIN_BITS, lanes, unpack_opened
from hushfleet.errors import ConfigurationError
from hushfleet.secagg.residues import Vector, signed

if TYPE_CHECKING:
    from hushfleet_demo.watch_splits import Split


@dataclass(frozen=True, slots=True)
class Accuracy:
    """On the unseen people's windows, 0 to 1: the federation, the others' own models on average, all rows pooled."""

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
        splits: the mean over all choices of two unseen people, sums in memory.
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


def residues_of(upload: bytes, opened: bytes, parameters: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One upload and the opened sum of a round as the coordinator holds them: signed integers, shape (d,)."""
    vector = Vector.from_bytes(upload, PLAIN_BITS, parameters, lanes(0))
    return signed(vector.body, PLAIN_BITS)[:parameters], unpack_opened(opened, PLAIN_BITS, parameters)


def draw(
    path: Path,
    curve: list[tuple[int, float]],
    outcome: Outcome,
    upload: NDArray[np.int64],
    opened: NDArray[np.int64],
    marks: dict[int, str],
) -> None:
    """The picture: accuracy by round with its baselines, and what the coordinator saw.

    Args:
        path: of the PNG.
        curve: (model version, accuracy on the unseen people).
        outcome: the figures of the run.
        upload, opened: `residues_of` the last round.
        marks: what happened in which round.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(
        1, 3, figsize=(15, 4.6), width_ratios=(1.7, 1, 1), layout="constrained"
    )
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
        label=f"a person's own model ({accuracy.local_unseen:.3f})",
    )
    for number, text in marks.items():
        left.axvline(number, color="#999999", linewidth=0.8)
        left.annotate(text, (number, 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=8, ha="right")
    left.set(xlabel="round", ylabel="accuracy", title="Accuracy on the two people whom the model never saw")
    left.legend(loc="lower right")
    for axes, values, title in (
        (middle, upload, "One upload, as the coordinator got it: noise"),
        (right, opened, "The sum of all, opened: signal"),
    ):
        side = int(np.sqrt(len(values)))
        limit = np.abs(values).max() or 1
        axes.imshow(values[: side * side].reshape(side, side), cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set(title=title, xlabel=f"residues from {np.min(values)} to {np.max(values)}")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(outcome: Outcome, splits: "list[Split]") -> list[tuple[str, str]]:
    """The figures as rows for a person."""
    accuracy, traffic, means = outcome.accuracy, outcome.bytes, outcome.all_splits
    return [
        ("broker", outcome.broker),
        ("devices, rounds", f"{outcome.devices}, {outcome.rounds} in {outcome.seconds:.0f} s"),
        ("accidents", f"uploads cut off: {outcome.dropouts}, recoveries of a member: {outcome.recoveries}"),
        (
            "accuracy on two unseen people",
            f"federated {accuracy.federated_unseen:.3f}, a person's own model {accuracy.local_unseen:.3f}, "
            f"all rows pooled {accuracy.central_unseen:.3f}",
        ),
        (
            f"mean over all {means['splits']:.0f} choices of two",
            f"federated {means['federated']:.3f}, own model {means['alone']:.3f}, pooled {means['pooled']:.3f} "
            f"(sums in memory; the worst choice {min(s.federated - s.alone for s in splits):+.3f} over own)",
        ),
        (
            "bytes a participant and round",
            f"{traffic.up_per_device_round:,.0f} up, {traffic.down_per_device_round:,.0f} down "
            "(MQTT at the agents' sockets, TLS not counted)",
        ),
        ("upload", f"{outcome.parameters} parameters, {outcome.bits_per_parameter:.2f} bits each"),
    ]
