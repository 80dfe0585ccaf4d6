"""What a device's uploads have left out so far (docs/protocol.md, section 6). No I/O, no clock.

An upload carries a part of (residual + delta). Whether it got into a sum is known with the round's result only, so the
whole is kept beside the residual until then. Records:

    participant/residual    what is still to be said
    participant/pending     residual + delta of an upload whose result is not known
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hushfleet.actions import Action, Erase, Save, Store
from hushfleet.wire.framing import B32, U32, U64, Bytes, Table
from hushfleet.wire.round import APPLIED, ROLLBACK, Plan, Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESIDUAL, PENDING = "participant/residual", "participant/pending"
LONGEST_AGE = 20
"""Rounds without an upload after which a residual says nothing about the model any more."""


@dataclass(frozen=True, slots=True)
class _Residual(Table):
    KIND: ClassVar[str] = "residual"
    model: B32
    vector: Bytes


@dataclass(frozen=True, slots=True)
class _Pending(Table):
    KIND: ClassVar[str] = "pending"
    model: B32
    round: U64
    plan: B32
    base: B32
    coords: U32
    vector: Bytes


class Residual:
    """One participant's residual. Built anew from its records at every start."""

    def __init__(self, store: Store, index: int) -> None:
        """`index` is the device's roster index."""
        self._index = index
        residual, pending = store.get(RESIDUAL), store.get(PENDING)
        self._residual = _Residual.from_body(residual) if residual else None
        self._pending = _Pending.from_body(pending) if pending else None
        self._rotated: NDArray[np.float32] | None = None

    def vector(self) -> "NDArray[np.float32] | None":
        """What to add to the next delta, float32, shape (d,); None if nothing."""
        return None if self._residual is None else _floats(self._residual.vector)

    def prepare(self, plan: Plan, newest_upload: int, result: Result | None) -> list[Action]:
        """Before an update is encoded: settle what is pending, and drop what is of another model or too old.

        Args:
            plan: the verified plan of the update.
            newest_upload: round of this device's newest upload.
            result: that of the `pending` upload's plan, if it is known after all.
        """
        actions: list[Action] = []
        if self._pending is not None:
            if result is not None:
                actions += self.on_result(result)
            elif plan.base_hash == self._pending.base:
                actions += self._settled()
            else:
                actions += self._become_dropped(self._pending)
        stale = plan.round > newest_upload + LONGEST_AGE
        if self._residual is not None and (self._residual.model != plan.model or stale):
            actions += self.drop()
        return actions

    def pending(self) -> bytes:
        """Hash of the plan whose result is awaited; empty if none is."""
        return self._pending.plan if self._pending else b""

    def keep(
        self, plan: Plan, plan_hash: bytes, whole: "NDArray[np.float32]", rotated: "NDArray[np.float32]"
    ) -> list[Action]:
        """An upload of residual + delta is being saved, in the same event.

        Args:
            plan, plan_hash: the upload's.
            whole: residual + delta, float32, shape (d,).
            rotated: the same in the round's basis: in memory until the result, so that it is computed once.
        """
        self._rotated = rotated
        data = whole.astype("<f4", copy=False).tobytes()
        self._pending = _Pending(plan.model, plan.round, plan_hash, plan.base_hash, plan.coords, data)
        return [Save(PENDING, self._pending.to_body())]

    def on_result(self, result: Result) -> list[Action]:
        """A verified result: if it is the pending upload's, whether that is in the sum is known now."""
        if result.outcome == ROLLBACK:
            return self.drop()
        pending = self._pending
        if pending is None or result.plan != pending.plan:
            return []
        if result.outcome != APPLIED:
            return self._settled()
        if result.includes(self._index):
            return self._become_dropped(pending)
        return self._become(pending.model, pending.vector)

    def drop(self) -> list[Action]:
        """Forget everything: the model it belongs to is gone."""
        held = self._residual is not None or self._pending is not None
        self._residual = self._pending = self._rotated = None
        return [Erase(RESIDUAL), Erase(PENDING)] if held else []

    def _settled(self) -> list[Action]:
        """The model has not moved: the residual stays what it was, and the same training will be done again."""
        self._pending = self._rotated = None
        return [Erase(PENDING)]

    def _become_dropped(self, pending: _Pending) -> list[Action]:
        from hushfleet.encoding.grid import Grid

        parameters = len(pending.vector) // 4
        if pending.coords == parameters:
            self._residual = None
            return [Erase(RESIDUAL), *self._settled()]
        grid = Grid(parameters, pending.coords, pending.plan)
        rotated = grid.rotated(_floats(pending.vector)) if self._rotated is None else self._rotated
        dropped = grid.dropped(rotated)
        return self._become(pending.model, dropped.astype("<f4", copy=False).tobytes())

    def _become(self, model: bytes, vector: bytes) -> list[Action]:
        self._residual = _Residual(model, vector)
        return [Save(RESIDUAL, self._residual.to_body()), *self._settled()]


def _floats(data: bytes) -> "NDArray[np.float32]":
    import numpy as np

    floats: NDArray[np.float32] = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    return floats
