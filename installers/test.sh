#!/bin/sh
# Installs what the tests need on Debian or Ubuntu, starts what is not running, and runs every test.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=installers/lib.sh
. "$root/installers/lib.sh"

usage() {
    cat <<'HELP'
usage: installers/test.sh [ARGUMENT of cargo test]...

Installs what the tests need, runs all of them, also those that need Docker and Vulkan, and ends with a line
`N passed, N failed, N skipped` over all test binaries. Run it as root, or as a user who may use sudo.

Environment:
  CI=true                   a component that cannot be had, or a skipped test, is a failure
  FIZZ_RUST=rustup|debian   where to get Rust from when it is missing (default: rustup, else Debian's rustc-web)
  FIZZ_SKIP_SETUP=1         install and start nothing; only test
  FIZZ_KEEP_ENGINE=1        leave a Docker engine running that this script started (no systemd)
  FIZZ_ENGINE_WAIT=60       seconds to wait for the Docker engine
  CARGO_TARGET_DIR          where to build (default: target)
HELP
}

in_ci() {
    [ "${CI:-}" = true ] || [ "${CI:-}" = 1 ]
}

set_up() {
    [ -z "${FIZZ_SKIP_SETUP:-}" ] || return 0
    ensure_build_tools
    ensure_rust
    if in_ci; then
        set_up_components
    else
        # In a subshell a failure ends the set-up only; what is missing is said later.
        (set_up_components) || true
    fi
}

set_up_components() {
    need docker-registry busybox-static iproute2 util-linux procps nftables libcap2-bin btrfs-progs podman crun catatonit runsc
    # Engines of an ordinary user.
    need uidmap rootlesskit slirp4netns
    # Software Vulkan even beside a GPU: tests compare with it.
    ensure_vulkan_software || warn "no Vulkan driver could be installed"
    ensure_engine
}

# One line for each component that the tests need and that is not here.
missing_components() {
    have docker && with_engine docker info >/dev/null 2>&1 || echo "a Docker engine"
    have docker-registry || echo "docker-registry"
    have podman || echo "podman"
    have newuidmap || echo "uidmap"
    have rootlesskit || echo "rootlesskit"
    have slirp4netns || echo "slirp4netns"
    have nft || [ -x /usr/sbin/nft ] || echo "nftables"
    have runsc || echo "gVisor (runsc)"
    have mkfs.btrfs || [ -x /usr/sbin/mkfs.btrfs ] || echo "btrfs-progs"
    have setcap || [ -x /usr/sbin/setcap ] || echo "libcap2-bin"
    [ -x /bin/busybox ] || echo "busybox-static"
    ls /usr/share/vulkan/icd.d/*.json >/dev/null 2>&1 || ls /etc/vulkan/icd.d/*.json >/dev/null 2>&1 || echo "a Vulkan driver"
}

# Whether to run the tests that need components.
decide() {
    missing=$(missing_components)
    if [ -z "$missing" ]; then
        ignored=--include-ignored
        return
    fi
    in_ci && fail "the tests need what could not be had here: $(echo "$missing" | paste -s -d ',' -)"
    warn "not here: $(echo "$missing" | paste -s -d ',' -); tests that need more than Rust are skipped"
    ignored=
}

# Runs the tests; their output goes to the terminal and to $log, their status to $status.
run_tests() {
    {
        # shellcheck disable=SC2086 # $ignored is one option or none
        with_engine cargo test --manifest-path "$root/Cargo.toml" --locked --no-fail-fast "$@" -- $ignored && code=0 || code=$?
        echo "$code" >"$status"
    } 2>&1 | tee "$log"
}

# The sums over all test binaries.
summary() {
    awk '/^test result:/ {
        for (i = 1; i < NF; i++) {
            if ($(i + 1) == "passed;") passed += $i
            if ($(i + 1) == "failed;") failed += $i
            if ($(i + 1) == "ignored;") skipped += $i
        }
    }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
}

finish() {
    stop_engine
    [ -z "${work:-}" ] || rm -rf "$work"
}

main() {
    case "${1:-}" in
        -h | --help)
            usage
            exit 0
            ;;
    esac
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    work=$(mktemp -d "${TMPDIR:-/tmp}/fizz-test.XXXXXX")
    log="$work/log"
    status="$work/status"
    set_up
    use_cargo_home
    decide
    run_tests "$@"
    result=$(cat "$status" 2>/dev/null || echo 1)
    counts=$(summary)
    echo "$counts"
    [ "$result" -eq 0 ] || exit "$result"
    case "$counts" in
        "0 passed"*) exit 1 ;;
        *" 0 skipped") ;;
        *) if in_ci; then exit 1; fi ;;
    esac
}

main "$@"
