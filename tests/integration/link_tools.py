"""What the link's tests share: a fleet's broker, a log of events, a cable that can fail, a peer that is no good."""

import getpass
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

from broker.local import HOST, LocalBroker, free_port
from broker.render import Access, Configuration, access_list, configuration
from fleet.transport import Authority, create_authority, issue_broker, issue_client, write_file, write_key_pair
from hushfleet.mqtt.events import LinkEvent, LinkSettings
from hushfleet.mqtt.link import Link
from hushfleet.mqtt.topics import Topics

DEADLINE = 20.0
TOPICS = Topics(bytes(16))
COORDINATOR, DEVICE, OTHER = 1, 7, 8

Kind = TypeVar("Kind")


class Site:
    """A fleet's directory with its authority, the certificates of three clients, and a broker's configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority: Authority = create_authority("test")
        self.ca = directory / "ca.pem"
        write_file(self.ca, self.authority.certificate_pem, mode=0o644)
        write_key_pair(directory, "broker", issue_broker(self.authority, ["localhost"]))
        for index in (COORDINATOR, DEVICE, OTHER):
            write_key_pair(directory, str(index), issue_client(self.authority, str(index)))
        self.access_list = directory / "acl"
        self.access_list.write_text(access_list(Access(TOPICS.fleet, COORDINATOR, (DEVICE,))))

    def broker(
        self, directory: Path, *, access_list: Path | None = None, revocation_list: Path | None = None
    ) -> LocalBroker:
        port = free_port()
        text = configuration(
            Configuration(
                port=port,
                address=HOST,
                directory=directory,
                access_list=access_list or self.access_list,
                authority=self.ca,
                certificate=self.directory / "broker.pem",
                key=self.directory / "broker.key",
                revocation_list=revocation_list,
                system_user=getpass.getuser(),
                memory=2**30,
            )
        )
        return LocalBroker(directory, port, text)

    def settings(self, index: int, port: int, **changes: object) -> LinkSettings:
        values: dict[str, object] = {
            "host": "localhost",
            "port": port,
            "ca": self.ca,
            "certificate": self.directory / f"{index}.pem",
            "key": self.directory / f"{index}.key",
            "client_id": str(index),
            "reconnect_min": 0.02,
            "reconnect_max": 0.2,
            "connect_timeout": 5.0,
        }
        return LinkSettings(**(values | changes))  # type: ignore[arg-type]


class Recorder:
    """Receives a link's events and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[LinkEvent] = []
        self._queue: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()

    def __call__(self, event: LinkEvent) -> None:
        self._queue.put(event)

    def wait(self, kind: type[Kind], wanted: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """The next event of this kind for which `wanted` is true; those before it are in `seen`."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                event = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind.__name__} within {DEADLINE:g} s; seen: {self.seen[-20:]}") from None
            self.seen.append(event)
            if isinstance(event, kind) and wanted(event):
                return event

    def drain(self) -> list[LinkEvent]:
        """Everything seen and received so far."""
        with suppress(queue.Empty):
            while True:
                self.seen.append(self._queue.get_nowait())
        return self.seen

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.drain() if isinstance(event, kind)]


@contextmanager
def linked(settings: LinkSettings) -> Iterator[tuple[Link, Recorder]]:
    """A started link and its events; stopped in the end."""
    recorder = Recorder()
    link = Link(settings, recorder)
    link.start()
    try:
        yield link, recorder
    finally:
        link.stop(timeout=2.0)


def eventually(condition: Callable[[], bool]) -> None:
    """Poll until the condition holds; it must do so before the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)


class Cable:
    """A TCP relay to a port of this machine that can be cut, and can go silent while its connections stay open."""

    def __init__(self, target: int) -> None:
        self.bytes_up = self.bytes_down = 0
        self.connections = 0
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._conducts = threading.Event()
        self._conducts.set()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._conducts.set()
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Every connection is torn at once, on both sides."""
        with self._lock:
            torn, self._sockets = self._sockets, []
        for end in torn:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def go_silent(self) -> None:
        """Nothing passes any more, in either direction; new connections are accepted and stay silent."""
        self._conducts.clear()

    def recover(self) -> None:
        """Silent connections are torn, new ones work."""
        self.cut()
        self._conducts.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                try:
                    far = socket.create_connection((HOST, self._target))
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._sockets += [near, far]
                threading.Thread(target=self._relay, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._relay, args=(far, near, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, upward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._conducts.wait()
                if upward:
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Peer:
    """A TLS server with the broker's certificate that says what it is told, whatever it hears."""

    def __init__(self, site: Site, *words: bytes, certificate: Path | None = None, key: Path | None = None) -> None:
        self._words = words
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(
            certificate or site.directory / "broker.pem", key or site.directory / "broker.key"
        )
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(near,), daemon=True).start()

    def _talk(self, near: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(near, server_side=True) as connection:
            connection.recv(65_536)
            for word in self._words:
                connection.sendall(word)
            while connection.recv(65_536):
                pass
