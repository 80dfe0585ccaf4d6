"""Means over rows, on one device or over all survivors, from counts and sums (docs/protocol.md, section 11.6)."""


def accuracy(correct: int, evaluated: int) -> float:
    """Share of the evaluated rows whose class was right, 0.0 to 1.0; 0.0 where there are none."""
    return correct / evaluated if evaluated else 0.0


def mean_loss(loss_sum: float, rows: int) -> float:
    """Mean loss of a row, 0.0 to 64.0; 0.0 where there are none."""
    return loss_sum / rows if rows else 0.0
