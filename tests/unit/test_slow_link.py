"""The demo's slow line: it carries what it gets, slowly where it is to, and nothing more once it is cut."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hushfleet_demo.local_fleet import HOST
from hushfleet_demo.slow_link import SlowLink


class Listener:
    """What stands in the broker's place: keeps what it hears, and says it again."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = threading.Event()
        self._server = socket.create_server((HOST, 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with self._server, self._server.accept()[0] as connection:
            while data := connection.recv(4096):
                self.heard += data
                connection.sendall(data)
        self.ended.set()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def link(listener: Listener) -> Iterator[SlowLink]:
    link = SlowLink(listener.port)
    yield link
    link.close()


def test_it_carries_both_ways_whole(listener: Listener, link: SlowLink) -> None:
    with socket.create_connection((HOST, link.port), timeout=10) as device:
        device.sendall(b"there" * 1000)
        back = b""
        while len(back) < 5000:
            back += device.recv(4096)
    assert back == b"there" * 1000
    assert listener.ended.wait(10)


def test_of_what_is_under_way_only_the_beginning_arrives_once_it_is_cut(listener: Listener, link: SlowLink) -> None:
    link.rate = 1000.0
    with socket.create_connection((HOST, link.port), timeout=10) as device:
        device.sendall(bytes(20_000))
        deadline = time.monotonic() + 10
        while not listener.heard:
            assert time.monotonic() < deadline, "nothing arrived"
            time.sleep(0.01)
        link.cut()
        assert listener.ended.wait(10)
    assert 0 < len(listener.heard) < 20_000
    assert len(listener.heard) % 64 == 0


def test_after_a_cut_one_may_connect_again_and_after_its_end_not(link: SlowLink) -> None:
    with socket.create_connection((HOST, link.port), timeout=10) as device:
        device.sendall(b"?")
        assert device.recv(1) == b"?"
        link.cut()
        assert device.recv(1) == b""
    socket.create_connection((HOST, link.port), timeout=10).close()
    link.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, link.port), timeout=10)
