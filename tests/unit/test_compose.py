"""docker-compose.yml, Dockerfile and .dockerignore against the commands, settings and packages they name; not run."""

import configparser
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from nacl.utils import random

from coordinator.settings import CoordinatorSettings
from edge_agent.settings import AgentSettings
from fleet.composition import compose
from fleet.owner import Credentials, Owner
from fleet.settings import FleetSettings, PolicyRules, template
from hushfleet.cli import hushfleet
from hushfleet.configuration import load
from hushfleet.wire.documents import COORDINATOR, MEMBER, PARTICIPANT

PROJECT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
AGENTS = ("agent-1", "agent-2", "agent-3")
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
NOW = 1_800_000_000


def mounts(name: str) -> dict[str, tuple[str, bool]]:
    """By place in the container: what is mounted there, and whether it can be written."""
    found = {}
    for volume in SERVICES[name]["volumes"]:
        source, target, mode = re.fullmatch(r"((?:\$\{[^}]*\}|[^:$])+):([^:]+)(:ro)?", volume).groups()  # type: ignore[union-attr]
        found[target] = re.sub(r"\$\{(\w+)[^}]*\}", r"\1", source), mode is None
    return found


def test_there_are_a_broker_a_coordinator_and_three_agents_of_one_image() -> None:
    assert set(SERVICES) == {"broker", "coordinator", *AGENTS}
    assert {service["image"] for service in SERVICES.values()} == {"hushfleet"}
    assert {service["build"]["context"] for service in SERVICES.values()} == {"."}
    assert "ARG USER_ID" in DOCKERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_each_command_is_one_of_ours(name: str) -> None:
    group, command, *arguments = SERVICES[name]["command"]
    with hushfleet.make_context("hushfleet", [group], resilient_parsing=True) as context:
        commands = hushfleet.get_command(context, group)
        assert commands is not None
        parsed = commands.get_command(context, command).make_context(command, arguments)  # type: ignore[attr-defined]
    if name == "broker":
        assert parsed.params["directory"] == Path("/fleet")
        assert f"{parsed.params['port']}:{parsed.params['port']}" in SERVICES[name]["ports"]
        assert not parsed.params["address"], "the others reach it from their own containers"
    else:
        (config,) = SERVICES[name]["configs"]
        assert parsed.params["config"] == Path(config["target"])
        assert config["source"] in COMPOSE["configs"]
        assert SERVICES[name]["depends_on"] == ["broker"]


def settings_of(name: str, directory: Path) -> CoordinatorSettings | AgentSettings:
    (config,) = SERVICES[name]["configs"]
    path = directory / "settings.toml"
    path.write_text(COMPOSE["configs"][config["source"]]["content"])
    return load(path, CoordinatorSettings) if name == "coordinator" else load(path, AgentSettings)


def test_every_path_in_the_configuration_files_is_mounted(tmp_path: Path) -> None:
    coordinator = settings_of("coordinator", tmp_path)
    assert isinstance(coordinator, CoordinatorSettings)
    assert mounts("coordinator") == {
        str(coordinator.bundle): ("FLEET/devices/coordinator", False),
        str(coordinator.documents): ("FLEET/documents", False),
        "/state": ("coordinator", True),
    }
    assert Path("/state") in coordinator.ledger.parents
    for name in AGENTS:
        agent = settings_of(name, tmp_path)
        assert isinstance(agent, AgentSettings)
        assert agent.source is not None
        assert mounts(name) == {
            str(agent.bundle): (f"FLEET/devices/{name}", False),
            str(agent.source.path): (f"DATA/{name}.csv", False),
            "/state": (name, True),
        }
        assert Path("/state") in agent.vault.parents


def test_the_broker_sees_what_it_needs_and_nobody_sees_the_owners_keys() -> None:
    assert mounts("broker") == {
        "/fleet/documents": ("FLEET/documents", False),
        "/fleet/transport": ("FLEET/transport", False),
        "/state": ("broker", True),
    }
    sources = [source for name in SERVICES for source, _ in mounts(name).values()]
    assert not [source for source in sources if source == "FLEET" or "keys" in source]


def test_what_is_written_is_kept_in_a_volume_of_ones_own() -> None:
    written = [source for name in SERVICES for source, writable in mounts(name).values() if writable]
    assert sorted(written) == sorted(COMPOSE["volumes"])
    assert all(service["read_only"] for service in SERVICES.values())
    assert re.search(r"--owner=hushfleet --mode=0700 /state$", DOCKERFILE, re.MULTILINE)


def test_three_devices_can_form_a_fleet_under_the_policy_it_asks_for(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(template("compose"))
    settings = replace(load(tmp_path / "fleet.toml", FleetSettings), policy=PolicyRules(**COMPOSE["x-policy"]))
    certs = [
        Credentials.draw(random, index, name, roles, profile="", not_before=NOW, not_after=NOW + 10**9).cert
        for index, (name, roles) in enumerate(
            [("coordinator", COORDINATOR), *((name, PARTICIPANT | MEMBER) for name in AGENTS)]
        )
    ]
    composition = compose(Owner.create(random), settings, certs, now=NOW, draw=random)
    assert not [warning for warning in composition.warnings if "can be" in warning]


def test_the_image_is_built_from_the_packages_and_nothing_else() -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    packages = {name.partition(".")[0] for name in setup["options"]["packages"].split()}
    lines = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == packages | {
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }
    (extra,) = re.findall(r"hushfleet\[(\w+)\]", DOCKERFILE)
    assert extra in setup["options.extras_require"]
    assert setup["options.entry_points"]["console_scripts"].strip().startswith("hushfleet =")
    assert 'ENTRYPOINT ["hushfleet"]' in DOCKERFILE


def test_both_files_say_that_they_are_not_run() -> None:
    assert "they neither build the image nor run it" in (PROJECT / "docker-compose.yml").read_text()
    assert "tests do not build it" in DOCKERFILE
