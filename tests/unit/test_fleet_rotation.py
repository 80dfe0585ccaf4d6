"""New keys and new dates at the owners' desk: what devices then take, what is refused, what a death leaves behind."""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from fleet_tools import Empty
from nacl.utils import random

from coordinator.documents import read_documents
from fleet import rotation
from fleet.cli import fleet
from fleet.composition import DATE_NOTICE, DAY, ROOT_NOTICE
from fleet.desk import ROOT_DAYS, Desk
from fleet.renewal import renew_device
from hushfleet.bundle import Bundle, read_secret
from hushfleet.errors import ConfigurationError
from hushfleet.hashing import key_id
from hushfleet.trust import READY, Trust
from hushfleet.wire.documents import Date, Root
from hushfleet.wire.framing import Frame, Identity

NOW = 1_700_000_000
NAMES = ("committee", "roster", "policy", "model")


def invoke(*arguments: object) -> Result:
    """Run `hushfleet fleet …`; an error raised on purpose is raised here too."""
    result = CliRunner().invoke(fleet, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed fleet of two devices; tests take a copy."""
    home = tmp_path_factory.mktemp("desk") / "acme"
    desk = Desk.create(home, hosts=["localhost"], port=8883, settings=None, draw=random, now=NOW)
    desk.add(["a", "b"], 3, "gateway-wifi", draw=random, now=NOW)
    desk.sign(draw=random, now=NOW)
    return home


@pytest.fixture
def home(signed: Path, tmp_path: Path) -> Path:
    """A copy of the signed fleet."""
    return Path(shutil.copytree(signed, tmp_path / "acme"))


def keys(home: Path) -> dict[bytes, Path]:
    """Every owner's key at the desk, wherever it lies, by its id."""
    files = [path for role in ("root", "signer", "fresh") for path in home.rglob(f"{role}-*.key")]
    found = {key_id(Identity(0, read_secret(path)).public_key): path for path in files}
    assert len(found) == len(files), "a key lies in two places"
    return found


def newest(home: Path) -> Root:
    return Desk(home).newest_root()


def named(root: Root) -> set[bytes]:
    return {key_id(key) for role in root.roles().values() for key in role[0]}


def trusts(home: Path, at: float) -> Trust:
    """What a device makes of the desk's documents that knows nothing but its bundle; it must come to trust them."""
    bundle, published = Bundle.load(home / "devices/a"), read_documents(home / "documents")
    trust = Trust(bundle.fleet, bundle.root_hash, NAMES, Empty(), 0)
    for version in sorted(published.roots):
        trust.offer_root(published.roots[version])
    trust.offer_manifest(published.manifest)
    trust.offer_date(published.date)
    for name in NAMES:
        trust.offer_document(name, published.documents[name])
    trust.offer_certificate(published.certificates[1], Identity(1, bundle.identity_seed).public_key)
    assert trust.state(at) == READY
    return trust


def rotate(home: Path, *roles: str, at: int = NOW + DAY) -> None:
    with Desk.open(home) as desk:
        rotation.rotate(desk, dict.fromkeys(roles), draw=random, now=at)


def test_the_next_root_carries_the_thresholds_of_both_and_every_old_key_is_kept(home: Path) -> None:
    before, old = keys(home), newest(home)
    rotate(home, "root", "signer", "fresh")
    frame, root = Frame.from_bytes((home / "documents/root.2").read_bytes()), newest(home)
    signers = {signer for signer, _ in frame.signatures}
    assert signers == {key_id(key) for key in (*old.root, *root.root)}
    assert root.version == 2
    assert root.not_after == NOW + DAY + ROOT_DAYS * DAY
    assert not named(root) & named(old)
    after = keys(home)
    assert set(before) < set(after)
    for known, path in after.items():
        assert path.parent == (home / "keys" if known in named(root) else home / "keys/retired")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not (home / "keys/next").exists()
    assert trusts(home, NOW + DAY).pair == (2, 2)


@pytest.mark.parametrize("role", ["root", "signer", "fresh"])
def test_one_role_alone_and_again(home: Path, role: str) -> None:
    for version in (2, 3):
        old = newest(home)
        rotate(home, role, at=NOW + version)
        for other, (names, threshold) in newest(home).roles().items():
            assert (names == old.roles()[other][0]) == (other != role)
            assert threshold == old.roles()[other][1]
        assert trusts(home, NOW + DAY).pair == (version, version)


def test_only_what_the_signers_signed_is_signed_anew(home: Path) -> None:
    def content() -> dict[str, bytes]:
        return {
            str(path.relative_to(home)): path.read_bytes() for path in home.glob("documents/**/*") if path.is_file()
        }

    before = content()
    rotate(home, "root", "fresh")
    changed = {name.removeprefix("documents/") for name, data in content().items() if data != before.get(name)}
    assert changed == {"root.2", "manifest", "date"}
    before = content()
    rotate(home, "signer", at=NOW + 2 * DAY)
    changed = {name.removeprefix("documents/") for name, data in content().items() if data != before.get(name)}
    assert changed == {"root.3", "manifest", "date", "cert/0", "cert/1", "cert/2"}


def test_a_device_added_after_a_rotation_finds_its_way(home: Path) -> None:
    rotate(home, "root", "signer")
    with Desk.open(home) as desk:
        desk.add(["c"], 1, "gateway-wifi", draw=random, now=NOW + 2 * DAY)
        desk.sign(draw=random, now=NOW + 2 * DAY)
    bundle, trust = Bundle.load(home / "devices/c"), trusts(home, NOW + 2 * DAY)
    trust.certificate = None
    assert trust.offer_certificate(bundle.certificate, Identity(3, bundle.identity_seed).public_key)


def test_thresholds_change_with_the_keys(home: Path) -> None:
    invoke("rotate", home, "--root", "--signer", "--threshold", "root", 3, 5, "--threshold", "signer", 2, 2)
    root = newest(home)
    assert [len(root.root), root.root_n, len(root.signer), root.signer_n] == [5, 3, 2, 2]
    (home / "keys/signer-2.key").unlink()
    with pytest.raises(ConfigurationError, match="a manifest needs 2 signatures but only 1 keys are at hand"):
        invoke("rotate", home, "--root")
    assert newest(home) == root


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the keys to replace"),
        (("--root", "--threshold", "signer", 1, 1), "--threshold signer goes with --signer"),
        (("--root", "--threshold", "root", 3, 2), "3 of 2 keys can never sign"),
        (("--root", "--threshold", "root", 3, 11), "11 is not in the range"),
    ],
)
def test_a_rotation_that_makes_no_sense_is_refused(home: Path, arguments: tuple[object, ...], said: str) -> None:
    before = keys(home)
    result = CliRunner().invoke(fleet, ["rotate", str(home), *map(str, arguments)])
    assert result.exit_code == click.UsageError.exit_code
    assert said in result.output
    assert keys(home) == before


