"""Statistics rounds: when one is due, and what the opened ones say (docs/protocol.md, section 5.1). No I/O, no clock.

Records, kept over the rounds:

    statistics/due             after how many rounds of training the next one is due
    statistics/sums/{round}    the sums of one that opened; the newest twenty
"""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from coordinator.context import Context
from hushfleet.actions import Action, Erase, Export, Save
from hushfleet.stability import stability_index
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import B32, U32, U64, Bytes, Table
from hushfleet.wire.round import Plan, Sums
from hushfleet.wire.schema import ANOMALY, CLASSES, FORECAST, Channel, Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.judgement import Judgement
    from hushfleet.statistics import Numbers

DUE, OPENED = "statistics/due", "statistics/sums/"
KEPT = 20
EXPORT = "statistics.json"
NOISELESS = "none: the owners signed noiseless_statistics"
LEVELS = {ANOMALY: (0.5, 0.9, 0.95, 0.99, 0.999), "": (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)}
"""Which quantiles of errors are told: of an anomaly's, and of a number's."""
PINBALL = (0.1, 0.5, 0.9)
SMALLEST_SHARE = 1e-4
"""Shares below are taken for this where logarithms of them are compared."""


@dataclass(frozen=True, slots=True)
class _Due(Table):
    """After so many training rounds of this model the next is due; not after just as many as one was tried after."""

    KIND: ClassVar[str] = "due"
    model: B32
    tried: U64
    next: U64


@dataclass(frozen=True, slots=True)
class Opened(Table):
    """A round that opened, with its base: `sums` are int64 little-endian in units of 1/top, in that schema's order."""

    KIND: ClassVar[str] = "opened"
    round: U64
    time: U64
    base: U32
    devices: U32
    top: U64
    schema: Bytes
    sums: Bytes


class Statistics:
    """Built anew from its records at every start.

    Attributes:
        newest: the newest round that opened, with what it says; None before the first.
    """

    def __init__(self, context: Context, every: int) -> None:
        """`every` is how many training rounds follow a statistics round; 0 for no statistics."""
        self._context, self._every = context, every
        saved = context.store.get(DUE)
        self._due = _Due.from_body(saved) if saved else None
        kept = [Opened.from_body(value) for _, value in context.store.scan(OPENED)]
        self.newest = kept[-1] if kept else None

    def view(self) -> dict[str, object] | None:
        """For the status: the newest round that opened, and that it carries no noise."""
        newest = self.newest
        return {"round": newest.round, "devices": newest.devices, "noise": NOISELESS} if newest else None

    def trouble(self) -> str | None:
        """Why no statistics round can be planned under the newest documents, though the settings ask for them."""
        trust = self._context.trust
        if not self._every:
            return None
        if trust.policy is None or not trust.policy.noiseless_statistics:
            return "statistics carry no noise, and the owners have not signed noiseless_statistics"
        if trust.schema is None or trust.schema.model != trust.hash_of("model"):
            return "statistics follow the channels of a schema, and the owners have signed none for this model"
        return None

    def schema(self) -> Schema:
        """That of the newest documents, which must be here."""
        schema = self._context.trust.schema
        assert schema is not None
        return schema

    def is_due(self, model: bytes, done: int, last: bool) -> bool:
        """Whether the next round is one for statistics.

        Args:
            model: hash of the model spec.
            done: how many training rounds of it there were.
            last: whether there will be no more: then the finished model is described.
        """
        if not self._every or self.trouble():
            return False
        due = self._due
        if due is None or due.model != model:
            return True
        # One that came to nothing is tried again after the next round of training, not at once.
        return (last or done >= due.next) and done != due.tried

    def tried(self, model: bytes, done: int) -> list[Action]:
        """A statistics round begins."""
        due = self._due
        following = due.next if due and due.model == model else done
        return self._record(_Due(model, done, following))

    def opened(self, sums: "NDArray[np.int64]", devices: int, policy: Policy, plan: Plan, now: float) -> list[Action]:
        """A statistics round opened: keep it, and tell the operator."""
        from hushfleet.statistics import Digits

        due, top = self._due, Digits.of(policy.largest_survivor_set).top
        assert due is not None
        packed = sums.astype("<i8").tobytes()
        self.newest = Opened(plan.round, int(now), plan.base, devices, top, self.schema().to_body(), packed)
        before = [key for key, _ in self._context.store.scan(OPENED)]
        rounds = [self._context.store.get(key) for key in before[-(KEPT - 1) :]]
        told = [*(Opened.from_body(value) for value in rounds if value), self.newest]
        return [
            *self._record(_Due(due.model, due.tried, due.tried + self._every)),
            *(Erase(key) for key in before[: -(KEPT - 1)]),
            Save(f"{OPENED}{plan.round:020}", self.newest.to_body()),
            _export(told),
        ]

    def published(self, plan_hash: bytes, policy: Policy) -> Sums:
        """The newest round that opened, as devices may read it."""
        import numpy as np

        from hushfleet.statistics import for_everyone

        newest = self.newest
        assert newest is not None
        schema_hash = self._context.trust.hash_of("schema")
        assert schema_hash is not None
        opened = np.frombuffer(newest.sums, "<i8")
        told = for_everyone(opened, self.schema(), policy.smallest_survivor_set, newest.top).astype("<i8").tobytes()
        return Sums(self._context.index, plan_hash, schema_hash, newest.devices, newest.top, told)

    def _record(self, due: _Due) -> list[Action]:
        self._due = due
        return [Save(DUE, due.to_body())]

    def kept(self) -> list[Action]:
        """Everything for the operator once more: a crash may have kept it from its place."""
        found = [Opened.from_body(value) for _, value in self._context.store.scan(OPENED)]
        return [_export(found)] if found else []


