"""What a service says: one line an event, for people and for machines."""

import io
import json

from hushfleet.journal import Journal


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
