"""The server's side of a model: its hash and its snapshot (docs/protocol.md, sections 11.1 and 11.4).

The federated-averaging step itself, Σ weight·delta / Σ weight, is `hushfleet.codec.apply_delta`: the coordinator and
every device compute it from the same opened integers.
"""

import numpy as np
from numpy.typing import NDArray

from hushfleet.errors import MalformedError
from hushfleet.hashing import digest


def snapshot(flat: NDArray[np.float32]) -> bytes:
    """The flat vector, float32, shape (d,), as 4·d bytes little-endian."""
    return flat.astype("<f4", copy=False).tobytes()


def model_hash(flat: NDArray[np.float32]) -> bytes:
    """The 32 bytes by which a version is known: modl(snapshot)."""
    return digest("modl", snapshot(flat))


def open_snapshot(data: bytes, coords: int, expected_hash: bytes) -> NDArray[np.float32]:
    """The flat vector of a snapshot from the wire: float32, shape (coords,), writable.

    Args:
        data: the snapshot.
        coords: d of the model spec.
        expected_hash: the model hash that a verified result or plan names.

    Raises:
        MalformedError: the length is not 4·coords, or it is another version's snapshot.
    """
    if len(data) != 4 * coords:
        raise MalformedError(f"a snapshot of {coords} parameters has {4 * coords} bytes, not {len(data)}")
    if digest("modl", data) != expected_hash:
        raise MalformedError("the snapshot is not of the version that the result names")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
