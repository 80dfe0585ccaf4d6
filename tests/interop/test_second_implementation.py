"""The project against a second implementation that was written from the specification's text alone.

Whatever the two read differently shows here: the second device among the project's processes, and the project's agents
under the second coordinator, over a real broker with TLS.
"""

import json
import tomllib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interop_site import Site
from second_committee import Attempt, SecondMember
from second_coordinator import SecondCoordinator
from second_device import SecondDevice, any_training
from second_sums import (
    IDENTITY,
    Contribution,
    Floats,
    Vector,
    adam_step,
    encoded,
    model_hash,
    next_version,
    opened,
    padded,
    planes,
    signed_body,
    step_for,
    unpacked,
)
from second_wire import (
    DOCUMENTS,
    KINDS,
    MESSAGES,
    PARTS,
    TABLES,
    Frame,
    Identity,
    Refused,
    claim,
    decoded,
    make,
    parse,
    unpack,
    upload_hash,
)

from hushfleet.errors import MalformedError
from hushfleet.replay import replay
from hushfleet.wire import canonical, framing
from hushfleet.wire.round import Delta
from hushfleet_demo.local_fleet import run

VECTORS = Path(__file__).parent.parent / "vectors"
STEP = 40.0
"""Seconds that one step of a story may take."""


def is_event(name: str, what: str, **more: Any) -> Any:
    """Whether someone said that; for `Journal.wait`."""
    return lambda who, event: (
        who == name and event.get("event") == what and all(event.get(key) == value for key, value in more.items())
    )


# The vectors.


def test_tables_are_those_of_the_text() -> None:
    tables = tomllib.loads((VECTORS / "tables.toml").read_text())
    assert {name: dict(table) for name, table in tables.items()} == TABLES
    assert all(list(tables[name]) == list(TABLES[name]) for name in tables)


def codec_vectors(part: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((VECTORS / "codec.json").read_text())[part]
    assert cases
    return cases


def floats(text: str) -> Floats:
    return np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32)


@pytest.mark.parametrize("case", codec_vectors("packing"), ids=lambda case: f"B={case['bits']}")
def test_packing_is_that_of_the_text(case: dict[str, Any]) -> None:
    residues = np.frombuffer(bytes.fromhex(case["residues"]), "<u2").astype(np.uint16)
    assert planes(residues, case["bits"]).hex() == case["packed"]


@pytest.mark.parametrize("case", codec_vectors("encoding"))
def test_encoding_is_that_of_the_text(case: dict[str, Any]) -> None:
    given = Contribution(
        floats(case["delta"]),
        case["weight"],
        case["examples"],
        case["training_loss_sum"],
        case["evaluated"],
        case["evaluation_loss_sum"],
        case["correct"],
    )
    words = np.frombuffer(bytes.fromhex(case["randomness"]), "<u8").astype(np.uint64)
    seed, largest = bytes.fromhex(case["checksum_seed"]), case["largest_survivor_set"]
    assert step_for(case["clip"], largest) == case["step"]
    assert encoded(given, case["clip"], largest, seed, words).packed.hex() == case["vector"]


@pytest.mark.parametrize("case", codec_vectors("opening"))
def test_opening_is_that_of_the_text(case: dict[str, Any]) -> None:
    total = unpacked(bytes.fromhex(case["total"]), padded(case["coords"]))
    policy = {"largest_weight": case["largest_weight"]}
    sums = opened(total, case["survivors"], case["coords"], policy, case, bytes.fromhex(case["checksum_seed"]))
    assert sums.body.tolist() == case["residues"]
    assert sums.lanes["weight"] == case["weight"]


@pytest.mark.parametrize("case", codec_vectors("versions"))
def test_next_version_is_that_of_the_text(case: dict[str, Any]) -> None:
    flat = floats(case["flat"])
    body = signed_body(bytes.fromhex(case["body"]), len(flat))
    after = next_version(flat, body, case["step"], case["weight"], case["rate"])
    assert (model_hash(flat).hex(), model_hash(after).hex()) == (case["hash"], case["next_hash"])


