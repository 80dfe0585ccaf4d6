"""The documentation is true where a machine can tell: commands, settings, log events and links exist."""

import ast
import dataclasses
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click
import pytest

from coordinator.settings import CoordinatorSettings
from edge_agent.decisions import DecisionSettings
from edge_agent.settings import AgentSettings
from edge_agent.sources.feeds import FeedSettings
from edge_agent.sources.sensors import SensorSettings
from firmware_profiles.catalog import FirmwareProfile
from fleet.settings import FleetSettings, SchemaRules
from hushfleet.cli import hushfleet
from hushfleet.configuration import Key, load
from hushfleet.trust import READY, STALE, UPGRADE, WAITING

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]
NAMES = ("operations", "planning", "sensors", "training")
GUIDES = [PROJECT / "README.md", *(PROJECT / "docs" / f"{name}.md" for name in NAMES)]
OPERATIONS = (PROJECT / "docs" / "operations.md").read_text()


@dataclasses.dataclass(frozen=True)
class InAgent:
    """The feeds and sensors in an agent's file, on their own."""

    feeds: Annotated[tuple[FeedSettings, ...], Key("feed")] = ()
    sensors: SensorSettings | None = None
    decisions: DecisionSettings | None = None


@dataclasses.dataclass(frozen=True)
class InFleet:
    """The schema in an owner's file, on its own."""

    schema: SchemaRules | None = None


