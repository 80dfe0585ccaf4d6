"""`hushfleet plan`: what it recommends, why the others lose, and its table, picture and JSON."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from nacl.utils import random

from firmware_profiles import catalog
from fleet.desk import Desk
from hushfleet.errors import ConfigurationError
from hushfleet.wire.layers import Dense, parameter_count
from planner import choices
from planner.cli import model_of, plan
from planner.costs import Training
from planner.planner import TARGETS, Proposal, Wishes, propose

ASKED = ("--model", "64-32-8", "--profile", "gateway-lte-m", "--devices", "40", "--rounds", "100")


def proposal(target: str = "bytes", **changes: Any) -> Proposal:
    wishes: dict[str, Any] = {
        "layers": (Dense(64, 32, "relu"), Dense(32, 8)),
        "profile": catalog.load("gateway-lte-m"),
        "devices": 40,
        "survivors": 40,
        "training": Training(rounds=100, steps=20, batch=32, pause=3600),
        "corrupt": 0.05,
        "downtime": 0.05,
        "risk": 0.01,
        "epoch_rounds": 32,
    }
    return propose(Wishes(**{**wishes, **changes}), TARGETS[target])


# What is recommended.


def test_what_is_recommended_keeps_every_rule_and_the_others_differ_in_one_thing() -> None:
    found = proposal()
    assert found.best.against == ()
    assert found.best.privacy_failure <= 0.01
    assert found.best.choice.encoding.name == "default B=5"
    for part, verdicts in found.others.items():
        assert verdicts
        for verdict in verdicts:
            assert verdict.why
            for other in ("encoding", "committee", "window"):
                same = getattr(verdict.option.choice, other) == getattr(found.best.choice, other)
                assert same == (other != part)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_is_allowed_is_much_better(target: str) -> None:
    found = proposal(target)
    measure = found.target.measure
    allowed = [option for option in found.options if not option.against]
    assert measure(found.best) <= 1.03 * min(map(measure, allowed))


def test_what_no_coordinator_can_be_set_to_is_shown_but_not_recommended() -> None:
    settings = {"plain", "thrift B=5", "default B=5", "fast B=6"}
    for option in proposal().options:
        refused = any("no setting of a coordinator" in why for why in option.against)
        assert refused == (option.choice.encoding.name not in settings)


def test_an_encoding_that_did_not_get_there_is_never_recommended() -> None:
    found = proposal(devices=100, survivors=100)
    thrift = [option for option in found.options if option.choice.encoding.keep == 0.05]
    assert thrift
    assert all(any("was not seen to reach the target" in why for why in option.against) for option in thrift)


def test_more_corrupt_devices_need_a_committee_that_bears_them() -> None:
    few, many = proposal(corrupt=0.02), proposal(corrupt=0.2, risk=0.2)
    assert many.best.choice.committee.members > few.best.choice.committee.members
    assert many.best.privacy_failure <= 0.2


def test_what_cannot_be_recommended_is_said_with_its_reason() -> None:
    with pytest.raises(ConfigurationError, match=r"nothing can be recommended.*too many corrupt members"):
        proposal(corrupt=0.9)
    small = replace(catalog.load("gateway-nb-iot"), memory=catalog.Figure(64))
    with pytest.raises(ConfigurationError, match=r"needs 55 MiB of 64"):
        proposal(profile=small)


def test_a_round_that_fails_is_run_again() -> None:
    plain = [option for option in proposal(downtime=0.02).options if option.choice.encoding.codec == 0]
    option = next(option for option in plain if option.choice.committee.members == 3)
    assert option.rounds == pytest.approx(100 / (1 - option.round_failure))
    assert option.round_failure == pytest.approx(1 - 0.98**3)


@pytest.mark.parametrize(("survivors", "bits"), [(1, 2), (10, 4), (16, 4), (17, 5), (50, 5), (100, 6), (10_000, 9)])
def test_the_encodings_are_the_profiles_with_their_bits_and_one_more(survivors: int, bits: int) -> None:
    rotated = [encoding for encoding in choices.encodings(survivors) if encoding.codec == 1]
    found = {(encoding.keep, encoding.bits) for encoding in rotated}
    slow = {(keep, bits + more) for keep in (0.05, 0.1, 0.25) for more in (0, 1)}
    assert found == slow | {(1.0, bits + 1), (1.0, bits + 2)}


# The command.


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(plan, [*ASKED, *arguments], catch_exceptions=False)


def test_the_table_says_what_why_not_and_what_is_guessed() -> None:
    said = CliRunner(env={"COLUMNS": "180"}).invoke(plan, ASKED)
    assert said.exit_code == 0
    for text in ("Recommended for the fewest bytes", "Why the others lose", "22 figures 22 are guesses", "fast B=7"):
        assert text in said.output
    assert "link.rate_up" in said.output


@pytest.mark.parametrize(("width", "shown"), [(180, True), (100, False), (80, False)])
def test_the_comparison_fits_the_terminal(width: int, shown: bool) -> None:
    said = CliRunner(env={"COLUMNS": str(width)}).invoke(plan, ASKED).output
    assert ("privacy fails" in said.partition("Why the others lose")[2].partition("recommended")[0]) == shown
    assert max(map(len, said.splitlines())) <= width
    assert all(
        line.endswith(("┓", "┃", "┩", "│", "┤", "┘")) for line in said.splitlines() if line[:1] in "┏┃┡│├└" and line
    )


def test_json_holds_every_choice_with_every_figure() -> None:
    found = json.loads(asked("--json").output)
    assert found["recommended"]["against"] == []
    assert found["parameters"] == 65 * 32 + 33 * 8
    assert len(found["options"]) == 9 * 8 * 5
    assert {"up", "airtime", "energy", "days", "wear"} <= set(found["recommended"]["participant"])
    assert "compute.step" in found["guessed"]
    assert all(row["why_not"] for rows in found["others"].values() for row in rows)


@pytest.mark.parametrize(
    ("name", "begins"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.html", b"<!doctype html>")]
)
def test_the_picture(tmp_path: Path, name: str, begins: bytes) -> None:
    path = tmp_path / name
    assert asked("--plot", str(path)).exit_code == 0
    assert path.read_bytes().startswith(begins)
    if name.endswith("html"):
        text = path.read_text()
        assert "<svg" in text
        assert "Why the others lose" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plot", "picture.pdf"), r"--plot picture.pdf: name a file that ends in .png, .svg or .html"),
        (("--profile", "gateway-lte"), r"no firmware profile 'gateway-lte'; did you mean 'gateway-lte-m'"),
        (("--model", "64-32-x"), r"--model 64-32-x: No such file or directory; give layer widths like 64-512-8"),
        (("--model", "3000000"), r"3,000,000 parameters; at most 2,000,000"),
    ],
)
def test_what_is_wrong_is_said(arguments: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        asked(*arguments)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "planner.table", None)
    with pytest.raises(ConfigurationError, match=r"extra \[report\]: pip install 'hushfleet\[report\]'; --json"):
        asked()
    assert asked("--json").exit_code == 0


def test_a_model_is_widths_a_number_or_the_owners_signed_document(tmp_path: Path) -> None:
    assert model_of("64-32-8") == ((Dense(64, 32, "relu"), Dense(32, 8, "relu")), 0)
    (layer,), _ = model_of("100000")
    assert parameter_count([layer]) == 100_000
    now = int(time.time())
    desk = Desk.create(tmp_path / "fleet", hosts=["localhost"], port=8883, settings=None, draw=random, now=now)
    desk.add(["a", "b", "c", "d", "e"], 3, "gateway-wifi", draw=random, now=now)
    desk.sign(draw=random, now=now)
    assert model_of(str(tmp_path / "fleet" / "documents" / "model")) == ((Dense(16, 32, "relu"), Dense(32, 2)), 0)
    toml = tmp_path / "fleet" / "fleet.toml"
    toml.write_text(toml.read_text().replace("personal = 0", "personal = 1"))
    desk.sign(draw=random, now=now)
    assert model_of(str(tmp_path / "fleet" / "documents" / "model")) == ((Dense(16, 32, "relu"), Dense(32, 2)), 1)
    planned = json.loads(asked("--json", "--model", str(tmp_path / "fleet" / "documents" / "model")).output)
    assert planned["parameters"] == 17 * 32
    with pytest.raises(ConfigurationError, match=r"roster is no model document"):
        model_of(str(tmp_path / "fleet" / "documents" / "roster"))
