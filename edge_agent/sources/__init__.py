"""Where a device reads its own data."""
