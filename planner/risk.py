"""How likely the draw of a committee fails, and how likely a round does (docs/protocol.md, section 7). Exact."""

from fractions import Fraction
from math import comb

from planner.messages import Committee


def tolerated(committee: Committee) -> int:
    """c − 2f − 1: how many members may be corrupt while nothing but one sum is learned; below 0 is none."""
    return committee.members - 2 * committee.recoveries - 1


def privacy_failure(devices: int, corrupt: int, committee: Committee) -> float:
    """P[Hypergeom(N, K, n) ≥ c − 2f]: too many corrupt ones among the candidates drawn from the fleet.

    All candidates count, those that a set-up leaves out too, because the coordinator chooses whom to leave out.

    Args:
        devices: N, from which the candidates are drawn.
        corrupt: K of them, 0 to N.
        committee: c, f and n, n at most N.
    """
    drawn = committee.candidates
    enough = max(0, committee.members - 2 * committee.recoveries)
    bad = sum(comb(corrupt, k) * comb(devices - corrupt, drawn - k) for k in range(enough, min(corrupt, drawn) + 1))
    return float(Fraction(bad, comb(devices, drawn)))


def round_failure(downtime: float, committee: Committee) -> float:
    """P[Binomial(c, downtime) > f]: more members away at once than the others can stand in for.

    Args:
        downtime: share of the time for which a member is away, each by itself, 0 to 1.
    """
    c = committee.members
    return float(
        sum(comb(c, k) * downtime**k * (1 - downtime) ** (c - k) for k in range(committee.recoveries + 1, c + 1))
    )
