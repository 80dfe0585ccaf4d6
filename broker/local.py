"""A Mosquitto of one's own on this machine: own port, own directory, started and stopped here. No other is touched."""

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hushfleet.errors import ConfigurationError, LinkError
from hushfleet.mosquitto import find_mosquitto

HOST = "127.0.0.1"

# Below the range from which systems draw the source ports of outgoing connections: a client that keeps trying a port of
# that range while the broker is down can occupy the port, or even connect to itself.
_FIRST_PORT, _LAST_PORT = 20_000, 32_000
_DEADLINE = 20.0


def version() -> str:
    """Name and version of the installed broker as it states them itself, such as "mosquitto version 2.0.11".

    Raises:
        ConfigurationError: mosquitto is not installed.
    """
    help_text = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True, timeout=_DEADLINE, check=False)
    return help_text.stdout.partition("\n")[0].strip()


def check_address(address: str, port: int) -> None:
    """Make sure that a listener can be opened here just now.

    Args:
        address: IP address or name of this machine; empty for all interfaces.
        port: TCP.

    Raises:
        ConfigurationError: another process listens there, the port needs root, or the address is not this machine's.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {address or 'all interfaces'}, port {port}: {error.strerror}; "
            "choose another --port or --address, or end what listens there"
        ) from None


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens.

    Raises:
        ConfigurationError: a hundred tries found none.
    """
    for _ in range(100):
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
        with suppress(ConfigurationError):
            check_address(HOST, port)
            return port
    raise ConfigurationError(f"no free port from {_FIRST_PORT} to {_LAST_PORT} on {HOST}; end what occupies them")


class LocalBroker:
    """One Mosquitto process with a given configuration.

    Args:
        directory: the broker's own; `mosquitto.conf`, `mosquitto.log` and its persistence live here.
        port: where the configuration listens on 127.0.0.1.
        configuration: the text of mosquitto.conf.
    """

    def __init__(self, directory: Path, port: int, configuration: str) -> None:
        self.directory = directory
        self.port = port
        self.log = directory / "mosquitto.log"
        self._configuration = configuration
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, extra: Iterable[str] = (), *, empty: bool = False) -> None:
        """Start the process and wait until it accepts connections.

        Args:
            extra: lines that end this start's configuration, such as "max_queued_messages 10"; a later line wins.
            empty: forget persisted sessions, queues and retained messages first.

        Raises:
            ConfigurationError: mosquitto is not installed, the port is taken, or it ended at once; the text has its
                last words.
            LinkError: it did not accept connections in time.
        """
        if self.running():
            raise ConfigurationError(f"the broker on port {self.port} is running already; stop it first")
        # Otherwise a stranger who listens there would be taken for ours.
        check_address(HOST, self.port)
        if empty:
            (self.directory / "mosquitto.db").unlink(missing_ok=True)
        path = self.directory / "mosquitto.conf"
        path.write_text("\n".join([self._configuration, *extra]) + "\n")
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [find_mosquitto(), "-c", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._await(self._accepts, f"accept connections on {HOST}:{self.port}")

    def stop(self) -> None:
        """End the process as an operator would (SIGTERM): it saves its state. Nothing happens if it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a power cut would (SIGKILL): it saves nothing."""
        self._end(signal.SIGKILL)

    def restart(self, extra: Iterable[str] = (), *, empty: bool = False) -> None:
        """Stop it if it is running and start it on the same port; arguments as of `start`."""
        self.stop()
        self.start(extra, empty=empty)

    def reload(self) -> None:
        """Make it read the access list and the revocation list again (SIGHUP); return when it works by the new ones."""
        if self._process is None or not self.running():
            raise ConfigurationError(f"the broker on port {self.port} is not running; start it first")
        before = self._reloads()
        self._process.send_signal(signal.SIGHUP)
        # Mosquitto has one thread: what it receives after this line, it judges by the new files.
        self._await(lambda: self._reloads() > before, "read its configuration again")

    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self.running():
            self._process.send_signal(how)
        try:
            self._process.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_DEADLINE)
        self._process = None

    def _accepts(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _reloads(self) -> int:
        return self.log.read_text(errors="replace").count("Reloading config.")

    def _await(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _DEADLINE
        while not (done := happened()) and self.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self.running():
            self._process = None
            raise ConfigurationError(f"mosquitto has ended: {self._last_words()}; all it said is in {self.log}")
        if not done:
            self.kill()
            raise LinkError(f"mosquitto did not {what} within {_DEADLINE:.0f} s; see {self.log}")

    def _last_words(self) -> str:
        """What is wrong and where are two lines of Mosquitto's."""
        lines = self.log.read_bytes()[self._log_start :].decode(errors="replace").splitlines()
        return " ".join(lines[-2:]) or "it said nothing"
