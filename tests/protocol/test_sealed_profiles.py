"""Firmware profiles as the owners sealed them: which model specs a class of devices may train (docs/protocol.md, 2)."""

from dataclasses import replace

import pytest
from signed_fleet import START, YEAR, FleetKeys, make_fleet
from world import World

from hushfleet.errors import RefusedError
from hushfleet.trust import READY
from hushfleet.wire.documents import Firmware

OTHER_MODEL = b"\x07" * 32


def with_profiles(
    keys: FleetKeys, name: str = "test", models: tuple[bytes, ...] | None = None, version: int = 1
) -> FleetKeys:
    """The same fleet with one sealed profile; it pins the fleet's own model unless it is said otherwise."""
    pinned = (keys.documents["model"].hash(keys.fleet),) if models is None else models
    firmware = Firmware(name, "wifi", 4096, 4, 60, 0, pinned)
    documents = keys.documents | {"profile": keys.owner.profiles([firmware], version=version, issued=START)}
    manifest = keys.owner.sign_manifest(documents.values(), version=version, issued=START, not_after=START + YEAR)
    return replace(keys, documents=documents, manifest=manifest)


def why_declined(world: World) -> set[object]:
    """Why devices sat a round out, in their own words."""
    return {note.fields["why"] for _, _, note in world.notes if note.event == "declined" and "why" in note.fields}


def test_devices_train_the_model_that_their_profile_pins() -> None:
    world = World(with_profiles(make_fleet(4, 4)))
    world.run(world.rounds_ended(2))
    assert [(outcome["outcome"], outcome["uploads"]) for outcome in world.outcomes()] == [("applied", 4)] * 2
    trust = world.device(5).context.trust
    assert trust.profiles is not None
    assert trust.state(world.now) == READY


@pytest.mark.parametrize(
    ("name", "models", "why"),
    [
        ("test", (OTHER_MODEL,), "does not pin that model spec"),
        ("test", (), "does not pin that model spec"),
        ("another", None, "sealed no firmware profile of the name in this certificate"),
    ],
)
def test_devices_decline_what_no_profile_of_theirs_pins(name: str, models: tuple[bytes, ...] | None, why: str) -> None:
    world = World(with_profiles(make_fleet(4, 4), name, models))
    world.run(world.rounds_ended(1))
    assert [(outcome["outcome"], outcome["uploads"]) for outcome in world.outcomes()] == [("aborted", 0)]
    assert all(world.counts[index, "declined"] for index in world.keys.participants())
    assert any(why in str(said) for said in why_declined(world))


def test_sealed_profiles_never_go_back() -> None:
    keys = make_fleet(4, 4)
    newer, older = with_profiles(keys, version=5), with_profiles(keys, version=4)
    world = World(newer)
    world.run(world.rounds_ended(1))
    # Listed by a newer manifest, so that nothing but the document's own version is older.
    manifest = keys.owner.sign_manifest(older.documents.values(), version=6, issued=START, not_after=START + YEAR)
    with pytest.raises(RefusedError, match="profile 4 is older than 5"):
        world.device(5).context.trust.offer_manifest(manifest.to_bytes())
