"""The coordinator's round, event by event: what it says, when it looks at the clock, what it takes no notice of."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from world import RoundSettings, World, height, make_fleet

from coordinator.audit import CLEARED
from coordinator.round import LARGEST_NOTE, OPEN, SUM_EVIDENCE, Round, _Open
from coordinator.uploads import EVIDENCE as UPLOAD_EVIDENCE
from hushfleet.actions import Action, Note, Publish, Wake
from hushfleet.codec import PLAIN_BITS, plain_step
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.wire.framing import Frame, Table, read
from hushfleet.wire.round import (
    ABORTED,
    APPLIED,
    BATTERY,
    CHECKSUM,
    DATA,
    MEMBERS_MISSING,
    RESTART,
    TOO_FEW,
    TRAIN,
    VOID,
    Decline,
    Delta,
    Metrics,
    Plan,
    Result,
    bitmap,
)

SETTINGS = RoundSettings(collect=40, answer=8, recover=20, total=1)
MEMBERS, PARTICIPANTS = (1, 2, 3, 4), (5, 6, 7)


class Listener:
    """A world of three participants and some members, and all that its coordinator does."""

    def __init__(self, settings: RoundSettings = SETTINGS, members: int = 4, **policy: Any) -> None:
        self.world = World(make_fleet(3, members, **policy), rounds=settings)
        self.heard: list[tuple[float, Action]] = []
        self.topics = Topics(self.world.keys.fleet)
        perform = self.world.perform

        def listening(index: int, actions: Sequence[Any]) -> bool:
            if index == 0:
                self.heard += [(self.world.now, action) for action in actions]
            return perform(index, actions)

        setattr(self.world, "perform", listening)  # noqa: B010

    @property
    def round(self) -> Round:
        return self.world.conductor.round

    def until(self, event: str) -> float:
        """Let time pass until the coordinator says so; when it did."""
        self.world.run(self.world.noted(0, event))
        return next(time for time, action in self.heard if isinstance(action, Note) and action.event == event)

    def said(self, event: str) -> list[dict[str, object]]:
        return [action.fields for _, action in self.heard if isinstance(action, Note) and action.event == event]

    def wakes(self, at: float) -> list[float]:
        """When it wants to look at the clock again, as asked for at a time."""
        return [action.at for time, action in self.heard if isinstance(action, Wake) and time == at]

    def published(self, kind: str, name: str = "", device: int = 0) -> list[tuple[float, bytes]]:
        """What it published under a kind of topic, with the times."""
        found = []
        for time, action in self.heard:
            if isinstance(action, Publish) and action.payload:
                at = self.topics.parse(action.topic)
                if at.kind == kind and name in ("", at.name) and device in (0, at.device):
                    found.append((time, action.payload))
        return found

    def pauses(self, name: str, device: int) -> list[float]:
        """Seconds between its messages of a kind to a device."""
        times = [time for time, _ in self.published("down", name, device)]
        return [later - earlier for earlier, later in pairwise(times)]

    def plan(self) -> Plan:
        return read(Frame.from_bytes(self.published("plan")[0][1]), Plan)

    def plan_hash(self) -> bytes:
        return Frame.from_bytes(self.published("plan")[0][1]).hash(self.world.keys.fleet)

    def result(self) -> Result:
        return read(Frame.from_bytes(self.published("result")[0][1]), Result)

    def silence(self, name: str, *devices: int) -> None:
        """Messages of a kind from some devices never arrive."""
        self.world.tamper = lambda sender, publish: (
            [] if sender in devices and self.topics.parse(publish.topic).name == name else [publish]
        )

    def sealed(self, device: int, message: Table) -> bytes:
        return self.world.device(device).context.sealed(message)

    def tell(self, name: str, device: int, payload: bytes, number: int = 1, chunk: int = 0) -> list[Action]:
        at = Parsed("up", device=device, name=name, round_number=number, chunk=chunk)
        return self.round.on_message(at, payload, self.world.now)


# The plan.


@pytest.mark.parametrize("clip", [0.75, 0.0])
def test_a_plan_says_what_settings_documents_and_committee_say(clip: float) -> None:
    settings = replace(SETTINGS, sample=0.25, steps=7, batch=9, rate=0.125, momentum=0.5, proximal=0.25, clip=clip)
    fleet = Listener(settings)
    time = fleet.until("plan")
    plan, keys = fleet.plan(), fleet.world.keys
    documents, epoch = fleet.world.conductor.context.documents(), fleet.world.conductor.epochs.numbered(1)
    assert epoch is not None
    norm = clip or documents.policy.clip
    assert replace(plan, seed=b"") == Plan(
        sender=0,
        round=1,
        kind=TRAIN,
        model=keys.documents["model"].hash(keys.fleet),
        base=0,
        base_hash=documents.model.zero,
        roster=keys.documents["roster"].hash(keys.fleet),
        policy=keys.documents["policy"].hash(keys.fleet),
        epoch=1,
        transcript=epoch.hash,
        points=epoch.round_points(1),
        opens=int(time),
        closes=int(time) + 40,
        until=int(time) + 40 + 8 + 20,
        sample=2**30,
        grouped=0,
        codec=0,
        bits=PLAIN_BITS,
        coords=16 * 17,
        keep=1.0,
        clip=norm,
        step=plain_step(norm, documents.policy.largest_survivor_set),
        seed=b"",
        noise=0.0,
        tail=0,
        steps=7,
        batch=9,
        rate=0.125,
        momentum=0.5,
        proximal=0.25,
    )
    assert fleet.said("plan") == [{"round": 1, "epoch": 1, "base": 0}]
    assert plan.closes in fleet.wakes(time)
    assert fleet.round.last == 1


def test_the_first_round_of_a_new_ledger_has_the_number_that_the_settings_say() -> None:
    fleet = Listener(replace(SETTINGS, first=7))
    assert fleet.round.last == 6
    assert fleet.round.version() == 0
    fleet.until("plan")
    assert fleet.plan().round >= 7


# From the freeze to the result.


def test_a_round_from_its_plan_to_its_result() -> None:
    """A member is silent and is recovered; who is asked, when, and what the log says."""
    fleet = Listener(replace(SETTINGS, pause=5.0))
    fleet.silence("masksum", 2)
    assert fleet.round.accepted() == 0
    fleet.until("accepted")
    assert fleet.round.accepted() == 1
    frozen = fleet.until("frozen")
    assert fleet.round.accepted() == 3
    assert fleet.said("frozen") == [{"round": 1, "survivors": 3}]
    assert frozen + 8 in fleet.wakes(frozen)
    end = fleet.until("round")
    # All members at the freeze; then the silent one, every quarter of the time for answers.
    first, *others = fleet.pauses("survivors", 2)
    assert first >= 2.0
    assert others == pytest.approx([2.0] * len(others))
    assert [time for time, _ in fleet.published("down", "survivors", 1)] == [frozen]
    # Its recovery begins when that time is over, not before.
    requests = [time for time, _ in fleet.published("down", "request")]
    assert 8.0 <= requests[0] - int(frozen) < 10.1
    assert fleet.said("round") == [
        {
            "round": 1,
            "outcome": "applied",
            "reason": 0,
            "why": None,
            "uploads": 3,
            "recovered": [2],
            "blamed": None,
            "declined": 0,
            "version": 1,
            "accuracy": 1.0,
            "evaluation_loss": 0.5,
            "loss": 0.5,
        }
    ]
    assert end + 5.0 in fleet.wakes(end)
    result, model = fleet.result(), fleet.world.conductor.context.documents().model
    (delta,) = {Frame.from_bytes(data).hash(fleet.world.keys.fleet) for _, data in fleet.published("model", "delta")}
    record = fleet.round.models.current(model, fleet.world.keys.documents["model"].hash(fleet.world.keys.fleet))
    assert replace(result, metrics=Metrics(0, 0, 0, 0, 0, 0)) == Result(
        sender=0,
        plan=fleet.plan_hash(),
        round=1,
        outcome=APPLIED,
        reason=0,
        base=0,
        base_hash=model.zero,
        version=1,
        version_hash=record[1],
        delta=delta,
        included=bitmap([*PARTICIPANTS]),
        step=fleet.plan().step,
        metrics=Metrics(0, 0, 0, 0, 0, 0),
    )
    assert result.metrics == Metrics(3, 0.5, 3, 0.5, 3, result.metrics.norm)
    assert result.metrics.norm == pytest.approx(height(1) * 3**0.5 / 3)
    assert fleet.round.version() == 1
    assert fleet.round.accepted() == 0
    assert fleet.round.plan is None


def test_a_round_without_uploads_ends_when_its_plan_closes() -> None:
    fleet = Listener()
    fleet.silence("upload", *PARTICIPANTS)
    end = fleet.until("round")
    plan, model = fleet.plan(), fleet.world.conductor.context.documents().model
    assert plan.closes <= end < plan.closes + 0.1
    assert fleet.said("round") == [
        {
            "round": 1,
            "outcome": "aborted",
            "reason": TOO_FEW,
            "why": "too few uploads",
            "uploads": 0,
            "recovered": [],
            "blamed": None,
            "declined": 0,
            "version": 0,
            "accuracy": None,
            "evaluation_loss": None,
            "loss": None,
        }
    ]
    nothing = Metrics(0, 0.0, 0, 0.0, 0, 0.0)
    assert fleet.result() == Result(
        0, fleet.plan_hash(), 1, ABORTED, TOO_FEW, 0, model.zero, 0, model.zero, bytes(32), b"", plan.step, nothing
    )


def test_a_round_whose_members_stay_silent_ends_with_its_plan() -> None:
    fleet = Listener()
    fleet.silence("masksum", 1, 2)
    fleet.until("frozen")
    until = float(fleet.plan().until)
    for now, ends in ((until - 0.5, False), (until, True)):
        fleet.world.perform(0, fleet.round.advance(now))
        assert bool(fleet.said("round")) == ends
    assert (fleet.result().outcome, fleet.result().reason) == (ABORTED, MEMBERS_MISSING)
    # Two are more than can be recovered: no share was asked for.
    assert not fleet.published("down", "request")


def test_a_round_of_silent_members_ends_without_another_message() -> None:
    fleet = Listener()
    fleet.silence("masksum", 1, 2)
    end = fleet.until("round")
    assert fleet.plan().until <= end < fleet.plan().until + 2.1


def test_members_are_asked_again_once_a_second_at_most() -> None:
    fleet = Listener(replace(SETTINGS, answer=2))
    fleet.silence("masksum", 1, 2)
    fleet.until("round")
    _, *others = fleet.pauses("survivors", 1)
    assert others == pytest.approx([1.0] * len(others))
    assert len(others) > 10


def test_a_set_is_frozen_as_soon_as_it_is_as_large_as_it_may_be() -> None:
    fleet = Listener(largest_survivor_set=2)
    fleet.world.training_time = lambda index, plan: {5: 1.0, 6: 2.0, 7: 30.0}[index]
    assert fleet.until("frozen") < fleet.plan().opens + 10
    assert fleet.said("frozen") == [{"round": 1, "survivors": 2}]


def test_a_round_whose_committee_is_gone_at_the_freeze_ends() -> None:
    fleet = Listener()
    fleet.until("plan")
    fleet.world.conductor.epochs._epochs.clear()
    fleet.until("round")
    assert (fleet.result().outcome, fleet.result().reason) == (ABORTED, MEMBERS_MISSING)


# Messages that change nothing.


def test_what_comes_without_a_round_is_not_taken() -> None:
    fleet = Listener()
    for name in ("upload", "masksum", "share", "decline"):
        assert fleet.tell(name, 5, b"anything") == []


def test_answers_about_another_round_are_not_looked_at() -> None:
    fleet = Listener()
    fleet.silence("masksum", *MEMBERS)
    fleet.until("frozen")
    for name in ("masksum", "share", "decline"):
        assert fleet.tell(name, 1, b"anything", number=2) == []
        with pytest.raises(HushfleetError):
            fleet.tell(name, 1, b"anything")
    assert fleet.tell("upload", 5, b"anything", number=2, chunk=1) == []
    assert fleet.tell("state", 5, b"anything") == []


def test_answers_before_the_freeze_are_not_looked_at() -> None:
    fleet = Listener()
    fleet.until("plan")
    assert fleet.tell("masksum", 1, b"anything") == []
    assert fleet.tell("share", 1, b"anything") == []


def test_no_slice_of_an_upload_is_taken_once_the_plan_closed_or_the_set_is_frozen() -> None:
    fleet = Listener()
    fleet.silence("upload", 7)
    fleet.until("plan")
    with pytest.raises(RefusedError, match="without its header"):
        fleet.tell("upload", 7, b"anything", chunk=1)
    fleet.world.now = float(fleet.plan().closes)
    assert fleet.tell("upload", 7, b"anything", chunk=1) == []
    frozen = Listener()
    frozen.silence("upload", 7)
    frozen.until("frozen")
    frozen.world.now = frozen.plan().closes - 10.0
    assert frozen.tell("upload", 7, b"anything", chunk=1) == []


def test_how_long_an_answer_may_be() -> None:
    fleet = Listener()
    fleet.silence("masksum", *MEMBERS)
    fleet.until("plan")

    def longest(name: str, device: int = 1) -> int:
        return fleet.round.longest_answer(Parsed("up", device=device, name=name, round_number=1))

    assert LARGEST_NOTE == 1024
    assert [longest(name) for name in ("share", "decline", "masksum", "state")] == [1024, 1024, 0, 0]
    fleet.until("frozen")
    assert longest("masksum") > 2 * fleet.plan().coords
    assert longest("masksum", 5) == 0


# Declines.


def test_a_decline_is_noted_and_waited_for_no_longer() -> None:
    fleet = Listener()
    fleet.silence("upload", 6, 7)
    fleet.until("accepted")
    for reason, why in ((DATA, "data"), (BATTERY, "battery")):
        said = fleet.tell("decline", 6, fleet.sealed(6, Decline(6, fleet.plan_hash(), reason)))
        fields = {"device": 6, "round": 1, "reason": reason, "why": why}
        assert said == [Note("declined", fields, sender="up/6")]
    # One is missing still. With it, all are there who will come: long before the plan closes.
    assert fleet.round.advance(fleet.world.now) == []
    fleet.tell("decline", 7, fleet.sealed(7, Decline(7, fleet.plan_hash(), DATA)))
    fleet.world.perform(0, fleet.round.advance(fleet.world.now))
    assert fleet.said("round")[0]["reason"] == TOO_FEW
    assert fleet.said("round")[0]["declined"] == 2
    assert fleet.world.now < fleet.plan().closes - 20


def test_who_declines_after_its_upload_is_counted_once() -> None:
    fleet = Listener()
    fleet.silence("upload", 6, 7)
    fleet.until("accepted")
    fleet.tell("decline", 5, fleet.sealed(5, Decline(5, fleet.plan_hash(), DATA)))
    fleet.tell("decline", 6, fleet.sealed(6, Decline(6, fleet.plan_hash(), DATA)))
    assert fleet.round.advance(fleet.world.now) == []


def test_declines_of_others_are_refused() -> None:
    fleet = Listener()
    fleet.silence("upload", *PARTICIPANTS)
    fleet.until("plan")
    plan_hash = fleet.plan_hash()
    for device, payload, why in (
        (6, fleet.sealed(5, Decline(5, plan_hash, DATA)), "of another device or plan"),
        (5, fleet.sealed(5, Decline(5, bytes(32), DATA)), "of another device or plan"),
        (1, fleet.sealed(1, Decline(1, plan_hash, DATA)), "not signed by device 1"),
        (5, fleet.sealed(6, Decline(5, plan_hash, DATA)), "signed by another than its sender"),
        (99, fleet.sealed(5, Decline(99, plan_hash, DATA)), "signed by another than its sender"),
    ):
        with pytest.raises(HushfleetError, match=why):
            fleet.tell("decline", device, payload)
    assert not fleet.round._declined


# After a restart.


def restarted(change: Callable[[Listener], None], **policy: Any) -> Listener:
    """The coordinator dies once an upload is in, its records are changed, it starts again."""
    fleet = Listener(**policy)
    fleet.silence("upload", 7)
    fleet.until("accepted")
    fleet.world.crash(0, keep_session=True)
    change(fleet)
    fleet.world.start(0)
    return fleet


def test_a_round_goes_on_after_a_restart_and_says_so() -> None:
    fleet = restarted(lambda fleet: None)
    assert fleet.said("resumed") == [{"round": 1, "accepted": 1}]
    assert float(fleet.plan().closes) in fleet.wakes(fleet.world.now)
    assert fleet.round.accepted() == 1
    fleet.until("round")
    assert fleet.result().outcome == APPLIED


def test_a_round_that_went_on_after_a_restart_is_audited_as_any_other() -> None:
    fleet = restarted(lambda fleet: None, audit_rate=1.0)
    fleet.until("round")
    assert len(fleet.said("examining")) == len(fleet.said("cleared")) == 1
    assert fleet.result().outcome == APPLIED


@pytest.mark.parametrize("document", ["roster", "policy"])
def test_a_round_under_documents_that_are_gone_ends_at_the_restart(document: str) -> None:
    def change(fleet: Listener) -> None:
        records = fleet.world.records[0].data
        opened = _Open.from_body(records[OPEN])
        changed: dict[str, Any] = {document: bytes(32)}
        plan = replace(fleet.plan(), **changed)
        other = fleet.world.keys.credentials[0].identity().frame(plan, fleet.world.keys.fleet)
        records[OPEN] = replace(opened, plan=other.to_bytes()).to_body()
        records["masksum/0000000001"] = b"left over"

    fleet = restarted(change)
    assert (fleet.result().outcome, fleet.result().reason) == (ABORTED, RESTART)
    assert "masksum/0000000001" not in fleet.world.records[0].data
    assert not fleet.said("resumed")


def test_whose_answer_is_missing_is_asked_at_once_after_a_restart_and_nobody_else() -> None:
    fleet = Listener()
    fleet.silence("masksum", 1, 2)
    fleet.until("frozen")
    fleet.world.run_for(0.5)
    fleet.world.crash(0, keep_session=True)
    fleet.world.start(0)
    asked = {member: [time for time, _ in fleet.published("down", "survivors", member)] for member in MEMBERS}
    assert [asked[member][-1] == fleet.world.now for member in MEMBERS] == [True, True, False, False]
    assert fleet.said("resumed") == [{"round": 1, "accepted": 3}]
    fleet.world.tamper = lambda sender, publish: [publish]
    fleet.until("round")
    assert fleet.result().outcome == APPLIED


def test_between_two_rounds_is_after_one_and_before_the_next() -> None:
    fleet = Listener(replace(SETTINGS, total=2, pause=10.0))
    assert not fleet.round.between()
    for event, between in (("plan", False), ("frozen", False), ("round", True)):
        fleet.until(event)
        assert fleet.round.between() == between
    fleet.world.run(fleet.world.noted(0, "plan", 2))
    assert not fleet.round.between()


# A sum that does not open.


def test_a_sum_that_fails_with_nobody_to_examine_makes_the_round_void() -> None:
    """No recovery is left: the silent member took the only one."""
    fleet = Listener()
    fleet.silence("masksum", 2)
    fleet.until("frozen")
    fleet.round._uploads.total.body[0] += 1
    fleet.until("round")
    assert (fleet.result().outcome, fleet.result().reason) == (VOID, CHECKSUM)
    assert fleet.said("round")[0]["why"] == "wrong checksum"
    assert fleet.said("round")[0]["recovered"] == [2]
    assert fleet.result().included == b""


@pytest.mark.parametrize(("fails", "restart"), [(True, False), (False, False), (False, True)])
def test_an_examination_that_nobody_helps_with_lasts_until_the_plan_ends(fails: bool, restart: bool) -> None:
    """The sum was wrong, and stays so; or it was never opened."""
    fleet = Listener(audit_rate=0.0 if fails else 1.0)
    fleet.silence("share", *MEMBERS)
    fleet.until("frozen")
    if fails:
        fleet.round._uploads.total.body[0] += 1
    if restart:
        fleet.until("examining")
        fleet.world.crash(0, keep_session=True)
        fleet.world.start(0)
    end = fleet.until("round")
    assert len(fleet.said("examining")) == 1
    assert fleet.plan().until <= end
    expected = (VOID, CHECKSUM) if fails else (ABORTED, MEMBERS_MISSING)
    assert (fleet.result().outcome, fleet.result().reason) == expected


def test_the_coin_is_tossed_once_a_round() -> None:
    fleet = Listener(members=5, audit_rate=1.0, recoveries=2, committee_min=5)
    fleet.until("round")
    assert fleet.result().outcome == APPLIED
    assert len(fleet.said("examining")) == len(fleet.said("cleared")) == 1
    # The next suspicion goes on from here.
    assert fleet.world.records[0].data[CLEARED]


@pytest.mark.parametrize("evidence", [True, False])
def test_what_the_coordinator_saw_is_kept_if_the_settings_say_so(evidence: bool) -> None:
    fleet = Listener(replace(SETTINGS, evidence=evidence))
    fleet.until("round")
    records = fleet.world.records[0].data
    delta = read(Frame.from_bytes(fleet.published("model", "delta")[0][1]), Delta)
    assert records.get(SUM_EVIDENCE) == (delta.body if evidence else None)
    assert (UPLOAD_EVIDENCE in records) == evidence