def test_an_absent_root_key_stays_named_by_the_root(home: Path) -> None:
    """Keys may lie elsewhere: two of three suffice, and the third is not forgotten."""
    third = (home / "keys/root-3.key").read_bytes()
    (home / "keys/root-3.key").unlink()
    old = newest(home)
    rotate(home, "signer")
    assert newest(home).root == old.root
    (home / "keys/root-3.key").write_bytes(third)
    (home / "keys/root-3.key").chmod(0o600)
    (home / "keys/root-1.key").unlink()
    rotate(home, "root", at=NOW + 2 * DAY)
    assert trusts(home, NOW + 2 * DAY).pair == (3, 3)


def test_too_few_root_keys_change_nothing(home: Path) -> None:
    for number in (1, 3):
        (home / f"keys/root-{number}.key").unlink()
    before = sorted(home.rglob("*"))
    with pytest.raises(ConfigurationError, match="a root needs 2 signatures but only 1 keys are at hand"):
        rotate(home, "root")
    assert sorted(home.rglob("*")) == before


def test_a_key_in_the_wrong_place_does_not_sign(home: Path, tmp_path: Path) -> None:
    """Only what the newest root names counts; what it does not name is put aside, not lost."""
    stranger = tmp_path / "other"
    Desk.create(stranger, hosts=["localhost"], port=8883, settings=None, draw=random, now=NOW)
    shutil.copy2(stranger / "keys/root-1.key", home / "keys/root-4.key")
    rotate(home, "signer")
    frame = Frame.from_bytes((home / "documents/root.2").read_bytes())
    assert {signer for signer, _ in frame.signatures} == {key_id(key) for key in newest(home).root}
    assert set(keys(stranger)) & set(keys(home))


