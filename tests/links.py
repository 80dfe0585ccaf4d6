"""A radio link in front of a broker: rate, latency, jitter, stalls, blackholes and cuts, in user space.

    with RadioLink(CLASSES["2g"], broker_port, cuts=every(8.0)) as link:
        ... connect to link.port instead of the broker's ...
        link.up.bytes, link.cuts

A relay on the stream of bytes: no packet is lost and sent again, as TCP would have it done long before we read it. Cuts
and stalls stand at moments of the uplink's own clock, the seconds that it has been sending: a moment is a position in
the bytes, the same in every run, however busy the machine is. `scaled` runs a class faster than its model.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Self

SEGMENT = 1360
"""Bytes of a TCP segment on a radio link."""
HEADERS = (SEGMENT + 40) / SEGMENT
"""What IP and TCP add to it. Small segments cost their share of it, so that the clock depends on the bytes alone."""
HOST = "127.0.0.1"
_BUFFER = 16_384
"""Bytes that the kernel may hold on either side: what it holds is neither sent nor known to be lost."""


@dataclass(frozen=True, slots=True)
class LinkClass:
    """What carries the packets.

    Attributes:
        up, down: bit/s, TCP and IP headers included.
        trip: seconds one way.
        jitter: seconds that a segment may take longer, drawn uniformly; order is kept.
    """

    up: float
    down: float
    trip: float
    jitter: float = 0.0

    def scaled(self, speed: float) -> "LinkClass":
        """The same link in a world that runs `speed` times faster."""
        return LinkClass(self.up * speed, self.down * speed, self.trip / speed, self.jitter / speed)


CLASSES = {
    # Rates and round trips of the first three are those that the messaging defaults were measured with.
    "2g": LinkClass(50_000, 50_000, 0.3, 0.05),
    "nb-iot": LinkClass(20_000, 27_000, 0.8, 0.2),
    "lte-m": LinkClass(300_000, 300_000, 0.05, 0.01),
    # Guesses: a weak indoor access point; a geostationary terminal.
    "wifi": LinkClass(5_000_000, 5_000_000, 0.005, 0.01),
    "satellite": LinkClass(64_000, 128_000, 0.6, 0.05),
}


def every(seconds: float) -> Iterator[float]:
    """Moments at equal distances."""
    return (seconds * number for number in count(1))


def seeded(seed: object, mean: float) -> Iterator[float]:
    """Moments at exponential distances with this mean; the same for the same seed."""
    chance, moment = random.Random(repr(seed)), 0.0
    while True:
        moment += chance.expovariate(1 / mean)
        yield moment


def never() -> Iterator[float]:
    """No moment."""
    return iter(())


@dataclass(slots=True)
class Lane:
    """One direction: when what is sent now arrives. No I/O, no clock.

    Attributes:
        rate: bit/s.
        bytes: carried so far, headers not counted.
    """

    rate: float
    trip: float
    jitter: float
    chance: random.Random
    bytes: int = 0
    _free: float = 0.0
    _arrived: float = 0.0

    def cost(self, size: int) -> float:
        """Seconds that so many bytes occupy the lane."""
        return size * HEADERS * 8 / self.rate

    @property
    def busy(self) -> float:
        """Seconds that it has been sending, over all connections: its own clock."""
        return self.cost(self.bytes)

    def position(self, moment: float) -> int:
        """The bytes that have left at a moment of its own clock."""
        return int(moment * self.rate / 8 / HEADERS)

    def send(self, size: int, now: float) -> float:
        """Occupy the lane with a segment; when it is at the other end."""
        self._free = max(self._free, now) + self.cost(size)
        self.bytes += size
        self._arrived = max(self._arrived, self._free + self.trip + self.chance.uniform(0, self.jitter))
        return self._arrived

    def stall(self, seconds: float, now: float) -> None:
        """Nothing leaves for so long."""
        self._free = max(self._free, now) + seconds

    @property
    def free(self) -> float:
        """When the last segment has left and the next one may, by `time.monotonic`."""
        return self._free


@dataclass(eq=False, slots=True)
class _Connection:
    near: socket.socket
    far: socket.socket
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)


class RadioLink:
    """A listener on this machine whose connections lead to a port over a link of that class.

    Args:
        link: the class.
        target: TCP port of this machine.
        seed: of the jitter.
        cuts: moments of the uplink's clock at which the connection is torn on both sides.
        stalls: moments at which both directions stand still for `stall` seconds.
        stall: seconds.
    """

    def __init__(
        self,
        link: LinkClass,
        target: int,
        *,
        seed: object = 0,
        cuts: Iterator[float] | None = None,
        stalls: Iterator[float] | None = None,
        stall: float = 0.0,
    ) -> None:
        chance = random.Random(repr(("jitter", seed)))
        self.up = Lane(link.up, link.trip, link.jitter, chance)
        self.down = Lane(link.down, link.trip, link.jitter, chance)
        self.cuts, self.connections = 0, 0
        self.cut_at: list[int] = []
        self._trip, self._target, self._stall = link.trip, target, stall
        self._cuts, self._stalls = cuts or never(), stalls or never()
        self._next_cut, self._next_stall = next(self._cuts, None), next(self._stalls, None)
        self._open: set[_Connection] = set()
        self._dark = False
        self._listener = socket.create_server((HOST, 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="radio link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._accept(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # From any thread.

    def cut(self) -> None:
        """Tear every connection now, on both sides."""
        self._loop.call_soon_threadsafe(self._tear_all)

    def go_dark(self) -> None:
        """A blackhole: what is sent disappears, connections stay open, new ones are not answered."""
        self._loop.call_soon_threadsafe(setattr, self, "_dark", True)

    def recover(self) -> None:
        """Light again: what was open is torn, new connections work."""

        def back() -> None:
            self._tear_all()
            self._dark = False

        self._loop.call_soon_threadsafe(back)

    # On the link's own thread.

    async def _accept(self) -> None:
        while True:
            near, _ = await self._loop.sock_accept(self._listener)
            self._keep(self._loop.create_task(self._connect(near)))

    def _keep(self, task: "asyncio.Task[None]") -> None:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _connect(self, near: socket.socket) -> None:
        """A connection takes a round trip before its first byte."""
        await asyncio.sleep(2 * self._trip)
        while self._dark:
            await asyncio.sleep(0.02)
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.sock_connect(far, (HOST, self._target))
        except OSError:
            _tear(near)
            far.close()
            return
        self.connections += 1
        connection = _Connection(near, far)
        self._open.add(connection)
        for source, sink, lane in ((near, far, self.up), (far, near, self.down)):
            task = self._loop.create_task(self._carry(connection, source, sink, lane))
            connection.tasks.append(task)
            self._keep(task)

    async def _carry(self, connection: _Connection, source: socket.socket, sink: socket.socket, lane: Lane) -> None:
        arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = self._loop.create_task(self._deliver(connection, arriving, sink))
        connection.tasks.append(delivery)
        self._keep(delivery)
        with suppress(OSError):
            while data := await self._loop.sock_recv(source, SEGMENT):
                # The sender is held up as long as the lane is busy: nothing waits here but what is in the air.
                await self._until(lane.free)
                if self._dark:
                    continue
                if lane is self.up and (part := self._before_cut(lane, len(data))) is not None:
                    await self._send(lane, data[:part], arriving)
                    await self._until(lane.free)
                    self.cuts += 1
                    self.cut_at.append(lane.bytes)
                    self._tear_all()
                    return
                await self._send(lane, data, arriving)
        arriving.put_nowait((self._loop.time(), b""))

    async def _send(self, lane: Lane, data: bytes, arriving: "asyncio.Queue[tuple[float, bytes]]") -> None:
        if self._next_stall is not None and lane is self.up and lane.busy >= self._next_stall:
            self._next_stall = next(self._stalls, None)
            for both in (self.up, self.down):
                both.stall(self._stall, self._loop.time())
        if data:
            arriving.put_nowait((lane.send(len(data), self._loop.time()), data))

    def _before_cut(self, lane: Lane, size: int) -> int | None:
        """How much of a segment still leaves before the next cut; None if all of it does."""
        if self._next_cut is None or lane.bytes + size < lane.position(self._next_cut):
            return None
        part = max(0, lane.position(self._next_cut) - lane.bytes)
        self._next_cut = next(self._cuts, None)
        return part

    async def _deliver(
        self, connection: _Connection, arriving: "asyncio.Queue[tuple[float, bytes]]", sink: socket.socket
    ) -> None:
        with suppress(OSError):
            while True:
                at, data = await arriving.get()
                await self._until(at)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                await self._loop.sock_sendall(sink, data)

    async def _until(self, moment: float) -> None:
        if (left := moment - self._loop.time()) > 0:
            await asyncio.sleep(left)

    def _tear_all(self) -> None:
        torn, self._open = self._open, set()
        for connection in torn:
            for task in connection.tasks:
                task.cancel()
            _tear(connection.near)
            _tear(connection.far)

    async def _shut(self) -> None:
        self._tear_all()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        self._listener.close()


def _tear(end: socket.socket) -> None:
    """Without a farewell, as a modem that loses its cell."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