@pytest.mark.parametrize("case", json.loads((VECTORS / "rotated.json").read_text())["fedadam"])
def test_fedadam_is_that_of_the_text(case: dict[str, Any]) -> None:
    rounds = json.loads((VECTORS / "rotated.json").read_text())["rounds"]
    (update,) = [floats(one["update"]) for one in rounds if one["parameters"] == case["round"]]
    d, states = case["round"], [floats(state) for state in case["states"]]
    after = [adam_step(one, d, update, case["rate"], case["momentum"], case["adam"]) for one in states[:-1]]
    assert [one.tobytes() for one in after[:-1]] == [one.tobytes() for one in states[1:-1]]
    if case["version"] % 16:
        assert after[-1].tobytes() == states[-1].tobytes()
        return
    short = ((after[-1][d:].view("<u4") + 2**15) >> 16).astype("<u2")
    assert bytes.fromhex(case["snapshot"])[5 + d :] == short.tobytes()
    assert states[-1][d:].tobytes() == (short.astype("<u4") << 16).tobytes()


@settings(max_examples=100, deadline=None)
@given(
    parts=st.sampled_from([1, 2, 3]),
    numbers=st.lists(st.floats(-1e4, 1e4, width=32), min_size=15, max_size=15),
    momentum=st.floats(0, 1, exclude_max=True),
    beta=st.floats(0, 1, exclude_max=True),
    tau=st.floats(1e-8, 1e3),
    rate=st.floats(1e-6, 1e3),
    body=st.lists(st.integers(-300, 300), min_size=5, max_size=5),
)
def test_the_project_and_the_second_writing_take_the_same_step_to_the_bit(
    parts: int, numbers: list[float], momentum: float, beta: float, tau: float, rate: float, body: list[int]
) -> None:
    state = np.array(numbers[: 5 * parts], np.float32)
    state[10:] = np.abs(state[10:])
    sums = np.array(body, np.int64)
    padding = np.zeros(59, np.int64)
    packed = planes((np.concatenate([sums, padding]) % 2**16).astype(np.uint16), 16)
    delta = Delta(0, 1, bytes(32), 16, packed, 1e-3, 5 * 65_536, rate, 0, momentum, (beta, tau))
    u = next_version(np.zeros(5, np.float32), sums, 1e-3, 5 * 65_536, 1.0)
    expected = adam_step(state, 5, u, rate, momentum, [beta, tau])
    assert replay(state, delta, range(5), 5, 1.0).state.tobytes() == expected.tobytes()


# The second device among the project's processes.


def heavy_training(_flat: Floats, coords: int) -> Contribution:
    """A delta that is clipped, of more than the usual weight, with every lane in use."""
    delta = (0.1 * np.cos(np.arange(coords) * 0.7)).astype(np.float32)
    return Contribution(delta, 2.5, 40, 21.5, 9, 6.25, 5)


def no_refusals(site: Site, name: str) -> bool:
    """Whether our own part was content with all that it saw."""
    return not [event for who, event in site.journal.events if who == name and event["event"] in ("refused", "broken")]


