"""Mutation testing: small faults are put into the code one at a time, and the tests must fail for each of them.

Run by `make mutants`, in a virtual environment of its own with mutmut. What is changed, which tests must notice it and
which mutants may live for what reason stands in mutants.toml. Ends with status 1 if one lives without a reason.
"""

import configparser
import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
ROOM = PROJECT / ".setup" / "mutants"
SETUP = configparser.ConfigParser()
SETUP.read(PROJECT / "setup.cfg")
SOURCES = sorted({package.split(".")[0] for package in SETUP["options"]["packages"].split()})
OTHERS = ["tests", "tools", "docs", "README.md", "Makefile", "pyproject.toml", "setup.cfg"]
SEED = 20261124
PYTEST = ["-o", "addopts=", "-p", "no:cacheprovider", "--hypothesis-profile=ci"]
MUTMUT: dict[str, Any] = {
    "source_paths": SOURCES,
    "also_copy": OTHERS,
    "pytest_add_cli_args": PYTEST,
    # A mutant that runs for ever is ended; a busy machine ends no other.
    "timeout_constant": 30.0,
    "timeout_multiplier": 4.0,
    "track_dependencies": False,
    "use_git_change_detection": False,
}


def main(names: list[str]) -> int:
    """Test the parts named, or all, and print the figures of each."""
    listing = tomllib.loads((PROJECT / "tools" / "mutants.toml").read_text())
    reasons = {
        (known["function"], change): known["reason"] for known in listing["survivor"] for change in known["changes"]
    }
    parts: dict[str, Any] = listing["part"]
    if unknown := set(names) - set(parts):
        sys.exit(f"mutants: there is no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    unexplained = sum(report(name, run(name, parts[name]), reasons) for name in names or parts)
    return int(unexplained > 0)


def run(name: str, part: dict[str, Any]) -> list[dict[str, str]]:
    """Run mutmut over one part in a copy of the project; function, change and fate of each mutant."""
    room = ROOM / name
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    for source in SOURCES + OTHERS:
        path = PROJECT / source
        (shutil.copytree if path.is_dir() else shutil.copy)(path, room / source)
    settings = MUTMUT | {"only_mutate": part["files"], "pytest_add_cli_args_test_selection": part["tests"]}
    with (room / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    command = [sys.executable, __file__, "--in-copy", str(part["share"]), *(part["tests"] if part["fresh"] else [])]
    subprocess.run(command, cwd=room, env=os.environ | {"PYTHONHASHSEED": "0"}, check=True)
    found: list[dict[str, str]] = json.loads((room / "mutants.json").read_text())
    return found


def report(name: str, found: list[dict[str, str]], reasons: dict[tuple[str, str], str]) -> int:
    """Print one part's figures and the mutants that live without a reason; the number of these."""
    fates = Counter(mutant["fate"] for mutant in found)
    dead = fates["killed"] + fates["timeout"]
    alive = [mutant for mutant in found if mutant["fate"] not in ("killed", "timeout")]
    why = Counter(reasons.get((mutant["function"], mutant["change"]), "unexplained") for mutant in alive)
    by_time = f"{fates['timeout']} of them by time"
    print(f"\n{name}: {len(found)} mutants, {dead} killed ({dead / len(found):.1%}), {by_time}")
    for reason, count in why.most_common():
        print(f"  {count:4} {reason}")
    for mutant in alive:
        if (mutant["function"], mutant["change"]) not in reasons:
            print(f"\n{mutant['fate']}: {mutant['function']}\n    {mutant['change']}")
    return why["unexplained"]


def in_copy(share: float, fresh: list[str]) -> None:
    """Within a copy of the project: make and test the mutants, and write down what became of each.

    Args:
        share: of all mutants, how many are tested, 0 to 1; always the same ones for the same code.
        fresh: tests that a mutant must pass in a process of its own as well, because what they compute once for each
            other, or while they are collected, is computed before the mutant is there. May be empty.
    """
    import libcst
    from mutmut.__main__ import cli
    from mutmut.mutation import file_mutation, mutators
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.mutation.file_mutation import MutationVisitor
    from mutmut.runners.harness import PytestRunner
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    # Two faults more than mutmut's own: a call or a refusal is left out, a condition is turned round.

    def left_out(line: libcst.SimpleStatementLine) -> Iterable[libcst.CSTNode]:
        statement = line.body[0]
        call = isinstance(statement, libcst.Expr) and isinstance(statement.value, libcst.Call)
        if call or isinstance(statement, libcst.Raise):
            yield line.with_changes(body=[libcst.Pass()])

    def turned_round(branch: libcst.If | libcst.CompIf) -> Iterable[libcst.CSTNode]:
        test = branch.test.with_changes(lpar=[libcst.LeftParen()], rpar=[libcst.RightParen()])
        yield branch.with_changes(test=libcst.UnaryOperation(libcst.Not(), test))

    copy = Path("mutants").absolute()
    mutators.mutation_operators.extend(
        [(libcst.SimpleStatementLine, left_out), (libcst.If, turned_round), (libcst.CompIf, turned_round)]
    )

    # No letter of a message is changed, nor an assertion, which is there for the type checker.

    skipped = MutationVisitor._skip_node_and_children

    def skips(visitor: MutationVisitor, node: libcst.CSTNode) -> bool:
        return isinstance(node, libcst.Raise | libcst.Assert) or skipped(visitor, node)

    MutationVisitor._skip_node_and_children = skips

    # Where time is short, some mutants stand for all.

    created = file_mutation.create_mutations

    def some(*arguments: Any) -> tuple[Any, list[Any], Any, Any]:
        module, mutations, *ignored = created(*arguments)
        chance = random.Random(SEED)  # noqa: S311
        within = [mutation for mutation in mutations if mutation.contained_by_top_level_function]
        return module, [mutation for mutation in within if chance.random() < share], *ignored

    file_mutation.create_mutations = some

    run_tests = PytestRunner.run_tests

    def survives(mutant: str) -> bool:
        if not fresh:
            return True
        command = [sys.executable, "-m", "pytest", "-x", "-q", *PYTEST, *fresh]
        environment = os.environ | {"MUTANT_UNDER_TEST": mutant}
        return not subprocess.run(command, cwd=copy, env=environment, stdout=subprocess.DEVNULL).returncode

    def runs(runner: PytestRunner, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        failed = run_tests(runner, mutant_name=mutant_name, tests=tests)
        return failed or int(mutant_name is not None and not survives(mutant_name))

    PytestRunner.run_tests = runs

    cli(["run", "--max-children", "1"], standalone_mode=False)
    found = []
    for path in walk_mutatable_files():
        fates = SourceFileMutationData(path=path)
        fates.load()
        for name, code in fates.exit_code_by_key.items():
            lines = get_diff_for_mutant(name, path=path).splitlines()
            was, now = (" ".join(line[1:].strip() for line in lines[2:] if line[0] == sign) for sign in "-+")
            change = f"left out: {was}" if now == "pass" else now
            fate = status_by_exit_code[code]
            if fate == "no tests" and not survives(name):
                fate = "killed"
            function = name.partition("__mutmut_")[0].replace("xǁ", "").replace("ǁ", ".").replace(".x_", ".")
            found.append({"function": function, "change": change, "fate": fate})
    Path("mutants.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-copy"]:
        in_copy(float(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
