"""The rotated encoding: a tenth of the coordinates, a few bits each, in sums mod 2^B (docs/protocol.md, 6 and 11.7)."""