SETTINGS: dict[str, type[Any]] = {
    "agent.toml": AgentSettings,
    "in agent.toml": InAgent,
    "in fleet.toml": InFleet,
    "coordinator.toml": CoordinatorSettings,
    "fleet.toml": FleetSettings,
    "profile.toml": FirmwareProfile,
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def fences(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [text for found, text in FENCE.findall(page.read_text()) if found == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


# Links.


def anchors(page: Path) -> set[str]:
    """The headings as the usual renderers name them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(aim), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_place_on_somebodys_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w/])/(?:work|root|home|tmp|mnt)/[\w./-]*", page.read_text())


# Commands.


def walk(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, and the words after it."""
    command: click.Command = hushfleet
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


def lines(page: Path) -> Iterator[list[str]]:
    """The words of every command line that is shown: in shell blocks, and in services."""
    for block in fences(page, "sh"):
        yield from (words for line in block.splitlines() if (words := shlex.split(line, comments=True)))
    for block in fences(page, "ini"):
        yield from (shlex.split(line) for line in re.findall(r"^Exec\w+=(.+)$", block, re.MULTILINE))


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_command_lines_that_are_shown_can_be_typed(page: Path) -> None:
    shown = [words for words in lines(page) if Path(words[0]).name == "hushfleet"]
    assert shown, "a guide shows what to type"
    for words in shown:
        command, rest = walk(words[1:])
        assert not isinstance(command, click.Group), words
        command.make_context(" ".join(words), list(rest))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_named_in_the_text_exist(page: Path) -> None:
    for code in CODE.findall(prose(page)):
        if not code.startswith("hushfleet "):
            continue
        _, *words = code.replace("|", " ").split()
        if "|" in code:
            # One group and several of its commands.
            for name in words[1:]:
                walk([words[0], name])
            continue
        command, rest = walk(words)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, code


@pytest.mark.parametrize("group", ["agent", "coordinator", "broker", "fleet"])
def test_every_command_is_shown_in_operations(group: str) -> None:
    command, _ = walk([group])
    assert isinstance(command, click.Group)
    for name in command.commands:
        assert f"hushfleet {group} {name} " in OPERATIONS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_and_extras_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    shown = re.findall(r"^make ([a-z-]+)", "\n".join(fences(page, "sh")), re.MULTILINE)
    shown += [code.split()[1] for code in CODE.findall(prose(page)) if re.match(r"make [a-z]", code)]
    assert set(shown) <= targets
    extras = set(re.findall(r"^([a-z-]+) =$", (PROJECT / "setup.cfg").read_text(), re.MULTILINE))
    assert set(re.findall(r"pip install '\.\[([a-z-]+)\]'", page.read_text())) <= extras


# Settings.


def examples() -> list[Any]:
    """Every TOML block, with the file it is an example of."""
    found = []
    for page in GUIDES:
        for number, block in enumerate(fences(page, "toml"), start=1):
            kind = block.splitlines()[0].removeprefix("# ")
            found.append(pytest.param(kind, block, id=f"{name_of(page)}-{number}-{kind}"))
    return found


@pytest.mark.parametrize(("kind", "block"), examples())
def test_examples_of_settings_load(kind: str, block: str, tmp_path: Path) -> None:
    for text in (block, re.sub(r"^# (\w+ = )", r"\1", block, flags=re.MULTILINE)):
        path = tmp_path / kind
        path.write_text(text)
        load(path, SETTINGS[kind])


def keys(settings: type[Any], prefix: str = "") -> dict[str, Any]:
    """Every key of these settings with its default, in tables too; what is of sensors has a page of its own."""
    found: dict[str, Any] = {}
    for column in dataclasses.fields(settings):
        hint = get_type_hints(settings)[column.name]
        if is_array_of_tables(hint) or column.name in ("sensors", "decisions"):
            continue
        (hint,) = (
            [choice for choice in get_args(hint) if choice is not NoneType] if NoneType in get_args(hint) else [hint]
        )
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            found |= keys(hint, f"{prefix}{column.name}.")
        else:
            found[prefix + column.name] = column.default
    return found


def is_array_of_tables(hint: Any) -> bool:
    inner = get_args(hint)[0] if get_origin(hint) is tuple else None
    return any(map(dataclasses.is_dataclass, get_args(inner) or (inner,)))


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        whole = tuple(value) if isinstance(value, list) else value
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: whole}
    return found


@pytest.mark.parametrize("kind", ["agent.toml", "coordinator.toml"])
def test_the_reference_names_every_key_with_its_default(kind: str) -> None:
    block = next(text for text in fences(PROJECT / "docs" / "operations.md", "toml") if text.startswith(f"# {kind}\n"))
    known = keys(SETTINGS[kind])
    whole = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", block, flags=re.MULTILINE))
    assert set(flat(whole)) == set(known)
    shown = flat(tomllib.loads(block))
    given = {key for key, default in known.items() if default is dataclasses.MISSING}
    assert {key: value for key, value in shown.items() if key not in given} == {
        key: default for key, default in known.items() if key not in given and default is not None
    }


def every_key(settings: type[Any]) -> set[str]:
    """The keys of these settings and of all tables in them."""
    found = set()
    for column in dataclasses.fields(settings):
        hint = get_type_hints(settings, include_extras=True)[column.name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        found.add(next((mark.name for mark in marks if isinstance(mark, Key)), column.name))
        plain = get_type_hints(settings)[column.name]
        for inner in (plain, *get_args(plain)):
            found |= every_key(inner) if dataclasses.is_dataclass(inner) and isinstance(inner, type) else set()
    return found


def shown_keys(value: Any) -> set[str]:
    """The keys of a table and of all tables in it."""
    if isinstance(value, list):
        return set().union(*map(shown_keys, value))
    return set(value).union(*map(shown_keys, value.values())) if isinstance(value, dict) else set()


@pytest.mark.parametrize("settings", get_args(FeedSettings) or (FeedSettings,))
def test_every_key_of_a_feed_is_shown(settings: type[Any]) -> None:
    blocks = map(tomllib.loads, fences(PROJECT / "docs" / "sensors.md", "toml"))
    kinds = get_args(get_type_hints(settings)["kind"])
    feeds = [feed for block in blocks for feed in block.get("feed", []) if feed["kind"] in kinds]
    assert every_key(settings) <= shown_keys(feeds)


@pytest.mark.parametrize(("settings", "name"), [(SensorSettings, "sensors"), (SchemaRules, "schema")])
def test_every_key_of_sensors_and_schema_is_shown(settings: type[Any], name: str) -> None:
    blocks = fences(PROJECT / "docs" / "sensors.md", "toml")
    shown = [tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", block, flags=re.MULTILINE)).get(name, {}) for block in blocks]
    assert every_key(settings) <= shown_keys(shown)


# The journal.


def events() -> set[str]:
    """The name of every event that a service can write."""
    found = set()
    for room in ("hushfleet", "edge_agent", "coordinator"):
        for file in (PROJECT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and node.args and is_telling(node.func):
                    names = (part.value for part in choices(node.args[0]) if isinstance(part, ast.Constant))
                    found |= {name for name in names if isinstance(name, str)}
    return found


def is_telling(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "Note"
    if not isinstance(function, ast.Attribute) or function.attr not in ("write", "hear"):
        return False
    return "journal" in ast.dump(function.value)


def choices(node: ast.expr) -> list[ast.expr]:
    return [*choices(node.body), *choices(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def test_every_event_of_the_journal_is_explained() -> None:
    assert {"round", "accepted", "refused-upload", "internal-error"} <= events()
    missing = sorted(name for name in events() if f"`{name}`" not in OPERATIONS)
    assert not missing


ROOMS = ["hushfleet", "edge_agent", "coordinator", "broker", "fleet", "firmware_profiles", "planner", "hushfleet_demo"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_stands_in_the_architecture(room: str) -> None:
    names = {file.name for file in (PROJECT / room).rglob("*.py")} - {"__init__.py", "__main__.py"}
    page = (PROJECT / "docs" / "architecture.md").read_text()
    assert not sorted(name for name in names if name not in page)


def test_every_state_of_the_documents_is_explained() -> None:
    for state in (READY, WAITING, STALE, UPGRADE):
        assert f"| `{state}` |" in OPERATIONS
