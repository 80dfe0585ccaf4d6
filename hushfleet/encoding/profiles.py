"""The measured settings of the rotated codec, by name (docs/protocol.md, section 6)."""

from dataclasses import dataclass

from hushfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class EncodingProfile:
    """One setting that was measured to converge.

    Attributes:
        keep: fraction of the coordinates that are sent, above 0, at most 1.
        spare_bits: bits a coordinate beyond 2 + ceil(log2(expected)/2).
        server_rate: what the mean update, or the velocity, is multiplied by, above 0.
        server_momentum: 0 up to, not including, 1.

    Raises:
        ConfigurationError: a combination that is known to diverge.
    """

    keep: float
    spare_bits: int
    server_rate: float
    server_momentum: float

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ConfigurationError(f"keep = {self.keep}: a fraction above 0, at most 1")
        if not self.server_rate > 0.0:
            raise ConfigurationError(f"server_rate = {self.server_rate}: a number above 0")
        check_server(self.server_momentum, adam=False, everything=self.keep == 1.0)


def check_server(momentum: float, *, adam: bool, everything: bool) -> None:
    """Refuse a server momentum that is no such number, or a step with a memory that would run together with residuals.

    Args:
        momentum: the server's.
        adam: whether the step is FedAdam's.
        everything: whether all coordinates are sent, so that no residual is kept.

    Raises:
        ConfigurationError: with the reason.
    """
    if not 0.0 <= momentum < 1.0:
        raise ConfigurationError(f"server momentum {momentum}: a number from 0 up to, not including, 1")
    if everything:
        return
    if adam:
        raise ConfigurationError(
            "FedAdam together with a part of the coordinates swings and does not settle: the residuals come back "
            "delayed and are amplified; send all coordinates (codec plain or fast), or leave FedAdam out"
        )
    if momentum:
        raise ConfigurationError(
            "server momentum together with a part of the coordinates diverges: the residuals come back delayed and are "
            "amplified; send all coordinates (profile fast), or leave the momentum out"
        )


PROFILES = {
    "thrift": EncodingProfile(keep=0.05, spare_bits=0, server_rate=1.0, server_momentum=0.0),
    "default": EncodingProfile(keep=0.1, spare_bits=0, server_rate=1.0, server_momentum=0.0),
    "fast": EncodingProfile(keep=1.0, spare_bits=1, server_rate=0.3, server_momentum=0.9),
}
"""About a quarter, half and five bits a parameter and round."""
