"""What a device remembers of its spending: exact without a crash, never too little after one."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.byte_ledger import LOST, ByteLedger
from edge_agent.byte_table import byte_table
from hushfleet.mqtt.topics import Topics
from hushfleet.mqtt.traffic import Lane

NOON = 1_800_014_400.0
"""2027-01-15."""
DAY = 86_400.0
CAP = 1_000_000


@pytest.fixture(autouse=True)
def universal_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def quiet(why: str) -> None:
    raise AssertionError(why)


def carry(lane: Lane, size: int) -> None:
    """A message of `size` bytes of payload with the plan's topic, in one TLS record."""
    topic = Topics(bytes(16)).plan().encode()
    rest = len(topic).to_bytes(2, "big") + topic + b"\0" + bytes(size)
    length = bytes([len(rest) & 0x7F | 0x80, len(rest) >> 7 & 0x7F | 0x80, len(rest) >> 14])
    lane.take(b"\x30" + length + rest)
    lane.line += 1 + len(length) + len(rest) + 22


def spent(ledger: ByteLedger, now: float = NOON) -> int:
    return sum(sum(map(sum, items.values())) for items in ledger.view(now)["today"].values())


def test_it_books_by_purpose_day_and_round_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "bytes.json"
    ledger, sent, received = ByteLedger(path, CAP, quiet), Lane(), Lane()
    carry(received, 1000)
    ledger.note(sent, received, NOON)
    ledger.end_round(7)
    looked = ledger.view(NOON)
    carry(received, 500)
    carry(sent, 200)
    ledger.note(sent, received, NOON)
    assert looked["today"]["plan"]["plan"] == [0, 1000], "what was shown has changed"
    ledger.end_round(8)
    ledger.close()
    again = ByteLedger(path, CAP, quiet)
    view = again.view(NOON)
    assert (view["day"], view["cap"], view["round"]) == ("2027-01-15", CAP, 8)
    assert view["today"]["plan"]["plan"] == [200, 1500]
    assert view["last_round"]["plan"]["plan"] == [200, 500]
    assert spent(again) == sent.line + received.line
    assert again.left(NOON) == CAP - sent.line - received.line
    shown = "\n".join(byte_table(view))
    assert [word for word in ("round 8", "1,000,000", "  topics", "  pings") if word not in shown] == ["  pings"]
    tomorrow = again.view(NOON + DAY)
    assert (tomorrow["day"], spent(again, NOON + DAY), tomorrow["round"]) == ("2027-01-16", 0, 8)
    assert again.left(NOON + DAY) == CAP
    assert again.left(NOON) == CAP - sent.line - received.line, "the clock went back, and what it spent is gone"


@given(
    cap=st.sampled_from([50_000, CAP]),
    lives=st.lists(st.tuples(st.lists(st.integers(0, 20_000), max_size=6), st.booleans()), max_size=6),
)
@settings(max_examples=30)
def test_no_number_of_crashes_gives_bytes_back(
    tmp_path_factory: pytest.TempPathFactory, cap: int, lives: list[tuple[list[int], bool]]
) -> None:
    path, total, crashes = tmp_path_factory.mktemp("ledger") / "bytes.json", 0, 0
    for sizes, crash in lives:
        ledger, sent, received = ByteLedger(path, cap, quiet), Lane(), Lane()
        ledger.note(sent, received, NOON)
        for size in sizes:
            before = sent.line
            carry(sent, size)
            total += sent.line - before
            ledger.note(sent, received, NOON)
        left = ledger.left(NOON)
        assert left is not None
        assert left <= max(0, cap - total)
        if not crash:
            ledger.close()
        crashes += crash
    after = ByteLedger(path, cap, quiet)
    assert total <= spent(after) <= total + crashes * max(4096, cap // 32)
    assert (LOST in after.view(NOON)["today"]) == (spent(after) > total)


def test_the_file_is_written_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    monkeypatch.setattr(os, "fsync", writes.append)
    ledger, sent, received = ByteLedger(tmp_path / "bytes.json", CAP, quiet), Lane(), Lane()
    while ledger.left(NOON):
        carry(sent, 500)
        ledger.note(sent, received, NOON)
    assert len(writes) <= 2 * 33
    assert (tmp_path / "bytes.json").stat().st_size < 2000


def test_days_and_rounds_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    ledger, sent, received = ByteLedger(tmp_path / "bytes.json", CAP, quiet), Lane(), Lane()
    for day in range(30):
        carry(sent, 10)
        ledger.note(sent, received, NOON + day * DAY)
        ledger.end_round(day)
    kept = json.loads((tmp_path / "bytes.json").read_bytes())
    assert [len(kept["days"]), [*kept["rounds"]]] == [7, [str(day) for day in range(23, 30)]]


def test_without_a_cap_nothing_is_lost_and_nothing_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "bytes.json"
    ledger, sent, received = ByteLedger(path, 0, quiet), Lane(), Lane()
    carry(sent, 10)
    ledger.note(sent, received, NOON)
    ledger.end_round(1)
    again = ByteLedger(path, 0, quiet)
    assert (again.left(NOON), spent(again)) == (None, sent.line)


def test_a_file_that_cannot_be_used_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "bytes.json"
    for content in ("{", "[]", "{}", '{"promised": 0, "days": {"2027-01-15": {"plan": 7}}, "rounds": {}, "open": {}}'):
        path.write_text(content)
        assert ByteLedger(path, CAP, told.append).left(NOON) == CAP
        assert "cannot read" in told.pop()
    ledger = ByteLedger(tmp_path / "nowhere" / "bytes.json", CAP, told.append)
    for round_number in range(3):
        ledger.end_round(round_number)
    assert ["cannot write" in why for why in told] == [True]
