"""Local training back ends."""
