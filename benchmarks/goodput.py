"""How much of a radio link an upload gets, and what a cut costs: a real broker and link behind a modelled radio.

    python benchmarks/goodput.py [--classes 2g lte-m] [--json FILE]

An upload of 60 KB goes through the agent's own link (TLS 1.3, QoS 1, chunks and window of the class) and a relay that
keeps the class's rate, latency and jitter, to a real Mosquitto. Goodput is the share of the uplink's rate that the
upload's own bytes took, from the first message until the last byte had left; `seconds` counts to the last
acknowledgement. The second run of a class is torn every eight seconds of air time; counted is what went up beyond the
first run. Links faster than 20 kbit/s run slower than their models by just that factor, round trips included, so that
the delays of the machine itself do not count; times are those of the model.
"""

import argparse
import getpass
import json
import queue
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nacl.utils import random

from broker.directory import FleetDirectory
from broker.local import HOST, LocalBroker, free_port
from broker.render import access_list, configuration
from fleet.desk import Desk
from hushfleet.mqtt.events import Connected, Delivered, LinkEvent, LinkSettings
from hushfleet.mqtt.link import Link
from hushfleet.mqtt.topics import Topics
from hushfleet.wire.documents import MEMBER, PARTICIPANT

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from links import CLASSES, RadioLink, every, never

UPLOAD = 61_440
"""Bytes."""
WINDOWS = {"2g": (2048, 4), "nb-iot": (4096, 4), "lte-m": (4096, 4), "wifi": (4096, 4), "satellite": (4096, 4)}
"""Chunk in bytes, and chunks under way."""
RATE = 20_000
"""bit/s at which a link is run, at most."""
CUT_EVERY = 8.0
"""Seconds of the uplink's air time."""
PATIENCE = 300.0


class Site:
    """A fleet of the owners' desk with its broker, and a coordinator that listens, so that uploads are received."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        now = int(time.time())
        desk = Desk.create(home, hosts=[HOST], port=self.port, settings=None, draw=random, now=now)
        desk.add([f"m{number}" for number in range(5)], MEMBER, "gateway-wifi", draw=random, now=now)
        desk.add([f"p{number}" for number in range(7)], PARTICIPANT, "gateway-wifi", draw=random, now=now)
        desk.sign(draw=random, now=now)
        fleet = FleetDirectory.load(home)
        self.topics: Topics = fleet.topics
        settings = fleet.configuration(home, self.port, HOST, getpass.getuser())
        settings.access_list.write_text(access_list(fleet.access()))
        self.broker = LocalBroker(home, self.port, configuration(settings))

    def settings(self, name: str, index: int, port: int, window: int) -> LinkSettings:
        """How this device connects, straight or through a radio link."""
        bundle = self.home / "devices" / name
        return LinkSettings(
            HOST, port, bundle / "ca.pem", bundle / "tls.pem", bundle / "tls.key", str(index), 300, window
        )


def upload(site: Site, name: str, *, torn: bool) -> dict[str, Any]:
    """One upload over a link of this class."""
    chunk, window = WINDOWS[name]
    speed = min(1.0, RATE / CLASSES[name].up)
    radio_class, cuts = CLASSES[name].scaled(speed), every(CUT_EVERY / speed) if torn else never()
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    pieces = [random(min(chunk, UPLOAD - start)) for start in range(0, UPLOAD, chunk)]
    index = 6
    with RadioLink(radio_class, site.port, cuts=cuts) as radio:
        link = Link(site.settings("p0", index, radio.port, window), events.put)
        link.start()
        try:
            _await(events, Connected, 1)
            before, began = radio.up.bytes, time.monotonic()
            for number, piece in enumerate(pieces, start=1):
                link.publish(site.topics.up(0, index, "upload", 1, number), piece)
            _await(events, Delivered, len(pieces))
            seconds, on_air = time.monotonic() - began, radio.up.free - began
            return {
                "link": name,
                "chunk": chunk,
                "window": window,
                "uploaded": UPLOAD,
                "bytes_up": radio.up.bytes - before,
                "seconds": round(seconds * speed, 2),
                "goodput": round(UPLOAD * 8 / on_air / radio_class.up, 3),
                "cuts": radio.cuts,
            }
        finally:
            link.stop(timeout=5.0)


def _await(events: "queue.SimpleQueue[LinkEvent]", kind: type[LinkEvent], number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while number:
        number -= isinstance(events.get(timeout=deadline - time.monotonic()), kind)


def measure(names: list[str]) -> list[dict[str, Any]]:
    """Each class whole and torn."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory) / "fleet")
        listener = Link(site.settings("coordinator", 0, site.port, 32), lambda _: None)
        with site.broker:
            listener.subscribe(site.topics.ups(0))
            listener.start()
            try:
                for name in names:
                    whole = upload(site, name, torn=False)
                    torn = upload(site, name, torn=True)
                    again = (torn["bytes_up"] - whole["bytes_up"]) / torn["cuts"] if torn["cuts"] else None
                    rows.append(
                        whole | {"cuts": torn["cuts"], "bytes_per_cut": again, "seconds_with_cuts": torn["seconds"]}
                    )
                    print(json.dumps(rows[-1]), flush=True)
            finally:
                listener.stop()
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.classes)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
