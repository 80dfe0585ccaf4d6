"""`hushfleet agent calibrate`: every figure of a profile's [compute], in the form that a profile takes."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.calibration import Measurement, calibrate, fragment
from edge_agent.cli import agent
from edge_agent.training.choice import litert_trouble
from firmware_profiles import catalog
from hushfleet.errors import ConfigurationError

PROFILE = """
name = "mine"
description = "a device of one's own"
memory = 512
[link]
class = "wifi"
chunk = 4096
window = 4
keepalive = 60
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[Measurement]:
    return list(calibrate(tmp_path_factory.mktemp("storage"), 0.02))


def test_it_measures_just_what_a_profile_asks_for(measured: list[Measurement]) -> None:
    assert [one.key for one in measured] == [column.name for column in fields(catalog.Compute)]
    assert all(one.value > 0 for one in measured)


def test_its_fragment_is_a_profiles_compute_table(measured: list[Measurement], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(PROFILE + fragment(measured, 'this "device"'))
    compute = catalog.load(str(file)).compute
    assert compute is not None
    for one in measured:
        assert getattr(compute, one.key).value == pytest.approx(one.value, rel=0.01)
        assert getattr(compute, one.key).source == 'this "device"'


def test_it_leaves_nothing_behind_and_says_where_it_cannot_write(tmp_path: Path) -> None:
    list(calibrate(tmp_path, 0.001))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match=r"cannot write in .*gone: No such file or directory; name another"):
        list(calibrate(tmp_path / "gone", 0.001))


def test_the_command_prints_a_table_and_the_fragment_or_json(tmp_path: Path) -> None:
    arguments = ["calibrate", "--directory", str(tmp_path), "--seconds", "0.01"]
    said = CliRunner().invoke(agent, arguments)
    assert said.exit_code == 0
    table, _, toml = said.output.partition("\n[compute]\n")
    assert "10/10 sync" in table
    assert toml.count("source = ") == 10
    found = json.loads(CliRunner().invoke(agent, [*arguments, "--json"]).output)
    assert found["multiplication"]["unit"] == "µs"
    for key in ("step", "update", "training", "sequence", "recurrence"):
        assert "numpy" in found[key]["trainers"]
        assert found[key]["value"] == next(iter(found[key]["trainers"].values()))


def test_it_measures_every_trainer_that_works_and_says_which_is_the_faster(tmp_path: Path) -> None:
    said = CliRunner().invoke(agent, ["calibrate", "--directory", str(tmp_path), "--seconds", "0.01"]).output
    trouble = litert_trouble()
    line = next(line for line in said.splitlines() if line.startswith("trainer"))
    assert (trouble in line) if trouble else re.search(r"(numpy|litert) is the faster here", line)
    assert ("litert" in next(line for line in said.splitlines() if line.startswith("1/10"))) == (not trouble)
