//! Builds the demo's job (assets/demo-job) as a static Linux program and leaves it, compressed, for the binary to embed.
//!
//! Where that cannot be done (no Linux toolchain, no static C library), an empty file is left and a warning says so; then
//! `fizz demo` asks for `--image` instead.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "assets/demo-job";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCES}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let packed = match demo_job(&out) {
        Ok(packed) => packed,
        Err(why) => {
            println!("cargo::warning=`fizz demo` will need --image: its own job was not built ({why})");
            Vec::new()
        }
    };
    fs::write(out.join("demo-job.gz"), packed)?;
    Ok(())
}

/// The compressed program; empty when this build has no use for it.
fn demo_job(out: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    if env::var_os("CARGO_FEATURE_COORDINATOR").is_none() {
        return Ok(Vec::new());
    }
    let program = out.join("demo-job");
    let output = compiler(&program)?.output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let first = errors.lines().find(|line| line.starts_with("error")).unwrap_or("the compiler failed");
        return Err(first.to_owned().into());
    }
    pack(&fs::read(&program)?)
}

fn compiler(program: &Path) -> Result<Command, Box<dyn Error>> {
    let host = env::var("HOST")?;
    if !host.contains("-linux-") {
        return Err("the demo's job is a Linux program and this is not Linux".into());
    }
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo names no compiler")?);
    rustc.args(["--edition=2024", "--crate-name=demo_job", "-Copt-level=3", "-Ccodegen-units=1", "-Clto"]);
    rustc.args(["-Ctarget-feature=+crt-static", "-Cpanic=abort", "-Cstrip=symbols", "-Awarnings"]);
    // Containers run Linux whatever the machine around them runs, on the same kind of processor.
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    if !host.starts_with(&format!("{arch}-")) {
        rustc.arg(format!("--target={arch}-unknown-linux-gnu"));
        let linker =
            env::var_os("RUSTC_LINKER").filter(|_| env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux"));
        if let Some(linker) = linker {
            let mut option = std::ffi::OsString::from("-Clinker=");
            option.push(linker);
            rustc.arg(option);
        }
    }
    rustc.arg("-o").arg(program).arg(Path::new(SOURCES).join("main.rs"));
    Ok(rustc)
}

fn pack(program: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(program)?;
    Ok(gzip.finish()?)
}
