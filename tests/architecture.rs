//! The rules of ARCHITECTURE.md, read off the source: who may import whom, who owns which crate, what stays pure.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// One source file, its path below `src/` with `/`, and its code without comments and tests.
struct Source {
    path: String,
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 20, "the source tree was not found");
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            let own = text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
            let code = own.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
            Source { path, code, lines: own.lines().count() }
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

/// Whether `path` is the module `name` (`a/b` is `a/b.rs` and everything under `a/b/`).
fn within(path: &str, name: &str) -> bool {
    path == format!("{name}.rs") || path.starts_with(&format!("{name}/"))
}

/// Whether the code names `krate` as the first segment of a path.
fn uses_crate(code: &str, krate: &str) -> bool {
    let needle = format!("{krate}::");
    code.match_indices(&needle).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// Modules of ours (first level) that the code names as `crate::x`.
fn imports(code: &str) -> Vec<&str> {
    let mut found: Vec<&str> = code
        .split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or(""))
        .collect();
    // `use crate::{a, b::c}`
    for group in code.split("crate::{").skip(1) {
        let body = group.split("};").next().unwrap_or("");
        found.extend(
            body.split([',', '{', '}', '\n'])
                .map(|item| item.trim().split("::").next().unwrap_or(""))
                .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_')),
        );
    }
    found
}

fn complain(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn each_crate_has_one_owner() {
    let owners: &[(&str, &[&str])] = &[
        ("bollard", &["runtime/docker"]),
        ("sqlx", &["coordinator/store", "agent/journal"]),
        ("wgpu", &["hardware/gpu", "bench/gpu"]),
        ("sysinfo", &["hardware", "os/windows"]),
        ("axum", &["coordinator"]),
        ("axum_server", &["coordinator"]),
        ("rcgen", &["coordinator/tls"]),
        ("object_store", &["coordinator/outputs"]),
        ("reqwest", &["http", "rent", "agent/client"]),
        ("ring", &["runtime/images/cosign"]),
        ("clap", &["cli", "main"]),
        ("comfy_table", &["cli"]),
        ("indicatif", &["cli"]),
        ("figment", &["config"]),
        ("directories", &["paths"]),
        ("anyhow", &["cli", "main"]),
    ];
    let mut broken = Vec::new();
    for source in sources() {
        for (krate, allowed) in owners {
            if uses_crate(&source.code, krate) && !allowed.iter().any(|name| within(&source.path, name)) {
                broken.push(format!("src/{}: {krate} belongs to {}", source.path, allowed.join(", ")));
            }
        }
    }
    complain(&broken);
}

#[test]
fn imports_point_down_only() {
    // What a module must not know of. Assembly (main, cli) may know everything.
    let forbidden: &[(&str, &[&str])] = &[
        (
            "wire",
            &[
                "agent",
                "bench",
                "cli",
                "clock",
                "config",
                "control",
                "coordinator",
                "hardware",
                "http",
                "job",
                "paths",
                "rent",
                "runtime",
                "telemetry",
            ],
        ),
        (
            "clock",
            &[
                "agent",
                "bench",
                "cli",
                "config",
                "control",
                "coordinator",
                "hardware",
                "http",
                "job",
                "rent",
                "runtime",
                "wire",
            ],
        ),
        ("http", &["agent", "bench", "cli", "config", "control", "coordinator", "hardware", "job", "rent", "runtime"]),
        ("runtime", &["agent", "bench", "cli", "control", "coordinator", "hardware", "http", "job", "rent"]),
        ("hardware", &["agent", "cli", "control", "coordinator", "http", "job", "rent"]),
        (
            "proof",
            &[
                "agent",
                "bench",
                "cli",
                "config",
                "control",
                "coordinator",
                "hardware",
                "http",
                "job",
                "rent",
                "runtime",
            ],
        ),
        ("bench", &["agent", "cli", "control", "coordinator", "http", "job", "rent"]),
        ("job", &["bench", "cli", "control", "coordinator", "hardware", "rent"]),
        ("agent", &["cli", "coordinator", "rent"]),
        ("control", &["bench", "cli", "coordinator", "rent"]),
        ("coordinator", &["agent", "bench", "cli", "control", "hardware", "job", "rent", "runtime"]),
        ("rent", &["agent", "bench", "cli", "control", "coordinator", "hardware", "job", "runtime"]),
    ];
    let mut broken = Vec::new();
    for source in sources() {
        for (module, below) in forbidden {
            if within(&source.path, module) {
                for name in imports(&source.code).into_iter().filter(|name| below.contains(name)) {
                    broken.push(format!("src/{}: {module} must not import crate::{name}", source.path));
                }
            }
        }
    }
    complain(&broken);
}

#[test]
fn decisions_stay_pure() {
    let pure = [
        "agent/machine",
        "agent/failover",
        "job/machine",
        "job/disk",
        "runtime/sandbox",
        "coordinator/ledger",
        "coordinator/matching",
        "coordinator/placement",
        "coordinator/validate",
        "coordinator/verify/exam",
        "coordinator/verify/schedule",
        "coordinator/verify/sizing",
        "coordinator/verify/trust",
        "bench/score",
        "bench/plot",
        "runtime/images",
        "proof",
    ];
    let impure = ["tokio", "reqwest", "sqlx", "bollard", "axum", "object_store", "std::fs", "std::net", "std::process"];
    let sources = sources();
    let mut broken = Vec::new();
    for module in pure {
        assert!(sources.iter().any(|s| within(&s.path, module)), "the pure module {module} is gone; mend this list");
    }
    for source in &sources {
        if pure.iter().any(|name| within(&source.path, name)) {
            for krate in impure.iter().filter(|krate| uses_crate(&source.code, krate)) {
                broken.push(format!("src/{}: a decision does no IO, but it names {krate}", source.path));
            }
            if source.code.contains("async fn") || source.code.contains("Clock") {
                broken.push(format!("src/{}: a decision is not async and takes the time as an argument", source.path));
            }
        }
    }
    complain(&broken);
}

#[test]
fn operating_system_code_lives_in_operating_system_files() {
    let os_file = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        matches!(name, "linux.rs" | "macos.rs" | "windows.rs" | "unix.rs" | "os.rs" | "clock.rs" | "signals.rs")
    };
    let mut broken = Vec::new();
    for source in sources() {
        // A parent chooses between its OS files with `#[cfg(unix)] mod unix;` and nothing more.
        let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
        for (index, line) in lines.iter().enumerate() {
            let conditional = [
                "cfg(unix",
                "cfg(windows",
                "cfg(target_os",
                "cfg(not(unix",
                "cfg(not(windows",
                "cfg(not(target_os",
                "cfg(any(unix",
                "cfg(any(target_os",
            ]
            .iter()
            .any(|form| line.contains(form));
            let next = lines.iter().skip(index + 1).find(|l| !l.is_empty()).copied().unwrap_or("");
            let chooses = [
                "mod ",
                "pub mod ",
                "pub(crate) mod ",
                "pub(super) mod ",
                "use ",
                "pub use ",
                "pub(crate) use ",
                "pub(super) use ",
            ]
            .iter()
            .any(|form| next.starts_with(form))
                || next.starts_with("#[path");
            if conditional && !os_file(&source.path) && !chooses {
                broken.push(format!(
                    "src/{}:{}: move this into a file of its operating system",
                    source.path,
                    index + 1
                ));
            }
        }
    }
    complain(&broken);
}

