"""The table of topics: what is written is read back, and nothing else is read."""

from base64 import b32decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from hushfleet.errors import MalformedError
from hushfleet.mqtt.topics import LONGEST, Parsed, Topics

FLEET = bytes(range(16))
TOPICS = Topics(FLEET)
F = TOPICS.fleet

u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)


def test_the_fleet_is_the_head_of_its_id() -> None:
    assert len(F) == 8
    assert F.islower()
    assert b32decode(F.upper()) == FLEET[:5]


def test_the_table() -> None:
    assert [
        TOPICS.root(2),
        TOPICS.manifest(),
        TOPICS.date(),
        TOPICS.certificate(7),
        TOPICS.document("roster", 3, 0),
        TOPICS.call(4),
        TOPICS.list(4),
        TOPICS.transcript(4, 1),
        TOPICS.card(4, 7),
        TOPICS.key(4, 7, 1),
        TOPICS.ready(4, 7),
        TOPICS.share(4, 7, 8),
        TOPICS.complaint(4, 7),
        TOPICS.plan(),
        TOPICS.result(9),
        TOPICS.sums(9, 1),
        TOPICS.model(5, "delta", 1),
        TOPICS.up(0, 7, "upload", 9, 12),
        TOPICS.up(0, 7, "masksum", 9, 0, part=3),
        TOPICS.down(7, "receipt", 9),
        TOPICS.state(7),
    ] == [
        f"hf/{F}/root/2",
        f"hf/{F}/manifest",
        f"hf/{F}/date",
        f"hf/{F}/cert/7",
        f"hf/{F}/doc/roster/3/0",
        f"hf/{F}/committee/4/call",
        f"hf/{F}/committee/4/list",
        f"hf/{F}/committee/4/transcript/1",
        f"hf/{F}/committee/4/card/7",
        f"hf/{F}/committee/4/key/7/1",
        f"hf/{F}/committee/4/ready/7",
        f"hf/{F}/committee/4/share/7/8",
        f"hf/{F}/committee/4/complaint/7",
        f"hf/{F}/plan",
        f"hf/{F}/result/9",
        f"hf/{F}/sums/9/1",
        f"hf/{F}/model/5/delta/1",
        f"hf/{F}/up/0/7/upload/9/12",
        f"hf/{F}/up/0/7/masksum/9.3/0",
        f"hf/{F}/down/7/receipt/9/0",
        f"hf/{F}/state/7",
    ]


@settings(max_examples=60)
@given(version=u32, device=u32, to=u32, epoch=u32, shard=u16, name=names, number=u64, part=st.none() | u32, chunk=u16)
def test_what_is_written_is_read_back(
    version: int,
    device: int,
    to: int,
    epoch: int,
    shard: int,
    name: str,
    number: int,
    part: int | None,
    chunk: int,
) -> None:
    pairs = {
        TOPICS.root(version): Parsed("root", version=version),
        TOPICS.manifest(): Parsed("manifest"),
        TOPICS.date(): Parsed("date"),
        TOPICS.certificate(device): Parsed("certificate", device=device),
        TOPICS.document(name, version, chunk): Parsed("document", name=name, version=version, chunk=chunk),
        TOPICS.call(epoch): Parsed("call", epoch=epoch),
        TOPICS.list(epoch): Parsed("list", epoch=epoch),
        TOPICS.transcript(epoch, chunk): Parsed("transcript", epoch=epoch, chunk=chunk),
        TOPICS.card(epoch, device): Parsed("card", epoch=epoch, device=device),
        TOPICS.key(epoch, device, chunk): Parsed("key", epoch=epoch, device=device, chunk=chunk),
        TOPICS.ready(epoch, device): Parsed("ready", epoch=epoch, device=device),
        TOPICS.share(epoch, device, to): Parsed("share", epoch=epoch, device=device, to=to),
        TOPICS.complaint(epoch, device): Parsed("complaint", epoch=epoch, device=device),
        TOPICS.plan(): Parsed("plan"),
        TOPICS.result(number): Parsed("result", round_number=number),
        TOPICS.sums(number, chunk): Parsed("sums", round_number=number, chunk=chunk),
        TOPICS.model(version, name, chunk): Parsed("model", version=version, name=name, chunk=chunk),
        TOPICS.up(shard, device, name, number, chunk, part=part): Parsed(
            "up", shard=shard, device=device, name=name, round_number=number, part=part, chunk=chunk
        ),
        TOPICS.down(device, name, number, chunk, part=part): Parsed(
            "down", device=device, name=name, round_number=number, part=part, chunk=chunk
        ),
        TOPICS.state(device): Parsed("state", device=device),
    }
    assert len(pairs) == 20
    for topic, parsed in pairs.items():
        assert len(topic) <= LONGEST
        assert TOPICS.parse(topic) == parsed


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "manifest/",
        "/manifest",
        "manifest/1",
        "Manifest",
        "root",
        "root/",
        "root/01",
        "root/-1",
        "root/+1",
        "root/1_0",
        "root/ 1",
        "root/1\n",
        "root/\u0661",
        "root/4294967296",
        "root/+",
        "result/18446744073709551616",
        "result/" + "9" * 5000,
        "cert/1/2",
        "doc/Roster/1/0",
        "doc//1/0",
        "doc/roster/1/65536",
        "committee/1",
        "committee/1/vote/2",
        "committee/1/share/2",
        "committee/1/card/2/3",
        "up/0/7/upload/9",
        "up/0/7/upload/9./0",
        "up/0/7/upload/.9/0",
        "up/0/7/upload/9.1.2/0",
        "up/0/7/upload/9.4294967296/0",
        "up/65536/7/upload/9/0",
        "down/7/#",
        "state/7/x",
        "{version}",
    ],
)
def test_nothing_else_is_read(rest: str) -> None:
    with pytest.raises(MalformedError):
        TOPICS.parse(f"hf/{F}/{rest}")


@pytest.mark.parametrize("topic", ["", "hf", f"hf/{F}", f"hx/{F}/plan", "hf/aaaaaaaa/plan", f"$SYS/hf/{F}/plan"])
def test_another_fleet_is_refused(topic: str) -> None:
    with pytest.raises(MalformedError):
        TOPICS.parse(topic)


def test_filters_match_their_topics_and_no_others() -> None:
    cases = [
        (TOPICS.any_call(), TOPICS.call(4), TOPICS.list(4)),
        (TOPICS.cards(4), TOPICS.card(4, 7), TOPICS.card(5, 7)),
        (TOPICS.keys(4), TOPICS.key(4, 7, 2), TOPICS.key(5, 7, 2)),
        (TOPICS.readies(4), TOPICS.ready(4, 7), TOPICS.ready(5, 7)),
        (TOPICS.shares_to(4, 8), TOPICS.share(4, 7, 8), TOPICS.share(4, 8, 7)),
        (TOPICS.complaints(4), TOPICS.complaint(4, 7), TOPICS.card(4, 7)),
        (TOPICS.results(), TOPICS.result(9), TOPICS.plan()),
        (TOPICS.ups(1), TOPICS.up(1, 7, "upload", 9, 3), TOPICS.up(0, 7, "upload", 9, 3)),
        (TOPICS.downs(7), TOPICS.down(7, "receipt", 9), TOPICS.down(70, "receipt", 9)),
        (TOPICS.states(), TOPICS.state(7), TOPICS.certificate(7)),
    ]
    for pattern, inside, outside in cases:
        assert topic_matches_sub(pattern, inside)
        assert not topic_matches_sub(pattern, outside)
