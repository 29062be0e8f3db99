# shellcheck shell=sh
# Functions that demo.sh and test.sh share. Sourced, not run: `. installers/lib.sh`.
#
# - Everything may be done twice: what is there is left as it is.
# - What cannot be done ends with one sentence and what to type.
# - Only a Docker engine that these scripts started themselves is ever stopped by them.

# The checkout; set by the script that sources this.
: "${root:?}"

# Where an engine is noted down that was started here; the same in subshells.
engine_dir="${TMPDIR:-/tmp}/fizz-engine.$$"

say() {
    printf '==> %s\n' "$*"
}

warn() {
    printf 'note: %s\n' "$*" >&2
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        fail "this needs root: '$*'; install sudo, or run this script as root"
    fi
}

# version_at_least HAVE NEED: compares dotted numbers.
version_at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# --- Debian packages ---------------------------------------------------------------------------

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

available() {
    apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'
}

apt_refresh() {
    [ -z "${apt_is_fresh:-}" ] || return 0
    apt_is_fresh=yes
    as_root apt-get update -qq || warn "the package lists could not be refreshed; going on with the ones that are here"
}

# apt_install PACKAGE...: installs those that are missing; non-zero when that fails.
apt_install() {
    apt_missing=
    for apt_package in "$@"; do
        installed "$apt_package" || apt_missing="$apt_missing $apt_package"
    done
    [ -n "$apt_missing" ] || return 0
    have apt-get || return 1
    apt_refresh
    say "installing$apt_missing"
    # shellcheck disable=SC2086 # a list of package names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $apt_missing >/dev/null
}

# need PACKAGE...: as apt_install, but ends the script when it fails.
need() {
    apt_install "$@" || fail "could not install $*; install them with your package manager, then run this again"
}

# --- Rust --------------------------------------------------------------------------------------

rust_needed() {
    sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$root/Cargo.toml"
}

rust_is_new_enough() {
    have cargo && have rustc && rust_found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) \
        && version_at_least "$rust_found" "$(rust_needed)"
}

use_cargo_home() {
    case ":$PATH:" in
        *":${CARGO_HOME:-$HOME/.cargo}/bin:"*) ;;
        *) PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH" ;;
    esac
    export PATH
}

rust_by_rustup() {
    [ "${FIZZ_RUST:-any}" != debian ] || return 1
    if have rustup; then
        rustup toolchain install stable --profile minimal && rustup default stable && return 0
    fi
    have curl || apt_install curl ca-certificates || return 1
    rustup_script=$(mktemp)
    if curl --proto '=https' --tlsv1.2 --silent --show-error --fail --connect-timeout 10 \
        --output "$rustup_script" https://sh.rustup.rs 2>/dev/null; then
        say "installing Rust with rustup (into ${CARGO_HOME:-$HOME/.cargo})"
        sh "$rustup_script" -y --quiet --profile minimal --no-modify-path && rustup_done=yes
    fi
    rm -f "$rustup_script"
    [ "${rustup_done:-}" = yes ]
}

rust_by_debian() {
    [ "${FIZZ_RUST:-any}" != rustup ] && have apt-get || return 1
    apt_refresh
    available rustc-web && available cargo-web && apt_install rustc-web cargo-web
}

ensure_rust() {
    use_cargo_home
    if ! rust_is_new_enough; then
        rust_by_rustup || rust_by_debian || true
        hash -r
    fi
    rust_is_new_enough || fail "Rust $(rust_needed) or newer is needed and could not be installed here;" \
        "get it from https://rustup.rs, then run this again"
    say "Rust $rust_found"
}

# rustfmt and clippy, from where the compiler came from.
ensure_rust_tools() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return 0
    { have rustup && rustup component add rustfmt clippy; } || apt_install rustfmt-web rust-web-clippy \
        || fail "rustfmt and clippy could not be installed; type: rustup component add rustfmt clippy"
}

ensure_build_tools() {
    if have gcc && have pkg-config && [ -e /usr/include/stdlib.h ]; then
        return 0
    fi
    need gcc libc6-dev pkg-config
}

