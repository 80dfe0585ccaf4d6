"""The last layers of a model, where the owners let each device have its own (docs/protocol.md, section 4). No I/O.

They are trained along with the shared layers, from what they were (FedPer, Arivazhagan et al. 2019), and nobody else
ever has them: they stand in one record of the vault, and in no message.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from hushfleet.actions import Action, Erase, Save, Store
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import B32, Bytes, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD = "participant/head"


@dataclass(frozen=True, slots=True)
class _Record(Table):
    KIND: ClassVar[str] = "head"
    spec: B32
    flat: Bytes = field(repr=False)


class PersonalHead:
    """One device's. Built anew from its record at every start."""

    def __init__(self, store: Store) -> None:
        saved = store.get(RECORD)
        self._record = _Record.from_body(saved) if saved else None

    def use(self, spec_hash: bytes) -> list[Action]:
        """Work with this model spec; what was trained for another one is erased."""
        if self._record is None or self._record.spec == spec_hash:
            return []
        self._record = None
        return [Erase(RECORD)]

    def fitted(self, spec: ModelSpec, spec_hash: bytes) -> bool:
        """Whether every layer of the model has been trained: one's own are version 0's until an upload was made."""
        return not spec.personal or self._mine(spec_hash) is not None

    def whole(self, spec: ModelSpec, spec_hash: bytes, shared: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """The whole model, float32: the shared flat vector (d,) and, after it, this device's own layers."""
        if not spec.personal:
            return shared
        import numpy as np

        return np.concatenate([shared, self._own(spec, spec_hash)])

    def keep(self, spec: ModelSpec, spec_hash: bytes, delta: "NDArray[np.float32]", clip: float) -> list[Action]:
        """An upload of what was trained is being saved, in the same event: so are this device's own layers.

        They stay whatever becomes of the round.

        Args:
            delta: float32, what training added to the whole model.
            clip: largest norm of what is added to these layers: nothing takes them back from where a plan led them.
        """
        if not spec.personal:
            return []
        trained = self._own(spec, spec_hash) + clipped(delta[spec.parameters() :], clip)
        self._record = _Record(spec_hash, trained.astype("<f4", copy=False).tobytes())
        return [Save(RECORD, self._record.to_body())]

    def _mine(self, spec_hash: bytes) -> _Record | None:
        return self._record if self._record is not None and self._record.spec == spec_hash else None

    def _own(self, spec: ModelSpec, spec_hash: bytes) -> "NDArray[np.float32]":
        import numpy as np

        from hushfleet.learning.layers import initial_flat

        mine = self._mine(spec_hash)
        if mine is None:
            return initial_flat(spec.layers, spec.init)[spec.parameters() :]
        floats: NDArray[np.float32] = np.frombuffer(mine.flat, "<f4").astype(np.float32, copy=False)
        return floats


def clipped(added: "NDArray[np.float32]", clip: float) -> "NDArray[np.float32]":
    """What training added to a device's own layers, float32, shortened to the norm `clip` where it is longer."""
    import numpy as np

    wide = added.astype(np.float64)
    shorter: NDArray[np.float32] = (wide * (clip / max(float(np.linalg.norm(wide)), clip))).astype(np.float32)
    return shorter
