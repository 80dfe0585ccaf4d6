"""What the kernel tells of a running process."""

import os
from pathlib import Path


def processor_seconds(pid: int) -> float:
    """What it has used so far, on all its threads, in the system and in itself."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, which: str) -> float:
    """Resident now (VmRSS) or at most (VmHWM), MB."""
    return _number(f"/proc/{pid}/status", which) / 1024


def written(pid: int) -> int:
    """Bytes that the kernel has sent, or will send, to storage for it."""
    return _number(f"/proc/{pid}/io", "write_bytes")


def _number(path: str, which: str) -> int:
    return next(int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(which))
