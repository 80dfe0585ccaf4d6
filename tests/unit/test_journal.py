"""What a service says: one line an event, for people and for machines."""

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from hushfleet.journal import FEW, LONGEST, PERIOD, SENDERS, Journal


def line(style: str, **fields: object) -> str:
    stream = io.StringIO()
    Journal("json" if style == "json" else "text", stream, lambda: 0.0).write("round", **fields)
    assert stream.getvalue().count("\n") == 1
    return stream.getvalue().strip()


def test_a_line_for_people_shows_values_as_people_write_them() -> None:
    shown = line(
        "text", round=7, why=None, members=[1, 2], recovered=[], outcomes={"applied": 3, "void": 1}, loss=0.123456
    )
    assert shown.endswith(' round round=7 members=1,2 recovered=- outcomes="applied 3, void 1" loss=0.1235')


def test_a_line_for_machines_is_one_object_and_keeps_every_value() -> None:
    told = json.loads(line("json", round=7, why=None, members=[1, 2], text="two\nlines"))
    assert told == {"time": 0.0, "event": "round", "round": 7, "members": [1, 2], "text": "two\nlines"}


def test_a_text_with_a_line_end_stays_on_its_line() -> None:
    assert line("text", text="two\nlines").endswith('text="two\\nlines"')


class Heard:
    """A journal whose clock the test turns, and what it wrote."""

    def __init__(self) -> None:
        self.now, self._stream = 0.0, io.StringIO()
        self.journal = Journal("json", self._stream, lambda: self.now)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(text) for text in self._stream.getvalue().splitlines()]

    def refused(self, topic: str, why: str, sender: str = "up/7") -> None:
        self.journal.hear("refused", sender, topic=topic, why=why)


def test_a_lost_header_costs_a_line_and_a_number_however_many_chunks_come() -> None:
    heard = Heard()
    for chunk in range(1, 400):
        heard.refused(f"up/0/7/upload/5/{chunk}", f"chunk {chunk} came without its header")
    (line,) = heard.lines
    assert line["why"] == "chunk 1 came without its header"
    heard.refused("up/0/7/upload/6/1", "chunk 1 came without its header")
    heard.refused("up/0/7/upload/6/2", "chunk 2 does not have the hash that the header gives it")
    assert [line["topic"] for line in heard.lines[1:]] == ["up/0/7/upload/6/1", "up/0/7/upload/6/2"]
    heard.now = PERIOD - 1
    heard.journal.write("round", round=6)
    assert len(heard.lines) == 4
    heard.now = PERIOD
    heard.journal.write("round", round=7)
    folded = heard.lines[4]
    assert (folded["event"], folded["sender"], folded["count"]) == ("folded", "up/7", {"refused": 398})
    heard.refused("up/0/7/upload/5/1", "chunk 1 came without its header")
    assert heard.lines[-1]["event"] == "refused", "a new period begins"


def test_one_sender_folds_nothing_of_anothers() -> None:
    heard = Heard()
    for _ in range(3):
        heard.refused("up/0/7/upload/5/1", "a slice too many")
    heard.refused("up/0/8/upload/5/1", "a slice too many", "up/8")
    assert [line["topic"] for line in heard.lines] == ["up/0/7/upload/5/1", "up/0/8/upload/5/1"]


def test_a_close_writes_what_was_folded_and_nothing_twice() -> None:
    heard = Heard()
    for _ in range(3):
        heard.refused("plan", "not signed")
    heard.journal.close()
    heard.journal.close()
    assert [line["event"] for line in heard.lines] == ["refused", "folded"]


@given(st.data())
def test_the_volume_is_bounded_by_time_whatever_is_sent(data: st.DataObject) -> None:
    heard, periods = Heard(), data.draw(st.integers(1, 3))
    text = st.text(max_size=2000)
    for period in range(periods):
        heard.now = period * PERIOD
        noise = data.draw(st.lists(st.tuples(text, text), min_size=1, max_size=10))
        for number in range(100):
            topic, why = noise[number % len(noise)]
            heard.refused(f"{topic}/{number}/x", f"{why}{'x' * number}")
    heard.journal.close()
    assert len(heard.lines) <= periods * (FEW + 1)
    assert all(len(str(value)) <= LONGEST + 1 for line in heard.lines for value in line.values())
    refused = sum(line["event"] == "refused" for line in heard.lines)
    folded = sum(line["count"]["refused"] for line in heard.lines if line["event"] == "folded")  # type: ignore[index]
    assert refused + folded == 100 * periods


def test_invented_senders_are_one_beyond_a_number() -> None:
    heard = Heard()
    for device in range(SENDERS + 500):
        heard.refused(f"up/0/{device}/upload/1/0", "not certified", f"up/{device}")
    assert len(heard.lines) <= SENDERS + FEW
