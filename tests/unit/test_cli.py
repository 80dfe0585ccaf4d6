"""The root command: finding its sub-commands, and how its errors look to a person."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from hushfleet import __version__, cli
from hushfleet.errors import ConfigurationError, LinkError

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    """Runs `hushfleet` with the arguments given, in a process of its own."""

    def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hushfleet", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run_command


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout == f"hushfleet {__version__}\n"


def test_the_installed_command_is_this_one() -> None:
    script = Path(sys.executable).parent / "hushfleet"
    answer = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert answer.stdout == f"hushfleet {__version__}\n"


def test_help_names_every_command(run: Run) -> None:
    answer = run("--help")
    assert answer.returncode == 0
    for name in ("agent", "broker", "coordinator", "demo", "fleet"):
        assert f"\n  {name} " in answer.stdout


def test_a_mistyped_command_gets_a_remedy(run: Run) -> None:
    answer = run("flet", "list")
    assert answer.returncode == 2
    assert "there is no command 'flet'; did you mean 'fleet'?" in answer.stderr


def test_an_unknown_option_is_the_usual_error(run: Run) -> None:
    answer = run("--versoin")
    assert answer.returncode == 2
    assert "--versoin" in answer.stderr


def test_an_error_is_one_line_without_a_traceback(run: Run, tmp_path: Path) -> None:
    answer = run("fleet", "list", str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr == f"hushfleet: {tmp_path} holds no fleet; make one with: hushfleet fleet init {tmp_path}\n"
    assert answer.stdout == ""


@pytest.mark.parametrize(("error", "code"), [(ConfigurationError("the file is wrong"), 2), (LinkError("no broker"), 1)])
def test_the_exit_code_tells_what_the_caller_can_mend(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: failing)
    monkeypatch.setattr(sys, "argv", ["hushfleet", "fleet"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    assert capsys.readouterr().err == f"hushfleet: {error}\n"


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `hushfleet` where `module` cannot be imported."""
    script = "import sys; sys.modules[sys.argv.pop(1)] = None; from hushfleet.cli import main; main()"
    command = [sys.executable, "-c", script, module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["fleet"], ["fleet", "list", "--verbose", "x"], ["fleet", "--help"]])
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("cryptography", "this command needs the extra [fleet]: pip install 'hushfleet[fleet]'"),
        ("fleet.desk", "this installation is incomplete, the module fleet.desk is missing: install hushfleet again"),
    ],
)
def test_a_command_whose_packages_are_missing_says_how_to_get_them(
    missing: str, said: str, arguments: list[str]
) -> None:
    answer = run_without(missing, *arguments)
    assert answer.returncode == 2
    assert answer.stderr == f"hushfleet: {said}\n"


def test_a_missing_package_does_not_hide_the_other_commands() -> None:
    answer = run_without("cryptography", "--help")
    assert answer.returncode == 0
    assert "this command needs the extra [fleet]" in answer.stdout
    assert "\n  coordinator " in answer.stdout


def test_arithmetic_runs_on_one_thread_unless_the_caller_says_otherwise() -> None:
    script = (
        "import os, sys\n"
        "from hushfleet import cli\n"
        "sys.argv = ['hushfleet', '--version']\n"
        "try:\n"
        "    cli.main()\n"
        "finally:\n"
        "    print(*(os.environ[name] for name in sys.stdin.read().split()))\n"
    )
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    for given, seen in (({}, "1 1 1"), ({"OMP_NUM_THREADS": "4"}, "1 4 1")):
        answer = subprocess.run(
            [sys.executable, "-c", script],
            input=" ".join(names),
            env={**environment, **given},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert answer.stdout.splitlines()[-1] == seen
