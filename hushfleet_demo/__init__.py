"""The demo: a whole fleet as processes on one machine, on real recordings."""
