"""Payloads from outside: JSON, pointers, times, topics; and whatever is hostile among them is refused."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.payloads import (
    DEEPEST_VALUE,
    LARGEST_PAYLOAD,
    LONGEST_TEXT,
    MOST_VALUES,
    at,
    check_filter,
    check_pointer,
    escape,
    leaves,
    matches,
    moment,
    parse,
    parse_json,
    values,
)
from hushfleet.errors import MalformedError

SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


@given(DOCUMENTS)
def test_every_leaf_stands_where_its_pointer_says(document: Any) -> None:
    try:
        found = list(leaves(document))
    except MalformedError:
        return
    for pointer, value in found:
        assert check_pointer(pointer) is None
        assert at(document, pointer) is value


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/nothing", None),
        ("/foo/2", None),
        ("/foo/01", None),
        ("/foo/-", None),
        ("/foo/99999999999999999999", None),
    ],
)
def test_the_pointers_of_rfc_6901(pointer: str, value: object) -> None:
    document = json.loads(
        r'{"foo": ["bar", "baz"], "": 0, '
        r'"a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}'
    )
    assert at(document, pointer) == value


@given(st.text())
def test_an_escaped_key_is_one_token(key: str) -> None:
    for name in (key, f"~1{key}", f"~0{key}"):
        assert at({name: 1}, f"/{escape(name)}") == 1


def test_what_is_no_pointer_is_told() -> None:
    assert check_pointer("a/b") == "begin it with /, or leave it empty for the whole payload"
    assert check_pointer("/a~2") == "write ~ as ~0 and / inside a key as ~1"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"NaN", "not finite"),
        (b"-Infinity", "not finite"),
        (b"1e999", "not finite"),
        (b'{"a": NaN}', "not finite"),
        (b'{"a": 1', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 40_000, "nested too deeply"),
        (b" [" + b"1" * 10_000 + b"]", "not JSON"),
        (b"x" * (LONGEST_TEXT + 1), "too long"),
        (b"x" * 10**6, "too long"),
        (b"a\x1b[2Jb", "cannot be printed"),
        (b"[" + b" " * LARGEST_PAYLOAD + b"]", f"more than {LARGEST_PAYLOAD} bytes"),
    ],
)
def test_what_is_no_payload_is_refused(payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        parse(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_refused(payload: bytes) -> None:
    try:
        document = parse(payload)
    except MalformedError:
        return
    for value in leaves_of(document):
        assert isinstance(value, float | str)


def leaves_of(document: object) -> list[float | str]:
    try:
        return [value for _, value in values(leaves(document))[0]]
    except MalformedError:
        return []


def test_plain_numbers_and_texts() -> None:
    assert [parse(payload) for payload in (b"21.5", b" -3\n", b"+.5e1", b"ON", b"1_000")] == [
        21.5,
        -3.0,
        5.0,
        "ON",
        "1_000",
    ]


def test_one_bad_value_does_not_spoil_the_others() -> None:
    document = parse_json(b'{"a": 1e999, "b": 2, "c": true, "d": null, "e": "%s"}' % (b"x" * 65))
    found, refused = values(leaves(document))
    assert found == [("/b", 2.0), ("/c", "true")]
    assert refused == ["a number that is not finite", "a text that is too long or cannot be printed"]
    assert values([("", 10**400)])[1] == ["a number that is not finite"]


def test_a_document_has_bounds() -> None:
    with pytest.raises(MalformedError, match="more than"):
        list(leaves([0] * (MOST_VALUES + 1)))
    with pytest.raises(MalformedError, match="more than"):
        list(leaves([[0] * 100] * 100))
    deep: Any = 0
    for _ in range(DEEPEST_VALUE):
        deep = [deep]
    assert len(list(leaves(deep))) == 1
    with pytest.raises(MalformedError, match="too deeply"):
        list(leaves([deep]))


def test_times_of_every_usual_kind() -> None:
    then = datetime(2026, 11, 30, 12, 30, 15, tzinfo=UTC).timestamp()
    for text in ("2026-11-30T12:30:15Z", "2026-11-30T14:30:15+02:00", "2026-11-30 12:30:15.000+00:00"):
        assert moment(text) == then
    local = datetime(2026, 11, 30, 12, 30, 15).timestamp()
    assert moment("2026-11-30T12:30:15") == local
    for factor in (1, 1000, 10**6, 10**9):
        assert moment(int(then) * factor) == pytest.approx(then)
    assert moment(str(int(then))) == then
    others: tuple[object, ...] = (None, True, "soon", "", "x" * 99, -1, 0, math.nan, math.inf, 1e30, [], "9999-99-99")
    assert [other for other in others if moment(other) is not None] == []


@pytest.mark.parametrize(
    ("topic_filter", "topic", "covered"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a//c", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("#", "$SYS/broker", False),
        ("+/broker", "$SYS/broker", False),
        ("$SYS/#", "$SYS/broker", True),
    ],
)
def test_topic_filters_cover_what_the_standard_says(topic_filter: str, topic: str, covered: bool) -> None:
    assert matches(topic_filter, topic) == covered


def test_what_is_no_filter_is_told() -> None:
    assert [name for name in ("a/#/b", "a+/b", "#a", "", "a\0") if check_filter(name) is None] == []
    assert [name for name in ("a/#", "+/+", "#", "/a/") if check_filter(name) is not None] == []