# --- Docker ------------------------------------------------------------------------------------

engine_answers() {
    docker info >/dev/null 2>&1
}

# The same question, asked as root: is it only the permission that is missing?
engine_answers_root() {
    as_root docker info >/dev/null 2>&1
}

systemd_runs() {
    [ -d /run/systemd/system ]
}

ensure_engine() {
    if ! have docker || { ! have dockerd && ! engine_answers; }; then
        need docker.io iptables
    fi
    engine_answers || engine_answers_root || start_engine
    say "Docker engine $(as_root docker version --format '{{.Server.Version}}')"
}

start_engine() {
    if systemd_runs; then
        say "starting the Docker engine (systemctl start docker)"
        as_root systemctl start docker || fail "Docker did not start; see why with: sudo journalctl -u docker -n 50"
        engine_log="the output of: sudo journalctl -u docker -n 50"
    else
        start_engine_in_background
    fi
    wait_for_engine
}

# Without systemd. What was started is written down, so that stop_engine stops this one and no other.
start_engine_in_background() {
    mkdir -m 700 "$engine_dir" || fail "$engine_dir is in the way; remove it: rm -r $engine_dir"
    engine_log="$engine_dir/dockerd.log"
    say "starting the Docker engine in the background (log: $engine_log)"
    # shellcheck disable=SC2016 # expanded by the inner shell
    as_root sh -c 'nohup dockerd >"$1" 2>&1 </dev/null & echo $! >"$2"' sh "$engine_log" "$engine_dir/pid"
}

wait_for_engine() {
    engine_wait=${FIZZ_ENGINE_WAIT:-60}
    while ! engine_answers_root; do
        engine_wait=$((engine_wait - 1))
        if [ "$engine_wait" -le 0 ]; then
            [ ! -r "$engine_log" ] || tail -n 5 "$engine_log" >&2
            fail "the Docker engine did not answer within ${FIZZ_ENGINE_WAIT:-60} s; see $engine_log"
        fi
        sleep 1
    done
}

# Stops the engine if this script started it, and removes its pid and log.
stop_engine() {
    [ -r "$engine_dir/pid" ] || return 0
    if [ -n "${FIZZ_KEEP_ENGINE:-}" ]; then
        say "leaving the Docker engine running (stop it with: kill $(cat "$engine_dir/pid"))"
        return 0
    fi
    engine_pid=$(cat "$engine_dir/pid")
    say "stopping the Docker engine that was started for this"
    as_root kill "$engine_pid" 2>/dev/null || true
    engine_wait=30
    while as_root kill -0 "$engine_pid" 2>/dev/null && [ "$engine_wait" -gt 0 ]; do
        engine_wait=$((engine_wait - 1))
        sleep 1
    done
    as_root rm -rf "$engine_dir"
}

# with_engine COMMAND...: runs it as this user, in the group of the engine's socket where the user is not in it.
with_engine() {
    if engine_answers; then
        "$@"
        return
    fi
    have sudo || fail "you may not use Docker's socket; run this as root, or: usermod -aG docker $(id -un)"
    engine_group=$(stat -c %G /var/run/docker.sock)
    sudo --preserve-env=HOME,CARGO_HOME,CARGO_TARGET_DIR,PATH,TERM -u "$(id -un)" -g "$engine_group" -- env "PATH=$PATH" "$@"
}

# --- Vulkan ------------------------------------------------------------------------------------

has_nvidia() {
    [ -e /dev/nvidiactl ] || [ -e /proc/driver/nvidia/version ]
}

# The loader always; Mesa's drivers (AMD, Intel, and in software) unless there is NVIDIA's own.
ensure_vulkan() {
    if has_nvidia; then
        apt_install libvulkan1
    else
        ensure_vulkan_software
    fi || warn "no Vulkan driver could be installed; the benchmark will say so"
}

ensure_vulkan_software() {
    apt_install libvulkan1 mesa-vulkan-drivers
}
