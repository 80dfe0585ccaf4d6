"""A device's own version of the fleet's model: trained on from there, and used if it is better on the rows kept aside.

It serves this device's live decisions alone: no round trains from it, and no message holds anything of it. No I/O.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hushfleet.wire.layers import Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_agent.sources.rows import LocalData
    from edge_agent.training.numpy_trainer import Trainer, TrainingNumbers

PARTS = 3
"""Parts of fine-tuning, each of as many steps as a round's local training, between which other work has its turn."""
STRETCHES = 8
"""Parts of the rows kept aside, one after the other in time, that are compared as if they were independent."""
MARGIN = 0.05
"""Part of the fleet's mean loss by which the own version's must be lower."""
ERRORS = 2.0
"""Standard errors above which the gain must be: with eight stretches chance alone gives that once in 23 times."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What fine-tuning came to.

    Attributes:
        flat: float32[d], the own version.
        rows: those kept aside, which judged it.
        fleet, own: mean loss on them, of the fleet's model and of the own version.
        better: whether the own version is to be used.
    """

    flat: "NDArray[np.float32]" = field(repr=False)
    rows: int
    fleet: float
    own: float
    better: bool


def judgeable(rows: int) -> bool:
    """Whether so many rows kept aside can tell: two in every stretch."""
    return rows >= 2 * STRETCHES


def is_better(fleet: "NDArray[np.float64]", own: "NDArray[np.float64]") -> bool:
    """Whether the own version is better by more than chance and by more than nothing.

    Windows share samples and what goes on around them with the next ones, so that rows are no independent witnesses:
    the standard error is that of the mean over whole stretches of time (batch means, Law and Kelton 2000).

    Args:
        fleet, own: the loss of each row kept aside, float64[n], n as `judgeable` has it, in the order of time.
    """
    import numpy as np

    gains = np.array([stretch.mean() for stretch in np.array_split(fleet - own, STRETCHES)])
    error = gains.std(ddof=1) / np.sqrt(STRETCHES)
    return bool(gains.mean() >= MARGIN * fleet.mean() and gains.mean() > ERRORS * error)


def fine_tuning(
    trainer: "Trainer",
    flat: "NDArray[np.float32]",
    layers: Sequence[Layer],
    data: "LocalData",
    numbers: "TrainingNumbers",
    order_seed: bytes,
) -> "Generator[None, None, Tuned]":
    """Fine-tune in `PARTS` parts: a `next` does one, the last returns what it came to.

    Args:
        trainer: for this model.
        flat: float32[d], the fleet's model; it is left as it is.
        layers: its layer list.
        data: rows to train on, and as many kept aside as `judgeable` needs.
        numbers: of local training.
        order_seed: 32 bytes that decide the order of the rows; the same give the same result.

    Raises:
        ConfigurationError, RefusedError: as `hushfleet.learning.local.train`.
    """
    from nacl.bindings import randombytes_buf_deterministic

    from hushfleet.learning.local import row_losses

    x, y = data.training.x, data.training.y
    seeds, tuned = randombytes_buf_deterministic(32 * PARTS, order_seed), flat
    for part in range(PARTS):
        tuned = tuned + trainer.train(tuned, x, y, numbers, seeds[32 * part : 32 * part + 32]).delta
        yield
    kept = data.evaluation
    fleet, own = (row_losses(one, layers, kept.x, kept.y, head=data.head) for one in (flat, tuned))
    return Tuned(tuned, len(kept), float(fleet.mean()), float(own.mean()), is_better(fleet, own))
