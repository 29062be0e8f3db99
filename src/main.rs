//! The `fizz` binary: parse, run, and turn errors into sentences and exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    fizz::http::install_crypto_provider();
    fizz::cli::main(std::env::args_os())
}