@pytest.mark.integration
def test_second_device_takes_part_over_two_epochs(tmp_path: Path) -> None:
    rules = "committee_min = 4\nrecoveries = 1\nlargest_weight = 3.0\nepoch_rounds = 4\nrollback_versions = 2\n"
    agents = ("m1", "m2", "b1", "p1", "p2", "p3", "p4")
    site = Site(tmp_path, rules, members=("m1", "m2"), both=("b1", "second"), participants=agents[3:])
    with site:
        journal, index = site.journal, site.index
        # FedAdam, so that the second device replays, fetches and goes back to states with moments.
        site.start_coordinator(rounds=6, server_optimizer="adam")
        site.start_agents(*agents)
        device = SecondDevice(
            "second",
            site.bundle("second"),
            site.local.port,
            journal,
            hold=(2,),
            training=heavy_training,
            decline={3: 2},
        )
        try:
            # One member is killed while the second device, which holds its upload back, keeps the round open.
            journal.wait(is_event("second", "plan", round=2), STEP, "plan of round 2")
            site.local.processes["m1"].kill()
            device.release(2)
            lost = journal.wait(is_event("coordinator", "round", round=2), STEP, "end of round 2")
            assert (lost["outcome"], lost["recovered"]) == ("applied", [index["m1"]])
            site.start_agents("m1")
            for number in (1, 3, 4, 5, 6):
                end = journal.wait(is_event("coordinator", "round", round=number), STEP, f"end of round {number}")
                assert end["outcome"] == "applied", end
                replayed = journal.wait(is_event("second", "version", round=number), STEP, f"our version {number}")
                assert replayed["version"] == number
                assert replayed["included"] is (number != 3)
        finally:
            device.stop()
        newest = journal.of("second", "version")[-1]
        assert newest["version"] == 6
        for name, what, by_snapshot in (("replaying", "version", False), ("jumping", "snapshot", True)):
            # A device that has forgotten everything comes to the same model from what the broker retains.
            again = SecondDevice(name, site.bundle("second"), site.local.port, journal, by_snapshot=by_snapshot)
            try:
                reached = journal.wait(is_event(name, what, version=6), STEP, f"version 6 by {name}")
                assert reached["hash"] == newest["hash"]
                if not by_snapshot:
                    continue
                # The operator takes the model back: whoever has the newest one goes back, and so do the agents.
                run("coordinator", "roll-back", tmp_path / "configuration" / "coordinator.toml", "4")
                site.local.start_coordinator()
                back = journal.wait(is_event(name, "back", version=4), STEP, f"back to version 4 by {name}")
                assert back["hash"] == journal.of("second", "version")[4]["hash"]
                journal.wait(is_event("p1", "round", round=7, outcome="rollback"), STEP, "the rollback at an agent")
            finally:
                again.stop()
        ready = journal.of("coordinator", "epoch-ready")
        assert ready[0]["epoch"] == 1
        assert len(ready) >= 2
        assert all(index["second"] in event["members"] for event in ready)
        assert len(journal.of("second", "mask-sum")) >= 6
        assert index["m1"] in [event["lost"] for event in journal.of("second", "share")]
        assert journal.of("coordinator", "round")[2]["declined"] == 1
        assert no_refusals(site, "second")


@pytest.mark.integration
def test_vectors_of_many_chunks_in_a_committee_without_sharing(tmp_path: Path) -> None:
    """More than 65,536 residues, f = 0, slices of the largest size on one side and small ones on the other.

    One candidate never answers the call: all the others' cards hold a key for it all the same.
    """
    rules = "committee_min = 3\nrecoveries = 0\nepoch_rounds = 4\n"
    agents = ("m1", "b1", "p1", "p2", "p3")
    site = Site(
        tmp_path,
        rules,
        members=("m1", "absent"),
        both=("b1", "second"),
        participants=agents[2:],
        hidden=6000,
        chunk=4096,
    )
    with site:
        site.start_coordinator(rounds=2)
        site.start_agents(*agents)
        device = SecondDevice("second", site.bundle("second"), site.local.port, site.journal, chunk=61_440)
        try:
            ready = site.journal.wait(is_event("coordinator", "epoch-ready"), STEP, "committee")
            assert ready["members"] == [site.index[name] for name in ("m1", "b1", "second")]
            for number in (1, 2):
                end = site.journal.wait(is_event("coordinator", "round", round=number), STEP, f"end of {number}")
                assert (end["outcome"], end["uploads"], end["recovered"]) == ("applied", 5, [])
                replayed = site.journal.wait(is_event("second", "version", round=number), STEP, f"version {number}")
                assert (replayed["version"], replayed["included"]) == (number, True)
        finally:
            device.stop()
        assert no_refusals(site, "second")


class LyingAboutItsMasks(SecondMember):
    """Signs a mask sum that is wrong in one coordinate."""

    def _distorted(self, total: Vector) -> Vector:
        body = total.body.copy()
        body[3] += np.uint16(1)
        return Vector(body, total.tail)