def test_a_fleet_that_was_never_signed_is_signed_first(tmp_path: Path) -> None:
    Desk.create(tmp_path / "new", hosts=["localhost"], port=8883, settings=None, draw=random, now=NOW)
    for command in (["rotate", tmp_path / "new", "--root"], ["date", tmp_path / "new"]):
        with pytest.raises(ConfigurationError, match="nothing is signed yet; run: hushfleet fleet sign"):
            invoke(*command)


def test_no_secret_is_printed(home: Path) -> None:
    said = (
        invoke("rotate", home, "--root", "--signer", "--freshness").output + invoke("date", home, "--days", 40).output
    )
    for path in keys(home).values():
        assert path.read_text().strip() not in said


class Death(BaseException):
    """The process is gone."""


def die_before(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Let the process die just before its `step`-th file takes its place; gives the steps that were begun."""
    steps = 0

    def dying(move: Callable[..., None]) -> Callable[..., None]:
        def moved(source: Path, target: Path) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                raise Death
            move(source, target)

        return moved

    monkeypatch.setattr(os, "replace", dying(os.replace))
    monkeypatch.setattr(os, "rename", dying(os.rename))
    return lambda: steps


def test_a_rotation_that_dies_anywhere_has_not_begun_or_is_finished_by_the_next_signature(
    signed: Path, tmp_path: Path
) -> None:
    """Before its root is written nothing has happened; from then on each command that cannot go on names the remedy."""
    before, step = keys(signed), 0
    states: list[str] = []
    while not states or states[-1] != "done":
        step += 1
        home = Path(shutil.copytree(signed, tmp_path / f"step-{step}"))
        with pytest.MonkeyPatch.context() as patch, suppress(Death):
            steps = die_before(patch, step)
            rotate(home, "root", "signer", "fresh")
        states.append(state_of(home) if steps() == step else "done")
        if states[-1] == "half":
            for command in (["rotate", home, "--root"], ["date", home]):
                with pytest.raises(ConfigurationError, match="root 2 was interrupted; finish it: hushfleet fleet sign"):
                    invoke(*command)
        with Desk.open(home) as desk:
            desk.sign(draw=random, now=NOW + 2 * DAY)
        root = newest(home)
        assert root.version == (1 if states[-1] == "not begun" else 2)
        assert trusts(home, NOW + 2 * DAY).pair[0] == root.version
        assert set(before) <= set(keys(home)), "a key was lost"
        for known, path in keys(home).items():
            assert path.parent == (home / "keys" if known in named(root) else home / "keys/retired")
        assert not (home / "keys/next").exists()
    assert list(dict.fromkeys(states)) == ["not begun", "half", "in force", "done"]


def state_of(home: Path) -> str:
    found = Desk(home).manifest()
    assert found is not None
    if newest(home).version == 1:
        return "not begun"
    return "in force" if found[1].root == 2 else "half"


def test_a_rotation_after_one_that_did_not_begin(home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Death):
        die_before(patch, 3)
        rotate(home, "root", "signer", "fresh")
    abandoned = {known for known, path in keys(home).items() if path.parent.name == "next"}
    assert len(abandoned) == 2
    rotate(home, "root", "signer", "fresh", at=NOW + 2 * DAY)
    assert trusts(home, NOW + 2 * DAY).pair == (2, 2)
    assert not abandoned & named(newest(home))
    assert {keys(home)[known].parent.name for known in abandoned} == {"retired"}


# ---- dates


def date_of(home: Path) -> Date:
    return Date.from_body(Frame.from_bytes((home / "documents/date").read_bytes()).body)


def test_a_new_date_needs_no_key_but_the_freshness_key(home: Path) -> None:
    for path in (home / "keys").iterdir():
        if not path.name.startswith("fresh-"):
            path.unlink()
    (home / "fleet.toml").unlink()
    manifest = (home / "documents/manifest").read_bytes()
    with Desk.open(home) as desk:
        rotation.redate(desk, days=45, now=NOW + DAY)
    assert (home / "documents/manifest").read_bytes() == manifest
    assert (date_of(home).issued, date_of(home).not_after) == (NOW + DAY, NOW + 46 * DAY)
    assert trusts(home, NOW + 45 * DAY).valid_until() == NOW + 46 * DAY


def test_a_new_date_lasts_as_long_as_fleet_toml_says_and_never_shorter_than_before(home: Path) -> None:
    with Desk.open(home) as desk:
        rotation.redate(desk, days=None, now=NOW + DAY)
        assert date_of(home).not_after == NOW + 31 * DAY
        for days in (None, 20):
            with pytest.raises(ConfigurationError, match=r"last until 2023-12-15 already; name more days with --days"):
                rotation.redate(desk, days=days, now=NOW + DAY)


def test_a_clock_before_the_last_signature_dates_and_rotates_nothing(home: Path) -> None:
    with Desk.open(home) as desk, pytest.raises(ConfigurationError, match="set the clock"):
        rotation.redate(desk, days=400, now=NOW - 1)
    with pytest.raises(ConfigurationError, match="set the clock"):
        rotate(home, "root", at=NOW - 1)
    assert newest(home).version == 1


def test_an_old_date_does_not_outlive_its_freshness_key(home: Path) -> None:
    """Whoever held the key may have dated the manifest for years: a new root makes it another manifest."""
    with Desk.open(home) as desk:
        rotation.redate(desk, days=3_000, now=NOW)
    old = (home / "documents/date").read_bytes()
    rotate(home, "fresh")
    trust = trusts(home, NOW + DAY)
    assert trust.valid_until() == NOW + 31 * DAY
    with pytest.raises(Exception, match="0 of 1 signatures"):
        trust.offer_date(old)


@pytest.mark.parametrize(
    ("at", "warned"),
    [
        (NOW, False),
        (NOW + ROOT_DAYS * DAY - ROOT_NOTICE, False),
        (NOW + ROOT_DAYS * DAY - ROOT_NOTICE + 1, True),
        (NOW + ROOT_DAYS * DAY + 1, True),
    ],
)
def test_a_root_that_runs_out_soon_is_told_and_a_rotation_ends_that(home: Path, at: int, warned: bool) -> None:
    with Desk.open(home) as desk:
        for name in ("coordinator", "a", "b"):  # whose certificates end with the root
            renew_device(desk, name, now=at)
        for composition in (desk.sign(draw=random, now=at), rotation.redate(desk, days=31, now=at)):
            assert any("root 1 runs out on" in warning for warning in composition.warnings) == warned
        composition, _ = rotation.rotate(desk, {"root": None}, draw=random, now=at)
    assert not any("runs out" in warning and "root" in warning for warning in composition.warnings)
    assert trusts(home, at).pair[0] == 2


def test_documents_that_run_out_soon_are_told(home: Path) -> None:
    rules = (home / "fleet.toml").read_text()
    for days in (DATE_NOTICE // DAY - 1, DATE_NOTICE // DAY):
        (home / "fleet.toml").write_text(rules.replace("manifest = 30", f"manifest = {days}"))
        with Desk.open(home) as desk:
            warnings = desk.sign(draw=random, now=NOW).warnings
        assert any("the documents run out on" in warning for warning in warnings) == (days * DAY < DATE_NOTICE)
