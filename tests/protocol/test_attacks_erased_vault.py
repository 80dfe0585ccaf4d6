"""Vaults stolen after a round open nothing of it (docs/protocol.md, section 3, Erasure; section 7, forward secrecy).

The thief has every record of every device and of the coordinator, all their keys, and everything the broker ever saw.
"""

from collections.abc import Iterable
from typing import Any

import pytest
from adversary import Adversary
from world import RoundSettings, World, make_fleet

from edge_agent.sheets import Attempt, RoundSheet
from hushfleet.actions import Publish
from hushfleet.codec import OpeningError
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg import masks
from hushfleet.secagg.committee import Sheet, deal
from hushfleet.wire.framing import entries

SETTINGS = RoundSettings(collect=30, answer=8, recover=30, total=9)


class Watch:
    """Every secret of every round, noted as it was made, and where it still is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[bytes] = []
        self.sheets: list[Sheet] = []
        honest_key, honest_deal = masks.round_key, deal

        def round_key(*arguments: Any) -> masks.RoundKey:
            key = honest_key(*arguments)
            self.keys.append(key.y)
            return key

        def dealing(*arguments: Any) -> Sheet:
            sheet = honest_deal(*arguments)
            self.sheets.append(sheet)
            return sheet

        monkeypatch.setattr(masks, "round_key", round_key)
        monkeypatch.setattr("edge_agent.dealer.arithmetic.deal", dealing)

    def secrets_of(self, k: int, epoch: int, members: int) -> set[bytes]:
        """All secrets and shares of round k of an epoch, dealt as the `epoch`-th from 0."""
        dealt = self.sheets[epoch * members : (epoch + 1) * members]
        return {
            secret
            for sheet in dealt
            for secret in (*sheet.polynomials[k], *(sheet.shares(position)[k] for position in range(1, members + 1)))
        }


def found(world: World, secrets: Iterable[bytes]) -> list[tuple[int, str]]:
    """Records that hold one of these, anywhere in them; what is retained on the broker with them."""
    wanted = list(secrets)
    held = [(index, key, value) for index, records in world.records.items() for key, value in records.data.items()]
    held += [(-1, topic, payload) for topic, payload in world.broker.retained.items()]
    return [(index, key) for index, key, value in held if any(secret in value for secret in wanted)]


def test_after_each_result_no_secret_of_the_round_is_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    world = World(make_fleet(3, 4, epoch_rounds=3), rounds=SETTINGS)
    for number in range(1, 10):
        epoch, k = divmod(number - 1, 3)
        world.run(lambda world, number=number: world.counts[0, "frozen"] >= number)  # type: ignore[misc]
        secrets = watch.secrets_of(k, epoch, 4)
        assert len(secrets) == 4 * (3 + 4)
        # While the round is under way its secrets are where they must be, each in its owner's sheet.
        assert {key.split("/")[0] for _, key in found(world, secrets)} == {"sheet"}
        world.run(world.rounds_ended(number))
        world.run_for(0.02)
        assert found(world, secrets) == []
        assert found(world, watch.keys) == []
    assert len(watch.keys) == 27


def test_sealing_secrets_are_gone_when_a_member_is_ready() -> None:
    world = World(make_fleet(3, 4), rounds=SETTINGS)
    secrets: set[bytes] = set()

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        for key, value in world.records[sender].data.items():
            if sender and key.startswith("setup/"):
                secrets.update(entries(Attempt.from_body(value).secrets, 32))
        return [publish]

    world.tamper = tamper
    world.run(world.noted(0, "epoch-ready"))
    assert len(secrets) == 4 * 3
    assert found(world, secrets) == []


def test_a_thief_of_all_vaults_opens_nothing_of_past_rounds() -> None:
    adversary = Adversary.in_fleet(make_fleet(4, 4, epoch_rounds=6), corrupt=range(1, 9))
    announced = adversary.open_round(2)
    uploads = adversary.uploads(announced)
    survivors = adversary.set_of(announced, [upload.survivor(index) for index, upload in uploads.items()])
    sums = [adversary.ask_sum(member, announced, survivors) for member in (1, 2, 3, 4)]
    assert all(sums)
    # A thief who comes while the round is under way opens everyone: which is why the bound counts such vaults.
    early = {member: adversary.sheet(member, announced).secret for member in (1, 2, 3, 4)}
    assert adversary.open_single(5, early, announced)[5] > 0
    # One who comes after the next plan finds other rounds' secrets alone.
    adversary.open_round(3)
    world = adversary.world
    left: dict[str, dict[int, bytes]] = {}
    scalars: set[bytes] = set()
    for member in (1, 2, 3, 4):
        for key, value in world.records[member].data.items():
            if key.startswith("sheet/"):
                sheet = RoundSheet.from_body(value)
                left.setdefault(key, {})[member] = sheet.secret
                scalars |= {sheet.secret, *entries(sheet.shares, 32)}
    assert len(left) >= 3
    assert scalars.isdisjoint(early.values())
    for secrets in left.values():
        for victim in uploads:
            with pytest.raises(OpeningError):
                adversary.open_single(victim, secrets, announced)
    # Nor do the members keep the answers, which with the coordinator's key would be its mask sums.
    sealed = [sent.payload for sent in world.broker.log if "/masksum/2/" in sent.topic]
    assert len(sealed) == 4
    assert found(world, sealed) == []


def test_a_stolen_participant_holds_nothing_of_its_past_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    world = World(make_fleet(3, 4), rounds=RoundSettings(collect=30, answer=8, recover=30, total=2))
    world.run(world.rounds_ended(2))
    world.run_for(1)
    kept = set(world.records[5].data)
    assert {key.split("/")[0] for key in kept} <= {"vault", "trust", "participant", "model", "device", "dealer"}
    assert "participant/upload" not in kept
    assert found(world, watch.keys) == []


def test_the_coordinator_keeps_nothing_of_a_round_that_is_over() -> None:
    world = World(make_fleet(3, 4), rounds=RoundSettings(collect=30, answer=4, recover=30, total=1))
    topics = Topics(world.keys.fleet)
    world.tamper = lambda sender, publish: (
        [] if sender == 2 and topics.parse(publish.topic).name == "masksum" else [publish]
    )
    prefixes = ("upload/", "sum", "masksum/", "share/", "round/open")
    seen: set[str] = set()

    def watching(world: World) -> bool:
        seen.update(key.split("/")[0] for key in world.records[0].data if key.startswith(prefixes))
        return bool(world.outcomes())

    world.run(watching)
    assert seen == {"upload", "sum", "masksum", "share", "round"}
    assert world.outcomes()[0]["recovered"] == [2]
    assert [key for key in world.records[0].data if key.startswith(prefixes)] == []


# Ends that no message tells of.


def sheets(world: World, member: int) -> set[tuple[int, int]]:
    """(epoch, round) of which a member holds secrets."""
    keys = [key.split("/") for key in world.records[member].data if key.startswith("sheet/")]
    return {(int(epoch), int(number)) for _, epoch, number in keys}


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_without_a_result_the_plans_last_moment_ends_the_round(restart: bool) -> None:
    adversary = Adversary.in_fleet(make_fleet(4, 4))
    announced = adversary.open_round(2)
    shown = [upload.survivor(index) for index, upload in adversary.uploads(announced).items()]
    assert adversary.ask_sum(1, announced, adversary.set_of(announced, shown))
    world = adversary.world
    if restart:
        world.crash(1)
        # It comes back when the plan is past, and nobody shows it that plan again.
        world.broker.retained.clear()
        world.run_for(announced.plan.until - world.now)
        world.start(1)
    assert (1, 2) in sheets(world, 1)
    world.run_for(announced.plan.until - world.now + 10)
    assert sheets(world, 1) == {(1, 3), (1, 4)}
    sealed = [sent.payload for sent in world.broker.log if "/masksum/2/" in sent.topic]
    assert found(world, sealed) == []


def test_an_epoch_ends_at_its_not_after_without_another_plan() -> None:
    world = World(make_fleet(3, 4, epoch_age=600), rounds=RoundSettings(collect=30, answer=8, recover=30, total=1))
    world.run(world.rounds_ended(1))
    world.run_for(1)
    assert sheets(world, 1) == {(1, 2), (1, 3), (1, 4)}
    world.run_for(700)
    for member in (1, 2, 3, 4):
        assert sheets(world, member) == set()
        assert not [key for key in world.records[member].data if key.startswith("setup/")]


def test_a_member_keeps_the_secrets_of_two_attempts_at_most() -> None:
    """Member 4's readiness never arrives: the others get ready for attempt after attempt, and no plan comes of it."""
    world = World(make_fleet(3, 4, committee_min=4), rounds=SETTINGS)
    topics = Topics(world.keys.fleet)
    world.tamper = lambda sender, publish: (
        [] if sender == 4 and topics.parse(publish.topic).kind == "ready" else [publish]
    )
    most = 0

    def watching(world: World) -> bool:
        nonlocal most
        most = max(most, len({epoch for epoch, _ in sheets(world, 1)}))
        return world.counts[0, "setup-failed"] >= 4

    world.run(watching, deadline=3600.0)
    world.run_for(10)
    assert world.counts[1, "ready"] == 4
    assert most <= 2
    assert len({epoch for epoch, _ in sheets(world, 1)}) == 1