@pytest.mark.integration
def test_wrong_mask_sum_is_blamed_on_its_member(tmp_path: Path) -> None:
    rules = "committee_min = 4\nrecoveries = 1\naudit_rate = 0.0\nepoch_rounds = 4\n"
    agents = ("m1", "m2", "b1", "p1", "p2", "p3")
    with Site(tmp_path, rules, members=("m1", "m2"), both=("b1", "liar"), participants=agents[3:]) as site:
        site.start_coordinator(rounds=4)
        site.start_agents(*agents)
        liar = SecondDevice("liar", site.bundle("liar"), site.local.port, site.journal, member=LyingAboutItsMasks)
        try:
            for number in (1, 2, 3, 4):
                end = site.journal.wait(is_event("coordinator", "round", round=number), STEP, f"end of {number}")
                if end["outcome"] == "applied":
                    break
            # Suspects are recovered one a round; the liar is the last of four at the latest.
            assert end["blamed"] == [site.index["liar"]]
            blame = site.journal.wait(is_event("liar", "blame"), STEP, "the evidence at the liar's")
            assert blame["lost"] == site.index["liar"]
        finally:
            liar.stop()


class Patient(SecondMember):
    """Deals when everyone else has: then the slow ones listen when the lie is judged and the topics are cleared."""

    def _others_dealt(self, epoch: int, attempt: Attempt) -> bool:
        others = [h for h in attempt.members if h != self._index]
        # Each is asked for at once: asking subscribes.
        dealt = [self._post.value(f"committee/{epoch}/key/{h}/0") for h in others]
        return all(dealt)

    def _deal(self, epoch: int, attempt: Attempt) -> None:
        if self._others_dealt(epoch, attempt):
            super()._deal(epoch, attempt)


class LyingToOne(Patient):
    """Deals a wrong share to the member with the lowest index."""

    def _share(self, polynomial: list[int], x: int, to: int) -> int:
        return super()._share(polynomial, x, to) + (to == 1)


class LyingToTheSecond(Patient):
    """Deals a wrong share to the honest second implementation."""

    def _share(self, polynomial: list[int], x: int, to: int) -> int:
        return super()._share(polynomial, x, to) + (to == 4)


class ComplainingOfNothing(Patient):
    """Complains, once, of the lowest index's right box."""

    def _on_keys(self, epoch: int, attempt: Attempt) -> None:
        box = self._post.value(f"committee/{epoch}/share/1/{self._index}")
        if box is not None and 1 in attempt.seal:
            self._complain(epoch, box, attempt.seal.pop(1))


@pytest.mark.integration
@pytest.mark.parametrize("lie", [LyingToOne, LyingToTheSecond, ComplainingOfNothing])
def test_complaints_are_judged_alike(tmp_path: Path, lie: type[SecondMember]) -> None:
    """A wrong share to either implementation, and a complaint of nothing: both name the liar."""
    rules = "committee_min = 4\nrecoveries = 1\nepoch_rounds = 4\n"
    with Site(tmp_path, rules, members=("m1", "m2", "m3", "honest", "liar"), participants=("p1",)) as site:
        journal, index = site.journal, site.index
        site.start_coordinator(rounds=1)
        site.start_agents("m1", "m2", "m3")
        devices = [
            SecondDevice(name, site.bundle(name), site.local.port, journal, member=member)
            for name, member in (("honest", SecondMember), ("liar", lie))
        ]
        try:
            judged = journal.wait(is_event("honest", "judged", epoch=1), STEP, "our judgement")
            assert judged["liar"] == index["liar"]
            failed = journal.wait(is_event("coordinator", "setup-failed", epoch=1), STEP, "the project's judgement")
            assert f"member {index['liar']} lied" in failed["why"]
        finally:
            for device in devices:
                device.stop()


# The project's agents under the second coordinator.


