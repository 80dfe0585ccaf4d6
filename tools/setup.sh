#!/usr/bin/env bash
# Makes .venv with the project and everything it needs, and the programs named as arguments. Does nothing if all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/system.sh
export PATH="$PATH:/usr/sbin:/sbin"

missing=()
for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
done

venv_works() {
    .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if ! venv_works && [ -z "$(newest_python 'import ensurepip, venv')" ]; then
    if command -v python3 >/dev/null && [ -z "$(newest_python pass)" ]; then
        fail "Python 3.11 or newer is needed, and here is only $(python3 -V); install one and put it on the PATH"
    fi
    missing+=(python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
    can_install || fail "please install: ${missing[*]} (Debian, Ubuntu: sudo apt-get install ${missing[*]})"
    install_packages "${missing[@]}"
fi

if ! venv_works; then
    python=$(newest_python 'import ensurepip, venv')
    [ -n "$python" ] || fail "Python 3.11 or newer is needed, with its venv module; install one and put it on the PATH"
    rm -rf .venv
    echo "set-up: making .venv with $("$python" -V)"
    "$python" -m venv .venv
fi

wanted=$({ pwd; .venv/bin/python -V; cat setup.cfg pyproject.toml; } | cksum)
if [ "$wanted" != "$(cat .setup/venv 2>/dev/null)" ]; then
    echo "set-up: installing the project into .venv"
    mkdir -p .setup
    install=(.venv/bin/python -m pip install -q --no-input --disable-pip-version-check -e)
    # LiteRT and what quantizes for it have no wheels for some machines.
    "${install[@]}" '.[dev,export]' </dev/null 2>.setup/export.log || {
        echo "set-up: without LiteRT and export, whose tests are skipped (.setup/export.log)"
        "${install[@]}" '.[dev]' </dev/null
    }
    echo "$wanted" >.setup/venv
fi
