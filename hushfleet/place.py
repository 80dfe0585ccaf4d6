"""Where a store's files stand: whether they are the ones written last on this machine, or a copy put in their place.

Beside `x.db` stands `x.db-place`: 16 random bytes, written anew at every opening. The database keeps them with the
file's change time and with its own inode number. A restored or copied store differs in one of the three: an older
database knows older bytes, a written file has a fresh change time, which no tool can set, and a database that was put
in place has another number. What brings all of this back together is not noticed: the image of a whole disk, a snapshot
of a file system or of a virtual machine.
"""

import os
from pathlib import Path

NONCE = 16


class Place:
    """The file beside one database."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + "-place")
        self._database = database

    def look(self) -> bytes:
        """What tells this place: nonce 16 ‖ change time u64 ‖ inode of the database u64; empty without the file.

        Raises:
            OSError: the disk fails.
        """
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return b""
        try:
            nonce = os.read(file, NONCE).ljust(NONCE, b"\0")
            numbers = os.fstat(file).st_ctime_ns, os.stat(self._database).st_ino
        finally:
            os.close(file)
        return nonce + b"".join(number.to_bytes(8, "little") for number in numbers)

    def renew(self, nonce: bytes) -> bytes:
        """Write these 16 bytes, durably; what `look` finds from now on. Raises OSError."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(file, NONCE)
            os.pwrite(file, nonce, 0)
            os.fsync(file)
        finally:
            os.close(file)
        return self.look()