@pytest.mark.integration
def test_second_coordinator_runs_the_projects_agents(tmp_path: Path) -> None:
    rules = "committee_min = 4\nrecoveries = 1\nshards = 2\nepoch_rounds = 9\nrollback_versions = 2\n"
    agents = ("m1", "m2", "b1", "b2", "p1", "p2", "p3", "p4")
    site = Site(tmp_path, rules, members=("m1", "absent", "m2"), both=("b1", "b2"), participants=agents[4:])
    with site:
        journal, index = site.journal, site.index
        site.start_agents(*agents)
        documents = site.fleet / "documents"
        coordinator = SecondCoordinator(site.bundle("coordinator"), documents, site.local.port, journal)
        try:
            # One candidate does not get ready: the list leaves it out, though every card holds a key for it.
            committee = coordinator.set_up(epoch=1, first=1, rounds=9, seconds=STEP, without=(index["absent"],))

            # A chunk is lost on the way; a member that has answered is audited.
            current = coordinator.announce(committee, 1)
            current.lose.add((index["p1"], 3))
            coordinator.until(lambda: len(current.accepted) == 6, STEP, "six uploads")
            coordinator.freeze(committee, current)
            coordinator.until(lambda: len(current.mask_sums) == 4, STEP, "four mask sums")
            audited = coordinator.recover(committee, current, index["m2"], STEP)
            assert audited.packed == current.mask_sums[index["m2"]].packed
            coordinator.apply(current, coordinator.open(current, current.mask_sums))

            # On the version that the agents replayed, with a smaller clip, later, and without one of the sums.
            current = coordinator.announce(committee, 2, clip=0.5, opens_in=2)
            coordinator.until(lambda: len(current.accepted) == 6, STEP, "six uploads")
            assert min(current.first_chunks) >= current.plan.fields["opens"]
            coordinator.freeze(committee, current)
            coordinator.until(lambda: len(current.mask_sums) == 4, STEP, "four mask sums")
            del current.mask_sums[index["b1"]]
            recovered = coordinator.recover(committee, current, index["b1"], STEP)
            sums = current.mask_sums | {index["b1"]: recovered}
            coordinator.apply(current, coordinator.open(current, sums))

            # A round that is aborted, then one whose sample leaves a device out.
            current = coordinator.announce(committee, 3)
            coordinator.until(lambda: len(current.accepted) == 6, STEP, "six uploads")
            coordinator.abort(current)
            current, chosen = coordinator.announce_to(committee, 4, how_many=5)
            coordinator.until(lambda: len(current.accepted) == 5, STEP, "five uploads")
            assert current.accepted == chosen
            coordinator.freeze(committee, current)
            coordinator.until(lambda: len(current.mask_sums) == 4, STEP, "four mask sums")
            coordinator.apply(current, coordinator.open(current, current.mask_sums))
            assert sorted(current.uploads) == chosen

            # A clip that the policy does not allow.
            current = coordinator.announce(committee, 5, clip=2.0)
            coordinator.until(lambda: len(current.declined) == 6, STEP, "six refusals")
            assert set(current.declined.values()) == {4}
            coordinator.abort(current)

            # The owners sign for one more device; it follows the model from version 0 and takes part.
            site.add_participant("newcomer")
            coordinator.renew(documents)
            site.start_agents("newcomer")
            current = coordinator.announce(committee, 6)
            coordinator.until(lambda: len(current.accepted) == 7, STEP, "seven uploads")
            assert index["newcomer"] in current.accepted
            coordinator.freeze(committee, current)
            coordinator.until(lambda: len(current.mask_sums) == 4, STEP, "four mask sums")
            coordinator.apply(current, coordinator.open(current, current.mask_sums))
            for name in (*agents, "newcomer"):
                journal.wait(is_event(name, "round", round=6, outcome="applied"), STEP, f"version 4 at {name}")

            # Back from version 4 to 2: the next round trains on it. Back to 1 would be further than the policy allows.
            coordinator.roll_back(7, 2)
            current = coordinator.announce(committee, 8)
            coordinator.until(lambda: len(current.accepted) == 7, STEP, "seven uploads")
            coordinator.abort(current)
            coordinator.roll_back(9, 1)
            for name in (*agents, "newcomer"):
                refused = is_event(name, "refused", why="the rollback takes the model from version 4 back to 1")
                journal.wait(refused, STEP, f"{name} stays")
        finally:
            coordinator.close()


def receipt_for(site: Site, device: SecondDevice, upload: bytes, chunks: list[bytes]) -> tuple[int, int]:
    """(state, reason) of the first receipt after sending this; asked again while the coordinator keeps silent."""
    seen = len(site.journal.events)

    def fresh(who: str, event: dict[str, Any]) -> bool:
        return who == "second" and event["event"] == "receipt" and event["upload"] == upload.hex()

    for _ in range(20):
        device.send_upload(1, chunks)
        try:
            event = site.journal.wait(fresh, 2.0, "receipt", since=seen)
        except AssertionError:
            continue
        return event["state"], event["reason"]
    raise AssertionError("no receipt")


