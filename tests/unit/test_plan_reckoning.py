"""The parts of a plan: packets, messages, flash, probabilities, and what a device spends."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.utils import random

from edge_agent.vault import Vault
from firmware_profiles import catalog
from hushfleet.codec import LocalReport
from hushfleet.encoding.grid import Grid
from hushfleet.errors import ConfigurationError
from hushfleet.rotated import encode_rotated
from hushfleet.secagg.residues import vector_length
from hushfleet.wire.committee import Box, Call, Card, CardList, CommitteeKey, Transcript
from hushfleet.wire.documents import Certificate, CommitteeDocument, Date, Manifest, ModelSpec, Policy, Profiles, Roster
from hushfleet.wire.framing import Frame, Table, read
from hushfleet.wire.layers import Conv1d, Dense, Layer
from hushfleet.wire.round import Delta, Header, Plan, Receipt, Request, Result, Survivors
from planner import flash
from planner.costs import Cost, Training, _pings, cost
from planner.messages import Committee, Encoding, Messages
from planner.packets import Count, hear, ping, send, subscribe, unsubscribe
from planner.risk import privacy_failure, round_failure, tolerated
from planner.traffic import Traffic

PLAIN = Encoding("plain", 0, 1.0, 16)
TENTH = Encoding("default B=4", 1, 0.1, 4)
SEVEN = Committee(7, 2, 8)
TRAINING = Training(rounds=50, steps=20, batch=32, pause=600)


DENSE: tuple[Layer, ...] = (Dense(64, 32, "relu"), Dense(32, 8))


def messages(
    encoding: Encoding = PLAIN,
    committee: Committee = SEVEN,
    survivors: int = 10,
    layers: tuple[Layer, ...] = DENSE,
) -> Messages:
    return Messages(
        layers=layers,
        devices=12,
        survivors=survivors,
        encoding=encoding,
        committee=committee,
        epoch_rounds=32,
        round=25,
        device=3,
        chunk=1024,
        profile="gateway-wifi",
    )


# Packets, by MQTT 5's own description of them.


@pytest.mark.parametrize(("payload", "lengths"), [(0, 1), (100, 1), (118, 1), (119, 2), (16_374, 2), (16_375, 3)])
def test_a_publish_has_its_headers_topic_number_and_empty_properties(payload: int, lengths: int) -> None:
    """1 byte of type, 1 to 4 of length, 2 + topic, 2 of number, 1 of properties; the PUBACK has 4."""
    found = send("a/bc", bytes(payload))
    assert (found.sent, found.received) == (1 + lengths + 2 + 4 + 2 + 1 + payload, 4)
    back = hear("a/bc", bytes(payload))
    assert (back.sent, back.received) == (found.received, found.sent)


def test_subscriptions_and_pings() -> None:
    assert (subscribe("a/bc").sent, subscribe("a/bc").received) == (2 + 2 + 1 + 2 + 4 + 1, 6)
    assert (unsubscribe("a/bc").sent, unsubscribe("a/bc").received) == (2 + 2 + 1 + 2 + 4, 6)
    assert (ping().sent, ping().received) == (2, 2)


def test_a_packet_on_the_line_has_a_record_segments_and_an_acknowledgement() -> None:
    """The figures of docs/operations.md: a slice of 4 KiB costs 33 bytes of MQTT and TLS at a topic of so many."""
    found = send("hf/aaaaaaaa/up/0/1/u", bytes(4096))
    assert found.sent_tls - found.sent == found.received_tls - found.received == 22
    assert found.sent_line == found.sent_tls + 4 * 40 + 40
    assert found.received_line == found.received_tls + 2 * 40


@given(st.floats(0, 100), st.floats(0, 100))
def test_counts_add_up_and_scale_in_every_field(a: float, b: float) -> None:
    one, other = Count(a, b, a, b, a, b, a, b), Count(b, a, b, a, b, a, b, a)
    assert one + other == Count(*[a + b] * 8)
    assert one * 3 == Count(3 * a, 3 * b, 3 * a, 3 * b, 3 * a, 3 * b, 3 * a, 3 * b)


# Messages.


@pytest.mark.parametrize("encoding", [PLAIN, TENTH], ids=["plain", "tenth"])
def test_every_message_is_one_that_the_fleet_would_take(encoding: Encoding) -> None:
    """The strict decoders of the wire accept each of them."""
    said = messages(encoding)
    frames: list[tuple[bytes, type[Table]]] = [
        (said.plan, Plan),
        (said.header, Header),
        *((receipt, Receipt) for receipt in said.receipts),
        (said.result, Result),
        (said.delta, Delta),
        (said.survivor_set, Survivors),
        (said.request, Request),
        (said.call, Call),
        (said.card, Card),
        (said.list, CardList),
        (said.key, CommitteeKey),
        (said.box, Box),
        (said.ready, Transcript),
        (said.transcript, Transcript),
        (said.manifest, Manifest),
        (said.date, Date),
        (said.certificate, Certificate),
        (said.documents["committee"], CommitteeDocument),
        (said.documents["roster"], Roster),
        (said.documents["policy"], Policy),
        (said.documents["model"], ModelSpec),
        (said.documents["profile"], Profiles),
    ]
    for data, table in frames:
        read(Frame.from_bytes(data), table)


def test_a_layer_along_time_costs_its_bytes_once_and_its_compute_at_every_step() -> None:
    convolution, last = Conv1d(32, 2, 8, 5, 1), Dense(28 * 8, 8)
    along = messages(layers=(convolution, last))
    assert along.parameters == 5 * 2 * 8 + 8 + (28 * 8 + 1) * 8
    assert len(along.upload) == vector_length(along.parameters, 16, 8)
    assert read(Frame.from_bytes(along.documents["model"]), ModelSpec).layers == (convolution, last)
    same = messages(layers=(Dense(along.parameters - 1, 1),))
    costs = [
        cost(catalog.load("gateway-wifi"), Traffic(one, member=False), 4, TRAINING, 50).compute for one in (along, same)
    ]
    assert costs[0] > costs[1]


def test_an_upload_has_the_length_that_the_plan_gives_it() -> None:
    parameters = 65 * 32 + 33 * 8
    assert len(messages().upload) == vector_length(parameters, 16, 8)
    assert len(messages(TENTH).upload) == vector_length(64 * math.ceil(parameters / 640), 4, 8)
    assert sum(map(len, messages().slices)) == len(messages().upload)


def test_an_upload_is_as_long_as_what_the_rotated_codec_makes() -> None:
    parameters = messages().parameters
    grid = Grid(parameters, TENTH.coords(parameters), bytes(32))
    vector = encode_rotated(
        np.ones(parameters, np.float32),
        1.0,
        LocalReport(1, 1.0, 0, 0.0, 0),
        grid=grid,
        index=1,
        bits=TENTH.bits,
        clip=1.0,
        step=0.1,
        checksum_seed=bytes(32),
    )
    assert len(messages(TENTH).upload) == len(vector.to_bytes(TENTH.bits))


def test_a_member_spends_more_and_a_larger_committee_costs_everyone_its_points() -> None:
    participant, member = Traffic(messages(), member=False), Traffic(messages(), member=True)
    assert member.a_round.sent > participant.a_round.sent + len(messages().upload)
    assert member.a_round.received > participant.a_round.received + 132 * 10
    larger = Traffic(messages(committee=Committee(9, 3, 10)), member=False)
    points = larger.before_upload().received - participant.before_upload().received
    # Two points more, and perhaps a byte for the length of them all.
    assert 2 * 32 <= points <= 2 * 32 + 3


# Flash.


@pytest.mark.parametrize("size", [500, 5_000, 50_000, 200_000])
def test_a_vault_writes_what_is_planned(tmp_path: Path, size: int) -> None:
    """A round of a participant, ten times over; counted by the kernel."""
    vault = Vault(tmp_path / "vault.db", random)
    try:
        _round(vault, size)
        before = _written()
        for _ in range(10):
            _round(vault, size)
        counted = (_written() - before) / 10
    finally:
        vault.close()
    planned = (
        flash.commit([100]) + flash.commit([120], added=[size]) + flash.commit(erased=[size]) + flash.commit([2 * size])
    )
    assert planned == pytest.approx(counted, rel=0.1)


def _round(vault: Vault, size: int) -> None:
    with vault.transaction():
        vault.save("device/seen", bytes(100))
    with vault.transaction():
        vault.save("participant/upload", random(size))
        vault.save("participant/state", random(120))
    with vault.transaction():
        vault.erase("participant/upload")
    with vault.transaction():
        vault.save("model/live", random(2 * size))


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


# Probabilities.


COMMITTEES = [Committee(c, f, n) for c in (2, 3, 4) for f in (0, 1) for n in (c, c + 1)]


@pytest.mark.parametrize("committee", COMMITTEES)
def test_a_corrupt_committee_is_as_likely_as_counting_every_draw_says(committee: Committee) -> None:
    devices = 7
    for corrupt in range(devices + 1):
        draws = list(combinations(range(devices), committee.candidates))
        bad = sum(sum(one < corrupt for one in draw) > tolerated(committee) for draw in draws)
        assert privacy_failure(devices, corrupt, committee) == pytest.approx(bad / len(draws))


def test_the_figures_of_the_protocols_section_seven() -> None:
    assert round_failure(0.05, Committee(7, 2, 7)) == pytest.approx(4e-3, rel=0.1)
    assert round_failure(0.05, Committee(9, 3, 9)) == pytest.approx(6e-4, rel=0.1)
    bounds = {(3, 1): 0, (5, 1): 2, (7, 1): 4, (9, 3): 2, (10, 2): 5, (11, 4): 2, (16, 3): 9}
    assert {(c, f): tolerated(Committee(c, f, c)) for c, f in bounds} == bounds
    assert round_failure(0.0, SEVEN) == 0
    assert round_failure(1.0, SEVEN) == 1


# Costs.


def spent(profile: catalog.FirmwareProfile, window: int = 4, *, member: bool = False, rounds: float = 50) -> Cost:
    return cost(profile, Traffic(messages(), member), window, TRAINING, rounds)


def test_a_slower_link_takes_longer_and_a_smaller_window_waits_more() -> None:
    fast, slow = catalog.load("gateway-wifi"), catalog.load("gateway-2g")
    assert spent(slow).airtime > 50 * spent(fast).airtime
    assert spent(slow, window=1).latency > spent(slow, window=4).latency
    assert spent(slow, window=1).up == spent(slow, window=4).up


def test_what_sets_the_pace() -> None:
    profile = catalog.load("gateway-lte-m")
    assert spent(profile).limit == "the pause between rounds"
    link = replace(profile.link, daily_bytes=100_000)
    capped = spent(replace(profile, link=link))
    assert capped.limit == "the daily cap on bytes"
    # The cap keeps room for pings, some of which the rounds make needless.
    assert 99_000 < (capped.bytes - capped.joining) / capped.days <= 100_000
    sleepy = replace(profile, schedule=catalog.Schedule(duty_cycle=0.0001))
    assert spent(sleepy).limit == "the duty cycle"
    assert spent(sleepy).days == pytest.approx(50 * spent(sleepy).airtime / (86_400 * 0.0001))


@given(st.floats(0.1, 1e4))
def test_a_pause_of_whole_keepalives_has_the_same_pings_however_long_a_round_takes(latency: float) -> None:
    profile = catalog.load("gateway-nb-iot")
    took = latency + profile.schedule.spread + 3 * profile.link.keepalive
    a_day = 86_400 * profile.schedule.awake_share() / took
    assert _pings(profile, a_day, latency) / a_day == pytest.approx(2)


def test_a_cap_that_pings_alone_exceed_is_said() -> None:
    profile = catalog.load("gateway-lte-m")
    with pytest.raises(ConfigurationError, match="pings alone spend its daily_bytes"):
        spent(replace(profile, link=replace(profile.link, daily_bytes=10, keepalive=5)))


def test_energy_wear_and_bytes_grow_with_the_rounds_and_the_battery_is_a_share_of_a_day() -> None:
    profile = catalog.load("gateway-nb-iot")
    few, many = spent(profile, rounds=10), spent(profile, rounds=100)
    assert many.wear == pytest.approx(10 * few.wear)
    assert 9 * few.energy < many.energy < 10 * few.energy
    assert 8 * few.bytes < many.bytes < 10 * few.bytes
    assert many.battery == pytest.approx(many.energy / many.days / 60)
    assert spent(catalog.load("raspberry-pi-5")).battery is None


def test_a_profile_that_lacks_figures_is_refused_by_their_names() -> None:
    profile = replace(catalog.load("gateway-wifi"), compute=None, flash=None)
    with pytest.raises(ConfigurationError, match=r"the profile gateway-wifi lacks compute, flash: docs/planning.md"):
        spent(profile)
    assert math.isfinite(spent(catalog.load("gateway-wifi")).energy)
