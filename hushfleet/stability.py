"""How far a distribution has moved from what it was: the population stability index."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOVED = 0.25
"""Below 0.1 two distributions are alike, above this they are not (Siddiqi, Credit Risk Scorecards, 2006)."""


def stability_index(before: "NDArray[Any]", after: "NDArray[Any]", smallest: float) -> float:
    """The index of two histograms, 0 if they are the same.

    Args:
        before, after: shares of the same bins, each summing up to 1.
        smallest: above 0, what stands for a smaller share: against an empty bin the index has no bound.
    """
    import numpy as np

    one, other = np.maximum(before, smallest), np.maximum(after, smallest)
    return float(((other - one) * np.log(other / one)).sum())
