//! Builds the programs that run inside containers, the demo's job (assets/demo-job) and the isolation probe (assets/probe), as
//! static Linux programs and leaves them, compressed, for the binary to embed.
//!
//! Where that cannot be done (no Linux toolchain, no static C library), an empty file is left and a warning says so; then
//! `fizz demo` asks for `--image`, and no job gets a network, because nothing can be shown about it.
//!
//! Release builds for Linux leave the tables for unwinding out: a panic ends the process, so nothing reads them, and they would be
//! a tenth of the binary.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DEMO_JOB: &str = "assets/demo-job";
const PROBE: &str = "assets/probe";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={DEMO_JOB}");
    println!("cargo::rerun-if-changed={PROBE}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    leave_unwinding_out(&out)?;
    let packed = match demo_job(&out) {
        Ok(packed) => packed,
        Err(why) => {
            println!("cargo::warning=`fizz demo` will need --image: its own job was not built ({why})");
            Vec::new()
        }
    };
    fs::write(out.join("demo-job.gz"), packed)?;
    let packed = match build(&out, PROBE, "probe", &PROBE_OPTIONS) {
        Ok(packed) => packed,
        Err(why) => {
            println!("cargo::warning=jobs will get no network: the isolation probe was not built ({why})");
            Vec::new()
        }
    };
    fs::write(out.join("probe.gz"), packed)?;
    Ok(())
}

/// Both the GNU linker and LLVM's know such an addition to their own script.
const WITHOUT_UNWINDING: &str =
    "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) *(.gcc_except_table*) } } INSERT AFTER .text;";

fn leave_unwinding_out(out: &Path) -> Result<(), Box<dyn Error>> {
    if env::var("PROFILE")? == "release" && env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        let script = out.join("without-unwinding.ld");
        fs::write(&script, WITHOUT_UNWINDING)?;
        println!("cargo::rustc-link-arg-bin=fizz=-Wl,-T,{}", script.display());
    }
    Ok(())
}

/// As fast as it can be.
const DEMO_OPTIONS: [&str; 1] = ["-Copt-level=3"];
/// As small as it can be: without the standard library, and without the C library that it stands on.
const PROBE_OPTIONS: [&str; 5] = [
    "-Copt-level=z",
    "-Crelocation-model=static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
];

/// The compressed program; empty when this build has no use for it.
fn demo_job(out: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    if env::var_os("CARGO_FEATURE_COORDINATOR").is_none() {
        return Ok(Vec::new());
    }
    build(out, DEMO_JOB, "demo_job", &DEMO_OPTIONS)
}

/// A program of ours for containers, compressed.
fn build(out: &Path, sources: &str, name: &str, options: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let program = out.join(name);
    let mut compiler = compiler(&program, sources, name)?;
    let output = compiler.args(options).output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let first = errors.lines().find(|line| line.starts_with("error")).unwrap_or("the compiler failed");
        return Err(first.to_owned().into());
    }
    pack(&fs::read(&program)?)
}

fn compiler(program: &Path, sources: &str, name: &str) -> Result<Command, Box<dyn Error>> {
    let host = env::var("HOST")?;
    if !host.contains("-linux-") {
        return Err("it is a Linux program and this is not Linux".into());
    }
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo names no compiler")?);
    rustc.args(["--edition=2024", "-Ccodegen-units=1", "-Clto"]).arg(format!("--crate-name={name}"));
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
    rustc.arg("-o").arg(program).arg(Path::new(sources).join("main.rs"));
    Ok(rustc)
}

fn pack(program: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(program)?;
    Ok(gzip.finish()?)
}
