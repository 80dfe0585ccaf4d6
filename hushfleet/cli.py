"""The root command; its sub-commands are the entry points of group `hushfleet.commands`, loaded when called."""

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click

from hushfleet import __version__
from hushfleet.configuration import did_you_mean
from hushfleet.errors import ConfigurationError, HushfleetError

_BLAS_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Commands(click.Group):
    """A group whose members are entry points; one whose packages are missing says how to get them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(_entry_points())

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        entry = _entry_points().get(name)
        return _load(entry) if entry else None

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


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="hushfleet.commands")}


def _load(entry: EntryPoint) -> click.Command:
    try:
        command: click.Command = entry.load()
    except ModuleNotFoundError as error:
        return _stand_in(entry, error.name or str(error))
    return command


def _stand_in(entry: EntryPoint, missing: str) -> click.Command:
    """A command that says what is missing, so that the help of the others still shows."""
    extras = entry.dist.metadata.get_all("Provides-Extra") or [] if entry.dist else []
    own_rooms = {other.module.partition(".")[0] for other in _entry_points().values()}
    if entry.name in extras and missing.partition(".")[0] not in own_rooms:
        remedy = f"this command needs the extra [{entry.name}]: pip install 'hushfleet[{entry.name}]'"
    else:
        remedy = f"this installation is incomplete, the module {missing} is missing: install hushfleet again"

    def refuse(**_: Any) -> None:
        raise ConfigurationError(remedy)

    return click.Command(
        entry.name,
        callback=refuse,
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)],
        short_help=remedy,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
