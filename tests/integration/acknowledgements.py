"""A real fleet under strace until so many acknowledgements have left, each after the sync of what it promises.

    make soak ACKS=100000

Coordinator and agents are whole and real, over a real Mosquitto with TLS; marked_service.py lets them mark what they
decide and what they hand to the socket. Counted is what depended on records: the broker's messages acknowledged, and
receipts, mask sums, shares, uploads and whatever else was published.
"""

import argparse
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "durability"))

import marked_service
from fleet_fixture import COORDINATOR, Fleet
from order import TRACE, Order

ROUNDS = {"steps": 1, "collect": 60}
PROGRESS_EVERY = 30.0
"""Seconds."""


class TracedFleet(Fleet):
    """Every service under strace; its trace is read while it is written.

    Attributes:
        orders: of each start in turn, which service it was and what came of its trace.
        planted: options of marked_service.py for a service.
        failing: from which sync on the disk of a service fails, counted from its start.
    """

    def __init__(self, directory: Path) -> None:
        # A member is examined in every round, so that shares are given in every round.
        super().__init__(directory, policy={"audit_rate": 1.0}, rounds=ROUNDS)
        self.orders: list[tuple[str, Order]] = []
        self.planted: dict[str, list[str]] = {}
        self.failing: dict[str, int] = {}
        self._readers: list[threading.Thread] = []

    def command(self, name: str) -> list[str | Path]:
        """As of the base class, in the hands of strace. The service keeps its process number."""
        marks, trace = self.directory / f"marks-{name}", self.directory / f"trace-{name}-{len(self.orders)}"
        os.mkfifo(trace)
        order = Order(f"{self.store_path(name)}-wal", str(marks))
        self.orders.append((name, order))
        self._readers.append(threading.Thread(target=_read, args=(trace, order), daemon=True))
        self._readers[-1].start()
        fault = ["-e", f"inject=fdatasync,fsync:error=EIO:when={self.failing[name]}+"] if name in self.failing else []
        python, _, _, *arguments = super().command(name)
        marked = [python, marked_service.__file__, marks, *self.planted.get(name, []), *arguments]
        return ["strace", "-D", *TRACE, *fault, "-o", trace, *marked]

    def left(self) -> Counter[str]:
        """What has left so far that depended on records, by kind."""
        return sum((Counter(order.left) for _, order in self.orders), Counter())

    def too_early(self) -> list[str]:
        """What of it left too early, by whom."""
        return [f"{kind} {key} of {name}" for name, order in self.orders for kind, key in order.early]

    def await_traces(self) -> None:
        """Return when the traces of ended services have been read to their ends."""
        for reader in self._readers:
            reader.join(30)
            assert not reader.is_alive(), "a trace has no end"


def _read(trace: Path, order: Order) -> None:
    with trace.open(errors="replace") as lines:
        for line in lines:
            order.feed(line.rstrip("\n"))


def run(directory: Path, acknowledgements: int) -> TracedFleet:
    """A fleet from its beginning until so many acknowledgements have left, and its orderly end."""
    began = told = time.monotonic()
    with TracedFleet(directory) as fleet:
        fleet.broker.start()
        fleet.start(*fleet.everyone)
        while (count := fleet.left().total()) < acknowledgements:
            mark = fleet.mark()
            fleet.wait_for(COORDINATOR, "round", mark, deadline=110)
            fleet.take()
            if time.monotonic() - told > PROGRESS_EVERY:
                told = time.monotonic()
                early = fleet.too_early()
                print(f"{count} left, {len(early)} too early {early[:10] or ''}, {told - began:.0f} s", flush=True)
        assert set(fleet.stop(*fleet.everyone)) == {0}
        fleet.await_traces()
        return fleet


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acknowledgements", type=int, default=100_000)
    arguments = parser.parse_args()
    began = time.monotonic()
    with TemporaryDirectory(prefix="hushfleet-order-") as directory:
        fleet = run(Path(directory), arguments.acknowledgements)
    left, early = fleet.left(), fleet.too_early()
    minutes, syncs = (time.monotonic() - began) / 60, sum(order.syncs for _, order in fleet.orders)
    print(f"{left.total()} left in {minutes:.1f} minutes, with {syncs} syncs of logs: {dict(left.most_common())}")
    print(f"{len(early)} of them too early {early[:10] or ''}")
    return 1 if early else 0


if __name__ == "__main__":
    sys.exit(main())
