"""A whole fleet on this machine: broker, coordinator and agents as processes of their own, through the command line."""

import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hushfleet.errors import ConfigurationError, HushfleetError
from hushfleet.mosquitto import find_mosquitto

HOST = "127.0.0.1"
STOP_WITHIN = 20.0
"""Seconds that a process gets to end cleanly."""

Told = Callable[[str, dict[str, Any]], None]
"""Called with the process's name and each event of its journal, on a thread of that process's own."""


def command(*arguments: str | Path) -> list[str]:
    """The command line of this very installation."""
    return [sys.executable, "-m", "hushfleet", *map(str, arguments)]


def run(*arguments: str | Path) -> str:
    """Run a command to its end; what it said, warnings among it.

    Raises:
        ConfigurationError: it failed; with what it said.
    """
    done = subprocess.run(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise ConfigurationError(f"hushfleet {' '.join(map(str, arguments))} failed: {done.stdout.strip()}")
    return done.stdout


def free_port() -> int:
    """A TCP port of this machine on which nothing listens, below those that outgoing connections draw."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise ConfigurationError("no free TCP port from 20000 to 32000; end what occupies them")


class Process:
    """One service and its journal."""

    def __init__(self, name: str, arguments: list[str], log: Path, told: Told) -> None:
        """Start it; its standard error is read line by line and kept in `log`."""
        self.name, self._log, self._told = name, log, told
        # A group of its own: Ctrl-C reaches the demo alone, which then stops everything in order.
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.last_lines: list[str] = []
        self._reader = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._log.open("ab") as log:
            for line in self._process.stderr:
                log.write(line)
                log.flush()
                self.last_lines = [*self.last_lines[-4:], line.decode("utf-8", "replace").rstrip()]
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    self._told(self.name, event)

    @property
    def pid(self) -> int:
        """Its number, by which the system counts what it uses."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator would: SIGTERM; SIGKILL if that does not work."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, and its journal read to the end."""
        try:
            code = self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(STOP_WITHIN)
        return code


class LocalFleet:
    """Everything below one directory; whatever it started it stops.

    Args:
        directory: empty or new.
        told: hears every event of every process.
    """

    def __init__(self, directory: Path, told: Told) -> None:
        self.directory, self._told = directory, told
        self.port = free_port()
        self.processes: dict[str, Process] = {}
        self._brokers: list[str] = []
        self.fleet = directory / "fleet"
        for name in ("logs", "configuration", "state"):
            (directory / name).mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, *arguments: str | Path) -> Process:
        """Start a service, for the first time or again."""
        return self._start(name, command(*arguments))

    def _start(self, name: str, arguments: list[str]) -> Process:
        process = Process(name, arguments, self.directory / "logs" / f"{name}.log", self._told)
        self.processes[name] = process
        return process

    def start_broker(self) -> None:
        """Start the fleet's broker and wait until it accepts connections."""
        arguments = ("broker", "run", "--fleet", self.fleet, "--port", str(self.port), "--address", HOST)
        self._start_broker("broker", command(*arguments), self.port)

    def start_owners_broker(self, name: str, port: int) -> None:
        """Start the broker of one house, as `start_broker` that of the fleet: no password, and no other machine."""
        path = self.directory / "configuration" / f"{name}.conf"
        # Whoever listens gets everything, however fast it comes.
        path.write_text(f"listener {port} {HOST}\nallow_anonymous true\nmax_queued_messages 0\nlog_type warning\n")
        self._start_broker(name, [find_mosquitto(), "-c", str(path)], port)

    def _start_broker(self, name: str, arguments: list[str], port: int) -> None:
        process = self._start(name, arguments)
        self._brokers.append(name)
        deadline = time.monotonic() + STOP_WITHIN
        while time.monotonic() < deadline and process.running:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return
            time.sleep(0.02)
        raise HushfleetError(f"the broker {name!r} did not start: {' '.join(process.last_lines)}")

    def broker_version(self) -> str:
        """Name and version of the broker that ran, by its own log."""
        found = re.search(r"mosquitto version [0-9.]+", (self.directory / "logs" / "broker.log").read_text())
        if found is None:
            raise HushfleetError("the broker's log does not say what it is")
        return found[0]

    def configure(self, name: str, text: str) -> Path:
        """Write a service's configuration file; its path."""
        path = self.directory / "configuration" / f"{name}.toml"
        path.write_text(text)
        return path

    def start_agent(self, name: str) -> Process:
        """Start a device's agent, for the first time or again."""
        return self.start(name, "agent", "run", self.directory / "configuration" / f"{name}.toml")

    def start_coordinator(self) -> Process:
        """Start the coordinator, for the first time or again."""
        return self.start("coordinator", "coordinator", "run", self.directory / "configuration" / "coordinator.toml")

    def stop(self) -> None:
        """End everything, the brokers last."""
        brokers = [self.processes.pop(name) for name in self._brokers]
        for group in ([*self.processes.values()], brokers):
            for process in group:
                process.stop()
            for process in group:
                process.wait()
        self.processes.clear()
        self._brokers.clear()

    def failed(self) -> list[Process]:
        """Services that ended by themselves with an error."""
        return [process for process in self.processes.values() if not process.running and process.wait() > 0]
