#!/usr/bin/env bash
# Runs mutants.py in a virtual environment of its own, with the project and mutmut. Arguments: parts of mutants.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.setup/mutants/venv
wanted=$({ pwd; .venv/bin/python -V; cat setup.cfg tools/mutants.sh; } | cksum)
if [ "$wanted" != "$(cat "$venv/ready" 2>/dev/null)" ]; then
    echo "set-up: making $venv"
    rm -rf "$venv"
    .venv/bin/python -m venv "$venv"
    "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check -e '.[dev]' mutmut==3.8.1 </dev/null
    echo "$wanted" >"$venv/ready"
fi
exec "$venv/bin/python" tools/mutants.py "$@"
