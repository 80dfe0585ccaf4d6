"""Who may import whom, read from the source; and that a gateway starts without numpy."""

import ast
import configparser
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROOMS = ("edge_agent", "coordinator", "broker", "fleet", "planner", "hushfleet_demo")
OURS = ("hushfleet", "firmware_profiles", *ROOMS)
BASE = ("hushfleet.__version__", "hushfleet.errors", "hushfleet.hashing", "hushfleet.actions")
FLOORS: dict[str, tuple[str, ...]] = {
    "hushfleet.secagg": BASE,
    "hushfleet.encoding": BASE,
    "hushfleet.learning": (*BASE, "hushfleet.wire.layers"),
    "hushfleet.wire": BASE,
    "hushfleet.mqtt": (*BASE, "hushfleet.wire"),
    "hushfleet.codec": (*BASE, "hushfleet.secagg.residues"),
    "hushfleet": (),
    "firmware_profiles": ("hushfleet",),
    **dict.fromkeys(ROOMS, ("hushfleet", "firmware_profiles")),
}
"""What each room may import besides itself; of two that fit, the first counts."""

AGENT_PACKAGES = {"click", "msgpack", "nacl", "numpy", "paho"}
EXTRA_PACKAGES = {
    "edge_agent.sources.decoders.sparkplug_payload": {"google"},
    "hushfleet.graphs.file": {"flatbuffers"},
}
"""Come with the extras [sparkplug] and [tflite], and are imported only where the owner asks for them."""
STARTS_WITHOUT_NUMPY = (
    "hushfleet.cli",
    "hushfleet.bundle",
    "hushfleet.mqtt",
    "hushfleet.wire",
    "edge_agent.cli",
    "edge_agent.agent",
    "edge_agent.device",
    "edge_agent.vault",
    "firmware_profiles",
)


def module_name(file: Path) -> str:
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> set[str]:
    """Every name that the source imports anywhere, in functions too, in full: `from a import b` is a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute in this project"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def crossings(module: str, found: set[str]) -> set[str]:
    """The imports of `module` that its floor does not allow."""
    floor = next(floor for floor in FLOORS if is_in(module, floor))
    ours = {name for name in found if name.partition(".")[0] in OURS}
    crossing = {name for name in ours if not any(is_in(name, room) for room in (floor, *FLOORS[floor]))}
    if module != "hushfleet.__main__":
        crossing |= {name for name in ours if is_in(name, "hushfleet.cli")}
    return crossing


FILES = [file for room in OURS for file in sorted((PROJECT / room).rglob("*.py"))]
MODULES = {module_name(file): imports(file.read_text("utf-8")) for file in FILES}


def test_every_package_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    packages = {module_name(file) for file in FILES if file.name == "__init__.py"}
    assert set(setup["options"]["packages"].split()) == packages


def test_no_module_imports_from_a_floor_that_is_not_its_own() -> None:
    assert len(MODULES) > 20
    assert {module: bad for module, found in MODULES.items() if (bad := crossings(module, found))} == {}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("edge_agent.agent", "coordinator.round.Round"),
        ("hushfleet_demo.watch", "edge_agent.vault"),
        ("hushfleet.bundle", "fleet.owner"),
        ("hushfleet.secagg.masks", "hushfleet.wire.round"),
        ("hushfleet.wire.framing", "hushfleet.mqtt.topics"),
        ("hushfleet.mqtt.link", "hushfleet.learning.layers"),
        ("hushfleet.codec", "hushfleet.secagg.group"),
        ("firmware_profiles.catalog", "fleet.desk"),
        ("planner.cli", "edge_agent.vault"),
        ("edge_agent.cli", "hushfleet.cli.main"),
    ],
)
def test_a_crossing_is_seen(module: str, name: str) -> None:
    assert crossings(module, {name, "numpy", "hushfleet.errors.HushfleetError"}) >= {name}


def test_an_import_inside_a_function_is_seen() -> None:
    assert imports("def f():\n    from fleet import owner\n    import broker.local as b\n") == {
        "fleet.owner",
        "broker.local",
    }


def test_agent_and_shared_package_need_nothing_beyond_the_base_install() -> None:
    for module, found in MODULES.items():
        if is_in(module, "hushfleet") or is_in(module, "edge_agent") or is_in(module, "firmware_profiles"):
            heads = {name.partition(".")[0] for name in found}
            allowed = AGENT_PACKAGES | EXTRA_PACKAGES.get(module, set())
            assert heads - set(sys.stdlib_module_names) - set(OURS) <= allowed, module


def test_only_the_messaging_layer_and_the_owners_broker_know_the_mqtt_client() -> None:
    users = {module for module, found in MODULES.items() if any(is_in(name, "paho") for name in found)}
    elsewhere = {module for module in users if not is_in(module, "hushfleet.mqtt")}
    # The demo's is what else there is on an owner's broker: a simulated Zigbee2MQTT, a played Home Assistant.
    assert elsewhere == {"edge_agent.local_mqtt", "hushfleet_demo.home_mqtt"}


def imported_with_numpy(names: list[str]) -> str:
    """The first of `names` that pulls numpy in, in a process of its own, because this one has long imported it."""
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'numpy' in sys.modules:\n"
        "        print(name)\n"
        "        break\n"
    )
    command = [sys.executable, "-c", script, *names]
    return subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout.strip()


def test_an_agent_starts_without_numpy() -> None:
    names = {room: [name for name in MODULES if is_in(name, room)] for room in STARTS_WITHOUT_NUMPY}
    assert [room for room, modules in names.items() if not modules] == []
    assert imported_with_numpy([*chain.from_iterable(names.values())]) == ""
    assert imported_with_numpy(["hushfleet.errors", "hushfleet.learning.layers"]) == "hushfleet.learning.layers"