@pytest.mark.integration
def test_receipts_give_the_reasons_of_the_text(tmp_path: Path) -> None:
    rules = "committee_min = 3\nrecoveries = 0\nepoch_rounds = 4\n"
    people = ("second", "p1", "p2", "p3", "late")
    with Site(tmp_path, rules, members=("m1", "m2", "m3"), participants=people) as site:
        site.start_coordinator(rounds=1)
        site.start_agents("m1", "m2", "m3", "p1", "p2", "p3")
        device = SecondDevice("second", site.bundle("second"), site.local.port, site.journal, hold=(1,))
        try:
            site.journal.wait(is_event("second", "plan"), STEP, "plan")
            plan = device.plan
            assert plan is not None
            assert device.state is not None
            given = any_training(device.state, device.coords)
            (upload, chunks), (other, other_chunks) = (device.make_upload(plan, given) for _ in range(2))
            header = unpack("header", parse(chunks[0], plan.fleet, "header").body)

            def changed(**fields: Any) -> tuple[bytes, list[bytes]]:
                """The header with other fields, and a claim that fits them."""
                new = header | fields
                whole = upload_hash(new["length"], new["hashes"])
                roster = plan.fields["roster"]
                new["sig"] = claim(device.bundle.identity, plan.fleet, roster, plan.hash, 1, new["y"], whole)
                return whole, [
                    make("header", plan.fleet, new | ({"sig": fields["sig"]} if "sig" in fields else {})).raw
                ]

            refused, malformed, signature, another = 1, 4, 3, 5
            assert receipt_for(site, device, *changed(sig=bytes(64))) == (refused, signature)
            assert receipt_for(site, device, *changed(length=header["length"] + 8)) == (refused, malformed)
            assert receipt_for(site, device, *changed(y=IDENTITY)) == (refused, malformed)
            assert receipt_for(site, device, upload, chunks[:1]) == (2, 0)
            device.send_upload(1, chunks)
            site.journal.wait(
                is_event("second", "receipt", upload=upload.hex(), state=0, reason=0), STEP, "the receipt"
            )
            assert receipt_for(site, device, other, other_chunks[:1]) == (refused, another)
            assert receipt_for(site, device, upload, chunks[:1]) == (0, 0)
            site.start_agents("late")
            end = site.journal.wait(is_event("coordinator", "round"), STEP, "end of the round")
            assert (end["outcome"], end["uploads"]) == ("applied", 5)
            mine = site.journal.wait(is_event("second", "version", version=1), STEP, "version 1")
            assert mine["included"]
        finally:
            device.stop()