def _export(rounds: list[Opened]) -> Export:
    told = [described(one, before) for before, one in zip([None, *rounds], rounds, strict=False)]
    return Export(EXPORT, json.dumps(told, indent=1).encode() + b"\n")


def described(opened: Opened, before: Opened | None) -> dict[str, Any]:
    """What a round says of the fleet, in the schema's units, and how far it is from the one before.

    A `spread` is how far devices differ: the standard deviation of their means or shares. A `drift` is the population
    stability index of two histograms: below 0.1 they are alike, above 0.25 they are not.
    """
    schema, sums = _read(opened)
    old = None
    if before is not None:
        old_schema, old_sums = _read(before)
        old = old_sums if _ranges(old_schema) == _ranges(schema) else None
    return {
        "round": opened.round,
        "time": opened.time,
        "devices": opened.devices,
        "noise": NOISELESS,
        "windows": dict(zip(_row_classes(), map(round, sums.rows.tolist()), strict=True)),
        "labels": _labels(schema, sums, old) if schema.classes else None,
        "channels": [
            _channel(channel, sums.channels[at], None if old is None else old.channels[at], opened.devices)
            for at, channel in enumerate(schema.channels)
        ],
        "model": _judged(schema, sums.judged, opened.base),
    }


def _read(opened: Opened) -> "tuple[Schema, Numbers]":
    import numpy as np

    from hushfleet.statistics import Numbers

    schema = Schema.from_body(opened.schema)
    return schema, Numbers.split(schema, np.frombuffer(opened.sums, "<i8") / opened.top)


def _ranges(schema: Schema) -> list[Any]:
    """What two rounds must have in common to be compared."""
    return [*schema.classes, *((one.name, one.unit, one.low, one.high) for one in schema.channels)]


def _row_classes() -> list[str]:
    from hushfleet.statistics import ROW_CLASSES

    return [*(f"below {end}" for end in ROW_CLASSES), f"{ROW_CLASSES[-1]} or more"]


def _labels(schema: Schema, sums: "Numbers", old: "Numbers | None") -> dict[str, Any]:
    labelled = float(sums.labelled[0])
    shares = _mean(sums.shares, labelled)
    return {
        "devices": round(labelled),
        "classes": {
            name: {"share": share, "spread": _deviation(_mean(square, labelled), share)}
            for name, share, square in zip(schema.classes, shares.tolist(), sums.squares.tolist(), strict=True)
        },
        "drift": None if old is None else _drift(_mean(old.shares, float(old.labelled[0])), shares),
    }


def _channel(
    channel: Channel, sums: "NDArray[np.float64]", old: "NDArray[np.float64] | None", devices: int
) -> dict[str, Any]:
    from hushfleet.statistics import HEAD, MEAN, MISSING, PRESENT, SPREAD, SQUARE

    present, width = float(sums[PRESENT]), channel.high - channel.low
    mean, histogram = _mean(float(sums[MEAN]), present), _mean(sums[HEAD:], present)
    there = present > 0
    drift = None if old is None else _drift(_mean(old[HEAD:], float(old[PRESENT])), histogram)
    return {
        "name": channel.name,
        "unit": channel.unit,
        "low": channel.low,
        "high": channel.high,
        "devices": round(present),
        "missing": float(sums[MISSING]) / devices,
        "mean": channel.low + width * mean if there else None,
        "sd": width * _deviation(_mean(float(sums[SQUARE]), present), mean) if there else None,
        "spread": width * _deviation(_mean(float(sums[SPREAD]), present), mean) if there else None,
        "histogram": histogram.tolist(),
        "drift": drift,
    }


def _judged(schema: Schema, sums: "Judgement", base: int) -> dict[str, Any] | None:
    """How the base model does on rows that devices keep aside; None where none has any. Errors of a forecast are in its
    channel's unit, other ones in the model's own."""
    if not sums.present[0] > 0:
        return None
    told: dict[str, Any] = {"version": base, "devices": round(float(sums.present[0]))}
    if schema.task == CLASSES:
        f1, auc = sums.f1(), sums.auc()
        classes = zip(schema.classes, f1, auc, strict=True)
        return told | {
            "accuracy": float(sums.both.sum() / sums.present[0]),
            "macro_f1": _average(f1),
            "auc": _average(auc),
            "classes": {name: {"f1": one, "auc": area} for name, one, area in classes},
        }
    channel = schema.channels[schema.target] if schema.task == FORECAST else None
    unit = channel.value(1.0) - channel.value(0.0) if channel else 1.0
    levels = LEVELS.get(schema.task, LEVELS[""])
    told |= {"unit": channel.unit if channel else None}
    if schema.task != ANOMALY:
        told |= {"mae": unit * sums.absolute(), "pinball": {str(one): unit * sums.pinball(one) for one in PINBALL}}
    return told | {"quantiles": {str(one): unit * sums.quantile(one) for one in levels}}


def _average(found: list[float | None]) -> float | None:
    """Over the classes that there are."""
    there = [one for one in found if one is not None]
    return sum(there) / len(there) if there else None


def _mean(sums: Any, devices: float) -> Any:
    return sums / devices if devices > 0 else sums * 0.0


def _deviation(square: float, mean: float) -> float:
    return math.sqrt(max(0.0, square - mean**2))


def _drift(old: "NDArray[np.float64]", new: "NDArray[np.float64]") -> float | None:
    """The population stability index; None where one of the two has no device."""
    if not old.any() or not new.any():
        return None
    return stability_index(old, new, SMALLEST_SHARE)
