"""A slow line between one device and the broker, so that the demo can cut an upload off in the middle."""

import socket
import threading
import time
from contextlib import suppress

from hushfleet_demo.local_fleet import HOST

PIECE = 64
"""Bytes that travel at once where the line is slow."""


class SlowLink:
    """A relay on this machine, for as many connections as one device makes.

    Attributes:
        port: where the device finds it.
        rate: bytes a second upwards; None for as fast as they come.
    """

    def __init__(self, broker: int) -> None:
        """`broker` is the port where it listens."""
        self._broker = broker
        self._server = socket.create_server((HOST, 0))
        self.port: int = self._server.getsockname()[1]
        self.rate: float | None = None
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="slow link", daemon=True).start()

    def cut(self) -> None:
        """End every connection; what is on its way is lost."""
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no further connection, and end those there are."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                device, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(device,), name="slow link", daemon=True).start()

    def _serve(self, device: socket.socket) -> None:
        with device, suppress(OSError), socket.create_connection((HOST, self._broker)) as broker:
            self._ends |= {device, broker}
            down = threading.Thread(target=self._pump, args=(broker, device), name="slow link", daemon=True)
            down.start()
            self._pump(device, broker, upwards=True)
            down.join()
            self._ends -= {device, broker}

    def _pump(self, source: socket.socket, target: socket.socket, upwards: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE if upwards and self.rate else 65_536):
                if upwards and self.rate:
                    time.sleep(len(data) / self.rate)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