@pytest.mark.integration
def test_members_refuse_what_the_text_refuses(tmp_path: Path) -> None:
    rules = "committee_min = 4\nrecoveries = 1\nepoch_rounds = 4\n"
    agents = ("m1", "m2", "b1", "b2", "p1", "p2", "p3", "p4")
    with Site(tmp_path, rules, members=("m1", "m2"), both=("b1", "b2"), participants=agents[4:]) as site:
        journal, index = site.journal, site.index
        site.start_agents(*agents)
        coordinator = SecondCoordinator(
            site.bundle("coordinator"), site.fleet / "documents", site.local.port, journal, chunk=4096
        )
        m1, m2, b1 = index["m1"], index["m2"], index["b1"]

        numbers = count(100)

        def refuses(kind: str, frame: Frame, name: str = "") -> None:
            """m1 refuses this frame, which it says of its topic, once of each and of each reason."""
            seen, name = len(journal.events), name or str(next(numbers))
            coordinator.send(m1, kind, name, frame)
            journal.wait(
                is_event("m1", "refused", topic=f"down/{m1}/{kind}/{name}/0"), STEP, f"refusal of {kind}", since=seen
            )

        try:
            committee = coordinator.set_up(epoch=1, first=1, rounds=4, seconds=STEP)
            current = coordinator.announce(committee, 1)
            coordinator.until(lambda: len(current.accepted) == 6, STEP, "six uploads")
            entries = coordinator.entries(current)
            whole = coordinator.survivors(current, entries)
            unsigned = [*entries[:-1], entries[-1][:-1] + bytes([entries[-1][-1] ^ 1])]
            refuses("survivors", coordinator.survivors(current, entries[:4]))
            refuses("survivors", coordinator.survivors(current, entries[::-1]))
            refuses("survivors", coordinator.survivors(current, [*entries, entries[-1]]))
            refuses("survivors", coordinator.survivors(current, unsigned))
            refuses("request", coordinator.request(current, whole, m2), f"1.{m2}")
            coordinator.freeze(committee, current)
            coordinator.until(lambda: len(current.mask_sums) == 4, STEP, "four mask sums")
            first = current.mask_sums.pop(m1)
            refuses("survivors", coordinator.survivors(current, entries[:5]))
            refuses("request", coordinator.request(current, whole, m1), f"1.{m1}")
            coordinator.recover(committee, current, m2, STEP)
            refuses("request", coordinator.request(current, whole, b1), f"1.{b1}")
            # The same set again gets the same answer.
            coordinator.send(m1, "survivors", "1", whole)
            coordinator.until(lambda: m1 in current.mask_sums, STEP, "the same mask sum again")
            assert current.mask_sums[m1].packed == first.packed
            coordinator.apply(current, coordinator.open(current, current.mask_sums))
        finally:
            coordinator.close()


# Frames.

FLEET_ID = bytes(range(16))


def values_of(kind: str) -> st.SearchStrategy[Any]:
    """Any value of a wire type."""
    if kind.startswith("["):
        return st.lists(values_of(kind[1:-1]), max_size=3)
    if kind == "{layer}":
        return st.sampled_from(KINDS).flatmap(
            lambda name: values_of(f"{{{name}}}").map(lambda fields: fields | {"kind": name})
        )
    if kind == "{channel}":
        plain = st.fixed_dictionaries({field: values_of(one) for field, one in TABLES["channel"].items()})
        return plain | values_of("{standardised}").map(lambda fields: fields | {"kind": "standardised"})
    if kind.startswith("{"):
        return st.fixed_dictionaries({field: values_of(one) for field, one in TABLES[kind[1:-1]].items()})
    if kind.startswith("u"):
        bits = int(kind[1:])
        return st.integers(0, bits).flatmap(lambda used: st.integers(0, 2**used - 1))
    if kind == "f":
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind == "s":
        return st.text(st.characters(max_codepoint=127), max_size=64)
    if kind == "b":
        return st.binary(max_size=300)
    if kind.endswith("*"):
        size = int(kind[1:-1])
        return st.integers(0, 3).flatmap(lambda count: st.binary(min_size=size * count, max_size=size * count))
    return st.binary(min_size=int(kind[1:]), max_size=int(kind[1:]))


def taken(decode: Callable[[bytes], Any], refusal: type[Exception], raw: bytes) -> Any:
    """What a decoder makes of it; "refused" if nothing."""
    try:
        return decode(raw)
    except refusal:
        return "refused"


@given(data=st.data())
@settings(max_examples=150)
def test_decoders_take_and_refuse_the_same_bytes(data: st.DataObject) -> None:
    """Frames of every table, whole and with a byte changed."""
    name = data.draw(st.sampled_from(sorted(set(TABLES) - set(PARTS))))
    fields = data.draw(st.fixed_dictionaries({field: values_of(kind) for field, kind in TABLES[name].items()}))
    fields |= {"fleet": FLEET_ID, "protocol": 1} if name in DOCUMENTS else {}
    fields.pop("from", None)
    raw = bytearray(make(name, FLEET_ID, fields, *([Identity(3, bytes(32))] if name in MESSAGES else [])).raw)
    theirs, ours = framing.Frame.from_bytes(bytes(raw), limit=len(raw)), parse(bytes(raw), FLEET_ID, name)
    assert theirs.hash(FLEET_ID) == ours.hash
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    assert repr(taken(canonical.decode, MalformedError, bytes(raw))) == repr(taken(decoded, Refused, bytes(raw)))
