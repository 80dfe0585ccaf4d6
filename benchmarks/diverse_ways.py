"""Ways to learn that `diverse_fleets.py` compares."""

from dataclasses import dataclass, field
from typing import Any

from coordinator.encoding import Codec, ServerStep


@dataclass(frozen=True, slots=True)
class Way:
    """One way to learn.

    Attributes:
        name: in the table.
        codec: plain, or a profile of the rotated codec: `fast` is the one with server momentum.
        changes: fields of the task that are otherwise.
        server: the server's step, in place of the profile's.
    """

    name: str
    codec: Codec = "default"
    changes: dict[str, Any] = field(default_factory=dict)
    server: ServerStep | None = None
