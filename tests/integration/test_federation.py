"""A whole federation over a real broker: rounds over changes of epoch, a device that was away, and what was said of it.

Six devices, four of them the committee. One device is away for whole rounds and over a change of epoch, and comes back.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fleet_fixture import COORDINATOR, Event, Fleet, Witness

pytestmark = pytest.mark.integration

ROUNDS, EPOCH_ROUNDS = 14, 4
AWAY = "part-2"


@dataclass
class Story:
    """The federation after its end."""

    fleet: Fleet
    witness: Witness
    exit_codes: dict[str, int]
    away_from: int
    back_at: int

    def rounds(self) -> list[Event]:
        return self.fleet.events(COORDINATOR, "round")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    # Five of six are enough, so that rounds end while one is away.
    rounds = {"total": ROUNDS, "enough": 0.8, "patience": 0.3}
    directory = tmp_path_factory.mktemp("federation")
    with Fleet(directory, policy={"epoch_rounds": EPOCH_ROUNDS}, rounds=rounds) as fleet:
        fleet.broker.start()
        with Witness(fleet) as witness:
            fleet.start(COORDINATOR, *fleet.devices)
            fleet.wait_for(AWAY, "accepted", round=2)
            (code,) = fleet.stop(AWAY)
            assert code == 0
            fleet.wait_for(COORDINATOR, "plan", epoch=2)
            back_at = fleet.wait_for(COORDINATOR, "plan", that=lambda told: told["round"] >= 7)["round"]
            since = fleet.mark()
            fleet.start(AWAY)
            fleet.wait_for(AWAY, "accepted", since)
            fleet.wait_for(COORDINATOR, "stopped")
            for name in fleet.devices:
                fleet.wait_for(name, "score", version=ROUNDS)
            codes = dict(zip(fleet.devices, fleet.stop(*fleet.devices), strict=True))
            codes[COORDINATOR] = fleet.processes[COORDINATOR].wait()
            yield Story(fleet, witness, codes, 2, back_at)


def test_every_round_is_applied_and_epochs_follow_each_other_without_a_pause(story: Story) -> None:
    rounds = story.rounds()
    assert [told["round"] for told in rounds] == list(range(1, ROUNDS + 1))
    assert {told["outcome"] for told in rounds} == {"applied"}
    assert [told["version"] for told in rounds] == list(range(1, ROUNDS + 1))
    epochs = [told["epoch"] for told in story.fleet.events(COORDINATOR, "plan")]
    assert epochs == [1 + (number - 1) // EPOCH_ROUNDS for number in range(1, ROUNDS + 1)]
    assert all(told["members"] == [1, 2, 3, 4] for told in story.fleet.events(COORDINATOR, "epoch-ready"))


def test_everyone_ends_with_the_coordinators_model_and_it_has_learned(story: Story) -> None:
    models = {story.fleet.model(name) for name in (COORDINATOR, *story.fleet.devices)}
    assert len(models) == 1
    assert models.pop()[0] == ROUNDS
    first, last = story.rounds()[0], story.rounds()[-1]
    assert last["loss"] < first["loss"] / 2
    assert last["accuracy"] > first["accuracy"]


def test_who_was_away_over_an_epoch_comes_back_and_takes_part(story: Story) -> None:
    took_part = {told["round"] for told in story.fleet.events(AWAY, "accepted")}
    assert not took_part & set(range(story.away_from + 1, story.back_at))
    assert took_part & set(range(story.back_at, ROUNDS + 1))
    uploads = {told["round"]: told["uploads"] for told in story.rounds()}
    assert all(uploads[number] == 5 for number in range(story.away_from + 1, story.back_at))
    assert uploads[ROUNDS] == 6


def test_only_the_coordinators_topics_carried_an_upload_and_nothing_went_out_twice(story: Story) -> None:
    story.witness.check()
    uploads = story.witness.seen("up", "upload")
    assert {at.device for at, _ in uploads.values()} == set(range(1, 7))
    pieces = {payload for _, payloads in uploads.values() for payload in payloads}
    elsewhere = [
        topic
        for kind in ("down", "model", "result", "plan", "document", "card", "key", "share", "ready")
        for topic, (_, payloads) in story.witness.seen(kind).items()
        if payloads & pieces
    ]
    assert elsewhere == []


def test_everybody_ends_cleanly_and_nothing_was_refused_or_failed(story: Story) -> None:
    assert set(story.exit_codes.values()) == {0}
    for name in (COORDINATOR, *story.fleet.devices):
        last = json.loads(story.fleet.lines(name)[-1])
        assert last["event"] == "stopped"
        assert last["failures"] == 0
        assert story.fleet.events(name, "refused") == []
        for trouble in ("internal-error", "denied", "refused-by-broker", "setup-failed", "declined"):
            assert story.fleet.events(name, trouble) == []


def test_no_journal_status_or_log_holds_a_secret(story: Story) -> None:
    fleet = story.fleet
    said = "\n".join(fleet.lines()).encode()
    said += b"".join(path.read_bytes() for path in fleet.directory.glob("state-*/status.json"))
    said += fleet.broker.log.read_bytes()
    kept = {
        (name, what): secret for name in (COORDINATOR, *fleet.devices) for what, secret in fleet.secrets(name).items()
    }
    assert {what for _, what in kept} >= {"identity.key", "seal.key", "vault/secret"}
    assert any(what.startswith("sheet/") for _, what in kept)
    for place, secret in kept.items():
        forms = (secret, secret.hex().encode(), base64.b64encode(secret)[:-3], repr(secret)[2:-1].encode())
        assert not any(form in said or form.upper() in said for form in forms), place
