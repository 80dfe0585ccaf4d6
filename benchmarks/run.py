"""All benchmarks, one after the other, and all their figures in one file: what `make bench` runs.

python benchmarks/run.py --json build/benchmarks.json --only secagg
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
BENCHMARKS: dict[str, list[str]] = {
    "watch_splits": ["watch_splits.py"],
    "secagg": ["secagg.py", "--install-flower"],
    "secagg_full": ["secagg.py", "--codec", "full", "--install-flower"],
    "large_round": ["large_round.py"],
    "goodput": ["goodput.py"],
    "round_bytes": ["round_bytes.py"],
    "agent_footprint": ["agent_footprint.py"],
    "decision_latency": ["decision_latency.py"],
    "trainers": ["trainers.py"],
    "step_reckoning": ["step_reckoning.py"],
    "bytes_to_accuracy": ["bytes_to_accuracy.py", "--quick"],
    "server_optimizers": ["server_optimizers.py"],
    "diverse_fleets": ["diverse_fleets.py"],
    "million_rows": ["million_rows.py"],
}
"""Scripts with their arguments besides `--json`, by the names of their figures."""


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=Path("build/benchmarks.json"),
              show_default=True, help="Write the figures of all here, by the benchmark's name.")  # fmt: skip
@click.option("--only", type=click.Choice(list(BENCHMARKS)), multiple=True, help="Just this one, or several.")
@click.option("--without-flower", is_flag=True, help="Download and compare no peer.")
def main(json_path: Path, only: tuple[str, ...], without_flower: bool) -> None:
    """All benchmarks, one after the other; half an hour. Their scripts take more options: see docs/benchmarks.md."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hushfleet-bench-") as directory:
        for name in only or BENCHMARKS:
            written = Path(directory) / f"{name}.json"
            script, *arguments = BENCHMARKS[name]
            if without_flower:
                arguments = [{"--install-flower": "--without-flower"}.get(option, option) for option in arguments]
            click.echo(f"\n== {name}")
            command = [sys.executable, str(HERE / script), *arguments, "--json", str(written)]
            if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
                raise click.ClickException(f"{name} failed; its last words stand above")
            figures[name] = json.loads(written.read_text())
    try:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {json_path}: {error.strerror}; name another file") from None
    click.echo(f"\nall figures: {json_path}")


if __name__ == "__main__":
    main()