#[test]
fn files_stay_small_enough_to_hold_in_the_head() {
    let code = sources().into_iter().map(|source| (format!("src/{}", source.path), source.lines));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk_all(&root.join("src"), &mut files);
    files.retain(|file| file.ends_with("tests.rs"));
    walk_all(&root.join("tests"), &mut files);
    let tests =
        files.iter().map(|file| (file.display().to_string(), fs::read_to_string(file).unwrap().lines().count()));
    let broken: Vec<String> = code
        .chain(tests)
        .filter(|(_, lines)| *lines > 500)
        .map(|(path, lines)| format!("{path} has {lines} lines; what second thing is it doing?"))
        .collect();
    complain(&broken);
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let broken: Vec<String> = files
        .into_iter()
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//!"))
        .map(|file| format!("{} does not say what it is for", file.display()))
        .collect();
    complain(&broken);
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, table) = page.split_once("## Invariants").unwrap();
    let mut files = Vec::new();
    walk_all(&root.join("src"), &mut files);
    walk_all(&root.join("tests"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let names: Vec<&str> =
        table.lines().filter(|l| l.starts_with("| ")).flat_map(|l| l.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 20, "the table of invariants was not found");
    let missing: Vec<String> = names
        .into_iter()
        .filter(|name| !code.contains(&format!("fn {name}(")))
        .map(|name| format!("ARCHITECTURE.md names the test {name}, which is not there"))
        .collect();
    complain(&missing);
}

fn walk_all(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk_all(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}
