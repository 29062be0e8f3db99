//! `fizz bench` as the agent and a person start it: the real program in a child process.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fizz::bench::{self, BenchOutput};
use fizz::hardware;
use tokio::process::Command;

const FIZZ: &str = env!("CARGO_BIN_EXE_fizz");
const LONG: Duration = Duration::from_secs(120);

/// Runs fizz where the Vulkan loader finds no driver.
async fn without_adapters(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(FIZZ);
    command.args(arguments).env("VK_ICD_FILENAMES", "/nowhere.json").env("VK_DRIVER_FILES", "/nowhere.json");
    tokio::time::timeout(LONG, command.stdin(Stdio::null()).output())
        .await
        .expect("fizz ends in time")
        .expect("fizz runs")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_machine_without_adapters_gets_a_valid_report_that_says_what_to_install() {
    let output = without_adapters(&["bench", "--json", "--quick"]).await;
    assert!(output.status.success());
    let output: BenchOutput = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.report.score, output.report.gpus.len(), output.gpus.len()), (0, 0, 0));
    let problem = &output.report.problems[0];
    assert!(
        problem.contains("install") || problem.contains("usermod") || problem.contains("built without"),
        "{problem}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_table_says_the_score_and_why_there_is_none() {
    let output = without_adapters(&["bench", "--quick"]).await;
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Hardware score: 0\n");
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("fizz: "));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_run_measures_the_machine_too_and_draws_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("bench.svg");
    let output = without_adapters(&["bench", "--json", "--plot", picture.to_str().unwrap()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output: BenchOutput = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.report.host.cpu_fp32_flops.unwrap() > 1e6);
    assert!(output.report.host.memory_triad_bytes_per_second.unwrap() > 1e6);
    assert!(std::fs::read_to_string(&picture).unwrap().starts_with("<svg "));

    let nowhere = without_adapters(&["bench", "--quick", "--plot", "/nowhere/bench.svg"]).await;
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("give another --plot"));
}

#[tokio::test]
#[ignore = "needs a Vulkan adapter"]
async fn a_report_stays_current_until_the_hardware_changes() {
    let exe = Path::new(FIZZ);
    let mut steps = Vec::new();
    let output = bench::run_child(exe, true, LONG, |step| steps.push(step)).await.unwrap();
    assert!(output.report.score >= 1);
    assert!(output.report.gpus.iter().all(|gpu| gpu.verified));
    assert!(steps.iter().any(|step| step.doing.contains("fp32 FMA")), "{steps:?}");

    let gpus = bench::list_child(exe, LONG).await.unwrap();
    assert_eq!(gpus, output.gpus);
    let host = hardware::host(Path::new("/var/lib/docker")).unwrap();
    assert!(bench::is_current(&output.report, &hardware::fingerprint(&host, &gpus, bench::METHOD)));
    assert!(!bench::is_current(&output.report, &hardware::fingerprint(&host, &[], bench::METHOD)));
}

#[tokio::test]
#[ignore = "needs a Vulkan adapter"]
async fn the_table_fits_80_columns_and_labels_software_adapters() {
    let mut command = Command::new(FIZZ);
    command.args(["bench", "--quick"]).stdin(Stdio::null());
    let output = tokio::time::timeout(LONG, command.output()).await.unwrap().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.lines().any(|line| line.starts_with("Hardware score: ")), "{table}");
    for line in table.lines().filter(|line| line.contains("llvmpipe")) {
        assert!(line.contains("software"), "{table}");
    }
}

#[tokio::test]
#[ignore = "needs a Vulkan adapter"]
async fn a_child_whose_parent_is_gone_ends_without_a_result() {
    let mut command = Command::new(FIZZ);
    command.args(["bench", "--json", "--child"]).stdin(Stdio::null());
    let output = tokio::time::timeout(LONG, command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}
