"""A role as a process: who looks at the role, and what is said when its store fails."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from hushfleet import service
from hushfleet.errors import StorageError
from hushfleet.journal import Journal
from hushfleet.mqtt.events import LinkSettings
from hushfleet.scratch import ScratchStore
from hushfleet.service import Service, read_status


class QuietLink:
    """A link without a broker."""

    bytes_sent = bytes_received = 0

    def __init__(self, settings: LinkSettings, events: object, watch: object) -> None:
        self.settings = settings

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        pass


class Role:
    """Nothing but what a service asks of every role."""

    def __init__(self) -> None:
        self.refusals = Counter(card=2)

    def on_wake(self, now: float) -> list[Any]:
        return []


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(service, "Link", QuietLink)
    monkeypatch.setattr(service, "STATUS_EVERY", 0.01)
    monkeypatch.setattr(service, "expiring", lambda files, now: [])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def make(directory: Path, describe: Any, journal: StringIO) -> Service:
    settings = LinkSettings("127.0.0.1", 1, directory, directory, directory, "1")
    return Service(
        Role,
        ScratchStore(),
        settings,
        Journal("json", journal),
        lambda action: None,
        lambda message: lambda role, now: [],
        directory / "status.json",
        describe,
    )


def test_a_role_is_looked_at_on_its_own_thread_alone(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    def describe(role: Role) -> dict[str, object]:
        threads.append(threading.current_thread())
        if len(threads) == 5:
            running.runner.stop()
        return {"looks": len(threads)}

    journal = StringIO()
    running = make(tmp_path, describe, journal)
    running.run(lambda role, now: [], b"online")
    assert set(threads) == {threading.current_thread()}
    status = read_status(tmp_path / "status.json")
    assert (status["running"], status["looks"], status["refusals"]) == (False, len(threads), {"card": 2})
    stopped = json.loads(journal.getvalue().splitlines()[-1])
    assert (stopped["event"], stopped["looks"], stopped["refused"]) == ("stopped", len(threads), 2)


def test_a_status_that_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    status, written = tmp_path / "status.json", list[int]()

    def describe(role: Role) -> dict[str, object]:
        if status.exists() and "second" in status.read_text():
            written.append(status.stat().st_mtime_ns)
        if len(written) == 10:
            running.runner.stop()
        return {"second": len(written) >= 5}

    running = make(tmp_path, describe, StringIO())
    running.run(lambda role, now: [], b"online")
    assert len(written) >= 10
    assert len(set(written)) == 2
    assert read_status(status)["second"] is True


def test_a_store_that_fails_is_what_is_said_though_the_role_is_half_changed(tmp_path: Path) -> None:
    def describe(role: Role) -> dict[str, object]:
        raise AttributeError("half changed")

    def start(role: Role, now: float) -> list[Any]:
        raise StorageError("the disk refuses")

    with pytest.raises(StorageError, match="the disk refuses"):
        make(tmp_path, describe, StringIO()).run(start, b"online")
    assert read_status(tmp_path / "status.json")["running"] is False
