"""The root command; its sub-commands are in the rooms, which are loaded when they are called."""

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from hushfleet import __version__
from hushfleet.configuration import did_you_mean
from hushfleet.errors import ConfigurationError, HushfleetError

_ROOMS = {
    "agent": "edge_agent",
    "broker": "broker",
    "coordinator": "coordinator",
    "demo": "hushfleet_demo",
    "fleet": "fleet",
    "plan": "planner",
}
"""In whose `cli` each command is. Entry points could tell, but an agent would hold 0.8 MB for having read them."""
_BLAS_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Commands(click.Group):
    """A group whose members are in the rooms; one whose packages are missing says how to get them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(_ROOMS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return _load(name) if name in _ROOMS else None

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        known = self.list_commands(context)
        if name not in known and not name.startswith("-"):
            context.fail(f"there is no command {name!r}; {did_you_mean(name, known)}")
        return super().resolve_command(context, arguments)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="hushfleet %(version)s")
def hushfleet() -> None:
    """Federated learning over MQTT in which nobody ever sees one device's update."""


def main() -> NoReturn:
    """Run the command line; errors raised on purpose become one message, and exit code 2 if the caller can mend it."""
    for variable in _BLAS_THREAD_VARIABLES:  # numpy reads them when it is imported; more threads fight over a gateway
        os.environ.setdefault(variable, "1")
    try:
        hushfleet.main(prog_name="hushfleet")
    except HushfleetError as error:
        print(f"hushfleet: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


def _load(name: str) -> click.Command:
    try:
        command: click.Command = getattr(import_module(f"{_ROOMS[name]}.cli"), name)
    except ModuleNotFoundError as error:
        return _stand_in(name, error.name or str(error))
    return command


def _stand_in(name: str, missing: str) -> click.Command:
    """A command that says what is missing, so that the help of the others still shows."""
    from importlib.metadata import metadata

    extras = metadata("hushfleet").get_all("Provides-Extra") or []
    if name in extras and missing.partition(".")[0] not in _ROOMS.values():
        remedy = f"this command needs the extra [{name}]: pip install 'hushfleet[{name}]'"
    else:
        remedy = f"this installation is incomplete, the module {missing} is missing: install hushfleet again"

    def refuse(**_: Any) -> None:
        raise ConfigurationError(remedy)

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)],
        short_help=remedy,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
