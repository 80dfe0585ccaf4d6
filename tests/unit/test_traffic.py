"""What a stream of MQTT packets is for, wherever it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from hushfleet.mqtt.topics import Topics
from hushfleet.mqtt.traffic import ITEMS, PURPOSES, Lane, item_of

TOPICS = Topics(bytes(range(16)))
MESSAGES = {
    TOPICS.manifest(): "documents",
    TOPICS.date(): "documents",
    TOPICS.root(2): "documents",
    TOPICS.certificate(7): "documents",
    TOPICS.document("roster", 3, 0): "documents",
    TOPICS.call(1): "set-up",
    TOPICS.list(1): "set-up",
    TOPICS.transcript(1, 4): "set-up",
    TOPICS.card(1, 7): "set-up",
    TOPICS.key(1, 7, 0): "set-up",
    TOPICS.ready(1, 7): "set-up",
    TOPICS.share(1, 7, 8): "set-up",
    TOPICS.complaint(1, 7): "set-up",
    TOPICS.up(0, 7, "masksum", 9, part=1): "mask sums",
    TOPICS.up(0, 7, "share", 9, part=8): "mask sums",
    TOPICS.down(7, "survivors", 9): "mask sums",
    TOPICS.down(7, "request", 9): "mask sums",
    TOPICS.plan(): "plan",
    TOPICS.result(9): "result",
    TOPICS.model(4, "delta", 0): "model",
    TOPICS.up(0, 7, "upload", 9): "header",
    TOPICS.up(0, 7, "upload", 9, 1): "chunks",
    TOPICS.up(0, 7, "upload", 9, 10): "chunks",
    TOPICS.down(7, "receipt", 9): "receipt",
    TOPICS.up(0, 7, "decline", 9): "decline",
    TOPICS.state(7): "connections",
}


def number(value: int) -> bytes:
    """A variable byte integer (MQTT 5, section 1.5.5)."""
    octets = bytearray()
    while True:
        value, octet = divmod(value, 128)
        octets.append(octet | (0x80 if value else 0))
        if not value:
            return bytes(octets)


def packet(first: int, rest: bytes) -> bytes:
    return bytes([first]) + number(len(rest)) + rest


def message(topic: str, payload: bytes, qos: int, properties: bytes) -> bytes:
    identifier = b"\1\2" if qos else b""
    name = len(topic).to_bytes(2, "big") + topic.encode()
    return packet(0x30 | qos << 1, name + identifier + number(len(properties)) + properties + payload)


OTHERS = {
    **dict.fromkeys((0x10, 0x20, 0xE0), "connections"),
    0x40: "acknowledgements",
    **dict.fromkeys((0x82, 0x90, 0xA2, 0xB0), "subscriptions"),
    **dict.fromkeys((0xC0, 0xD0), "pings"),
}
messages = st.tuples(
    st.sampled_from([*MESSAGES]),
    st.sampled_from([0, 1, 100, 127, 128, 16_383, 16_384, 40_000]).map(bytes),
    st.integers(0, 1),
    st.integers(0, 200).map(bytes),
)
others = st.tuples(st.sampled_from([*OTHERS]), st.integers(0, 300).map(bytes))


@given(packets=st.lists(messages | others, max_size=5), data=st.data())
def test_every_byte_is_counted_once_and_under_its_item(packets: list[tuple[object, ...]], data: st.DataObject) -> None:
    expected, stream = dict.fromkeys(ITEMS, 0), b""
    for one in packets:
        match one:
            case (str(topic), bytes(payload), int(qos), bytes(properties)):
                written = message(topic, payload, qos, properties)
                expected[MESSAGES[topic]] += len(payload)
                expected["topics"] += len(written) - len(payload)
            case (int(first), bytes(rest)):
                written = packet(first, rest)
                expected[OTHERS[first]] += len(written)
        stream += written
    lane = Lane()
    lane.line = len(stream) + 22
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 5, 1000]), max_size=20))
    for size in [*sizes, len(stream)]:
        lane.take(stream[:size])
        stream = stream[size:]
    assert lane.counts() == expected | {"TLS": 22}
    assert lane.bytes == lane.line - 22


def test_a_torn_packet_does_not_spoil_the_next_connection() -> None:
    whole = message(TOPICS.plan(), bytes(100), 1, b"")
    for cut in range(len(whole)):
        lane = Lane()
        lane.take(whole[:cut])
        lane.begin()
        before = lane.counts()["plan"]
        lane.take(whole)
        assert lane.counts()["plan"] == before + 100


@given(st.binary(max_size=200))
def test_whatever_a_broker_sends_is_counted(data: bytes) -> None:
    lane = Lane()
    lane.take(data)
    assert lane.bytes == len(data)


def test_a_topic_that_is_none_of_ours_is_overhead() -> None:
    for topic in ("", "hf", "$SYS/broker/uptime", "hf/fleet/other/thing"):
        assert item_of(topic) in PURPOSES["overhead"]
