#!/bin/sh
# Sets up what Fizz needs on Debian or Ubuntu, builds it, and shows the whole network at work on this machine.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=installers/lib.sh
. "$root/installers/lib.sh"

usage() {
    cat <<'HELP'
usage: installers/demo.sh [ARGUMENT of fizz demo]...

Installs what is missing (Rust, a C compiler, the Docker engine, Vulkan), builds Fizz and runs `fizz demo`.
Run it as root, or as a user who may use sudo. Running it again is safe and quick.

Environment:
  FIZZ_RUST=rustup|debian   where to get Rust from when it is missing (default: rustup, else Debian's rustc-web)
  FIZZ_SKIP_SETUP=1         install and start nothing; only build and run
  FIZZ_KEEP_ENGINE=1        leave a Docker engine running that this script started (no systemd)
  FIZZ_ENGINE_WAIT=60       seconds to wait for the Docker engine
  CARGO_TARGET_DIR          where to build (default: target)
HELP
}

set_up() {
    [ -z "${FIZZ_SKIP_SETUP:-}" ] || return 0
    ensure_build_tools
    ensure_rust
    ensure_engine
    ensure_vulkan
}

build() {
    say "building Fizz (the first time takes some minutes)"
    cargo build --release --locked --manifest-path "$root/Cargo.toml"
}

main() {
    case "${1:-}" in
        -h | --help)
            usage
            exit 0
            ;;
    esac
    trap stop_engine EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    set_up
    use_cargo_home
    build
    target=${CARGO_TARGET_DIR:-$root/target}
    # Not exec: an engine that was started for this must be stopped after it.
    with_engine "$target/release/fizz" demo "$@"
}

main "$@"
