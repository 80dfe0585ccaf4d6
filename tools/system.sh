# What the set-up needs from the operating system. Sourced by setup.sh and floor.sh.

fail() {
    echo "set-up: $*" >&2
    exit 1
}

# The newest Python from 3.11 on the PATH that can run the statement given; prints nothing if there is none.
newest_python() {
    local name
    for name in python3.14 python3.13 python3.12 python3.11 python3 /usr/bin/python3; do
        if "$name" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && "$name" -c "$1" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
}

can_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

POLICY=/usr/sbin/policy-rc.d

# Installs Debian packages. A package's own service is not started: a policy-rc.d that denies it stands for as long as the
# installation takes, unless the machine has a policy of its own, which then decides.
install_packages() {
    local made_policy=no
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
    echo "set-up: installing $* (apt-get)"
    if [ ! -e "$POLICY" ]; then
        made_policy=yes
        trap 'as_root rm -f "$POLICY"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
    mkdir -p .setup
    as_root "${apt[@]}" install "$@" >.setup/apt.log 2>&1 </dev/null ||
        { as_root "${apt[@]}" update && as_root "${apt[@]}" install "$@"; } >.setup/apt.log 2>&1 </dev/null ||
        fail "apt-get could not install $*; see .setup/apt.log"
    if [ "$made_policy" = yes ]; then
        as_root rm -f "$POLICY"
        trap - EXIT INT TERM
    fi
}
