"""Secure aggregation: group arithmetic, sharing, the committee, masks and residues."""
