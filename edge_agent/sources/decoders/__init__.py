"""What the messages on an owner's broker mean: one file for each format, without I/O and clock."""
