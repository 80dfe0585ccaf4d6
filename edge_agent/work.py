"""What a device's roles ask beyond messages and records: numbers on its own rows, words to its owner."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hushfleet.actions import Action
from hushfleet.wire.round import Plan
from hushfleet.wire.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.statistics import Numbers


@dataclass(frozen=True, slots=True)
class Train:
    """Ask for local training; the runner answers with `on_trained` or `on_training_failed`.

    Attributes:
        plan: the plan, with its training numbers; with fewer steps where the device's budget pays for no more.
        plan_hash: names the plan in the answer.
        flat: float32, the base model, with this device's own layers where the model has such; not to be changed.
        order_seed: 32 bytes that decide the order of the rows.
    """

    plan: Plan
    plan_hash: bytes
    flat: "NDArray[np.float32]" = field(repr=False)
    order_seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Describe:
    """Ask for the numbers of a statistics round; the runner answers with `on_described` or `on_training_failed`.

    Attributes:
        plan: the plan.
        plan_hash: names the plan in the answer.
        flat: float32, the base model, as for `Train`, which is judged on the device's own rows; not to be changed.
        fitted: as for `Score`; what was not trained is not judged.
    """

    plan: Plan
    plan_hash: bytes
    flat: "NDArray[np.float32]" = field(repr=False)
    fitted: bool


@dataclass(frozen=True, slots=True)
class Score:
    """Ask for the live model's score on the device's own rows, for its owner's eyes; it is sent to nobody.

    Attributes:
        version: the model version.
        flat: float32, as for `Train`; not to be changed.
        fitted: whether all of it was trained: a device's own layers are not before its first upload.
        plan: the newest of training this model, whose numbers a device may train its own version with; None if none
            has been seen since the start: the same version is then asked for again with the first one. None, too, if
            scores are held against a threshold that holds for the fleet's version alone.
        spec: hash of the model spec.
    """

    version: int
    flat: "NDArray[np.float32]" = field(repr=False)
    fitted: bool
    plan: Plan | None
    spec: bytes


@dataclass(frozen=True, slots=True)
class Judged:
    """What the newest statistics round known here says of the fleet: its readings, and how its model does.

    Attributes:
        schema: under which.
        version: the model version that was judged.
        devices: how many there were.
        sums: over these.
    """

    schema: Schema
    version: int
    devices: int
    sums: "Numbers"


@dataclass(frozen=True, slots=True)
class Ended:
    """A round's result was verified: the runner tells the device's owner what it came to and what it cost.

    Attributes:
        round: its number.
        outcome: applied, aborted, void or rollback.
        included: whether this device's upload is in the sum.
    """

    round: int
    outcome: str
    included: bool


DeviceAction = Action | Train | Describe | Score | Judged | Ended
