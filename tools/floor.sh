#!/usr/bin/env bash
# Runs the unit and protocol tests on the oldest versions the agent promises to work with: those of Debian 12, from its own
# packages where they are, else the nearest wheels on Python 3.11. Elsewhere it says that it did not run.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/system.sh

venv=.setup/floor
debian_packages=(python3-numpy python3-nacl python3-msgpack python3-click python3-venv)
wheels=(numpy==1.24.4 PyNaCl==1.5.0 msgpack==1.0.5 click==8.1.3)
# Not in Debian 12, or too old there. The agent needs paho-mqtt; the rest is for the tests, and may not raise numpy.
above=('paho-mqtt>=2.1,<3' 'SQLAlchemy>=2.0' 'cryptography>=42' 'rich>=13' 'matplotlib>=3.8' 'numpy<1.25'
    'pytest>=8' 'pytest-timeout>=2.3' 'hypothesis>=6.120' pyyaml
    'protobuf>=4.22' 'line-protocol-parser>=1.1' 'sparkplug-b-packets>=0.12')
# Has no wheels for some machines.
legacy=('tflite-runtime==2.14.0' 'tflite>=2.10')

on_debian_12() {
    [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ] && [ "${VERSION_ID:-}" = 12 ])
}

have_debian_packages() {
    local found
    # Of a package that it has never heard of, dpkg-query says nothing but by its exit code.
    found=$(dpkg-query -W -f '${db:Status-Status}\n' "${debian_packages[@]}" 2>/dev/null) && ! grep -qvx installed <<<"$found"
}

source=
if on_debian_12 && { have_debian_packages || can_install; }; then
    have_debian_packages || install_packages "${debian_packages[@]}"
    source=debian
elif python3.11 -c 'import ensurepip, venv' 2>/dev/null; then
    source=wheels
else
    echo "floor of versions: not run (neither Debian 12's packages nor a Python 3.11 are here)"
    exit 0
fi

wanted=$({ pwd; echo "$source"; cat tools/floor.sh setup.cfg; } | cksum)
if [ "$wanted" != "$(cat "$venv/ready" 2>/dev/null)" ]; then
    echo "set-up: making $venv from $source"
    rm -rf "$venv"
    if [ "$source" = debian ]; then
        /usr/bin/python3 -m venv --system-site-packages "$venv"
        "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check "${above[@]}" </dev/null
    else
        python3.11 -m venv "$venv"
        "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check "${wheels[@]}" "${above[@]}" </dev/null
    fi
    "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check 'numpy<1.25' "${legacy[@]}" </dev/null ||
        echo "set-up: without tflite-runtime, whose tests are skipped"
    "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check --no-deps -e . </dev/null
    echo "$wanted" >"$venv/ready"
fi

"$venv/bin/python" - <<'END'
from importlib.metadata import version
print("floor of versions:", ", ".join(f"{name} {version(name)}" for name in ("numpy", "PyNaCl", "msgpack", "click")))
END
exec "$venv/bin/python" -m pytest -q --durations=0 --durations-min=5 -p no:cacheprovider --ignore=tests/protocol/test_swarm.py tests/unit tests/protocol
