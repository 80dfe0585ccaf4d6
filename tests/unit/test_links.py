"""The radio links of other tests: as fast, as late and as broken as they say, and broken at the same place again."""

import random
import socket
import threading
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from links import CLASSES, HEADERS, HOST, Lane, LinkClass, RadioLink, every, seeded

DEADLINE = 30.0
FAST = LinkClass(50_000_000, 50_000_000, 0.001)


class Sink:
    """A server that keeps what it gets on each connection, and answers with how much that is when it ends."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            self.received.append(bytearray())
            with end:
                try:
                    while data := end.recv(65_536):
                        self.received[-1] += data
                    end.sendall(len(self.received[-1]).to_bytes(4, "big"))
                except OSError:
                    pass
            self.ended.release()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


def pour(port: int, data: bytes, size: int) -> bytes:
    """Send it in writes of this size, and end; the answer, or nothing if the connection was torn."""
    with socket.create_connection((HOST, port), timeout=DEADLINE) as end:
        try:
            for start in range(0, len(data), size):
                end.sendall(data[start : start + size])
            end.shutdown(socket.SHUT_WR)
            return end.recv(4)
        except OSError:
            return b""


@pytest.mark.parametrize("name", CLASSES)
@given(sizes=st.lists(st.integers(1, 1360), min_size=50, max_size=200), gap=st.floats(0, 0.001))
def test_a_lane_carries_what_its_rate_allows_and_no_more(name: str, sizes: list[int], gap: float) -> None:
    link = CLASSES[name]
    lane = Lane(link.up, link.trip, link.jitter, random.Random(0))
    arrivals = [lane.send(size, number * gap * sizes[0] / link.up) for number, size in enumerate(sizes)]
    assert arrivals == sorted(arrivals)
    carried = arrivals[-1] - link.trip
    least = sum(sizes) * HEADERS * 8 / link.up
    assert 0.999 * least <= carried <= 1.001 * least + link.jitter
    assert lane.busy == pytest.approx(least)


def test_an_idle_lane_takes_a_trip_and_a_stall_takes_its_time() -> None:
    lane = Lane(50_000, 0.3, 0.0, random.Random(0))
    assert lane.send(1000, 10.0) == pytest.approx(10.3 + lane.cost(1000))
    lane.stall(5.0, 20.0)
    assert lane.send(1000, 21.0) == pytest.approx(25.3 + lane.cost(1000))


def test_everything_arrives_in_order_both_ways(sink: Sink) -> None:
    data = random.Random(1).randbytes(200_000)
    with RadioLink(FAST, sink.port) as link:
        assert int.from_bytes(pour(link.port, data, 5000), "big") == len(data)
        assert sink.received == [bytearray(data)]
        assert (link.up.bytes, link.down.bytes, link.connections, link.cuts) == (len(data), 4, 1, 0)


def test_cuts_stand_at_the_same_bytes_however_they_are_written(sink: Sink) -> None:
    data, moments = random.Random(2).randbytes(30_000), [0.001, 0.0025, 0.006]
    places: list[list[int]] = []
    for size in (700, 5000):
        with RadioLink(FAST, sink.port, cuts=iter(moments)) as link:
            while link.cuts < len(moments):
                pour(link.port, data, size)
            assert int.from_bytes(pour(link.port, data, size), "big") == len(data), "after the last cut it holds"
            places.append(link.cut_at)
    lane = Lane(FAST.up, FAST.trip, 0.0, random.Random(0))
    assert places == [[lane.position(moment) for moment in moments]] * 2


def test_a_cut_loses_what_is_in_the_air(sink: Sink) -> None:
    slow = LinkClass(50_000_000, 50_000_000, 0.2)
    with RadioLink(slow, sink.port, cuts=iter([0.001])) as link:
        assert pour(link.port, bytes(30_000), 1000) == b""
        assert sink.ended.acquire(timeout=DEADLINE)
        assert len(sink.received[0]) < link.cut_at[0] == link.up.position(0.001)


def test_seeded_moments_are_the_same_again() -> None:
    first, second, other = (list(islice(seeded(seed, 8.0), 1000)) for seed in (3, 3, 4))
    assert first == second != other
    assert first == sorted(first)
    assert first[-1] / 1000 == pytest.approx(8.0, rel=0.1)
    assert list(islice(every(8.0), 3)) == [8.0, 16.0, 24.0]


def test_a_blackhole_swallows_and_a_recovered_link_works_again(sink: Sink) -> None:
    with RadioLink(FAST, sink.port) as link:
        with socket.create_connection((HOST, link.port), timeout=DEADLINE) as end:
            end.sendall(b"before")
            while not sink.received or sink.received[0] != b"before":
                assert link.connections <= 1
            link.go_dark()
            end.sendall(b"lost")
            end.settimeout(0.2)
            with pytest.raises(TimeoutError):
                end.recv(1)
            link.recover()
            end.settimeout(DEADLINE)
            with pytest.raises(OSError, match="reset"):
                end.recv(1)
        assert sink.received[0] == b"before"
        assert int.from_bytes(pour(link.port, b"after", 5), "big") == 5


def test_nobody_behind_the_link_is_a_torn_connection() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    with RadioLink(FAST, port) as link:
        assert pour(link.port, bytes(100), 100) == b""


def test_a_scaled_class_is_the_same_link_in_a_faster_world() -> None:
    slow = CLASSES["2g"]
    fast = slow.scaled(20)
    assert fast.up * fast.trip == slow.up * slow.trip
    assert fast.up == 20 * slow.up
