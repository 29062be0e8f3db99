//! Children that behave badly, as shell scripts.

use std::os::unix::fs::PermissionsExt;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(2);

/// A program that runs this shell text.
struct Script(tempfile::TempDir);

impl Script {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fizz");
        // Written beside and renamed, so that no other test's fork holds it open for writing when it is started.
        let draft = folder.path().join("draft");
        std::fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        Self(folder)
    }

    async fn run(&self, time_limit: Duration) -> Result<BenchOutput, BenchError> {
        self.run_with_progress(time_limit, |_| {}).await
    }

    async fn run_with_progress(
        &self,
        time_limit: Duration,
        mut progress: impl FnMut(BenchProgress),
    ) -> Result<BenchOutput, BenchError> {
        loop {
            match run_child(&self.0.path().join("fizz"), true, time_limit, &mut progress).await {
                // Another test forked between our open and close of the script; it lets go when it executes.
                Err(BenchError::Start { source, .. }) if source.raw_os_error() == Some(26) => {}
                result => return result,
            }
        }
    }
}

/// A valid document, with this as `fp32_flops`.
fn document(fp32_flops: &str) -> String {
    format!(
        r#"{{"report":{{"measured_at":"2026-01-02T03:04:05Z","fingerprint":"f","method":1,"score":7,"gpus":[{{"name":"x",
        "kind":"software","fp32_flops":{fp32_flops},"memory_bytes_per_second":1.0,"matmul_flops":1.0,"score":7,
        "verified":true}}]}},"gpus":[]}}"#
    )
}

#[tokio::test]
async fn a_result_and_its_progress_come_through() {
    let script = Script::new(&format!(
        r#"echo "driver chatter" >&2
        echo '{{"doing":"x: fp32 FMA","steps_done":1,"steps_total":3}}' >&2
        cat <<END
{}
END"#,
        document("2.5e9")
    ));
    let mut steps = Vec::new();
    let output = script.run_with_progress(LONG, |step| steps.push(step)).await.unwrap();
    assert_eq!(output.report.score, 7);
    assert_eq!(steps, [BenchProgress { doing: "x: fp32 FMA".into(), steps_done: 1, steps_total: 3 }]);
}

#[tokio::test]
async fn the_child_is_asked_for_a_quick_run_as_json() {
    let script = Script::new(r#"echo "$@" >&2; exit 3"#);
    let error = script.run(LONG).await.unwrap_err().to_string();
    assert!(error.contains("exit code 3") && error.contains("bench --json --child --quick"), "{error}");
}

#[tokio::test]
async fn a_long_run_is_asked_for_in_seconds() {
    let script = Script::new(r#"echo "$@" >&2; exit 3"#);
    let options = BenchOptions { quick: false, list_only: false, sustain: Some(Duration::from_secs(90)) };
    let error = loop {
        match run_options(&script.0.path().join("fizz"), options, |_| {}).await {
            // Another test forked between our open and close of the script; it lets go when it executes.
            Err(BenchError::Start { source, .. }) if source.raw_os_error() == Some(26) => {}
            result => break result.unwrap_err().to_string(),
        }
    };
    assert!(error.contains("bench --json --child --sustain 90s"), "{error}");
}

#[tokio::test]
async fn a_child_that_hangs_is_killed_at_its_deadline_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("alive");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut alive = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
    let script = Script::new(&format!("(exec 3>{}; echo started >&3; sleep 1000) & sleep 1000", fifo.display()));
    let error = script.run(SHORT).await.unwrap_err();
    assert!(matches!(&error, BenchError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("did not end"), "{error}");
    // The pipe ends when nobody holds it open any more.
    let mut said = String::new();
    tokio::time::timeout(LONG, alive.read_to_string(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, "started\n");
}

#[tokio::test]
async fn a_child_that_crashes_is_an_error_with_the_signal_and_its_last_words() {
    let error = Script::new("echo 'about to go' >&2; kill -SEGV $$").run(LONG).await.unwrap_err().to_string();
    assert!(error.contains("signal 11 SIGSEGV") && error.contains("about to go"), "{error}");
}

#[tokio::test]
async fn garbage_is_no_result() {
    for (text, why) in [
        ("echo this is no JSON", "expected"),
        ("true", "empty"),
        ("printf '\\377\\376\\000'", "cannot be understood"),
        ("echo '{\"report\":null}'", "cannot be understood"),
        ("echo '[]'", "cannot be understood"),
    ] {
        let error = Script::new(text).run(LONG).await.unwrap_err();
        assert!(matches!(error, BenchError::Garbage { .. }), "{text}: {error}");
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_figure_that_is_no_number_is_refused() {
    for figure in ["-1.0", "null", "1e999", "NaN"] {
        let script = Script::new(&format!("cat <<END\n{}\nEND", document(figure)));
        let error = script.run(LONG).await.unwrap_err();
        assert!(matches!(error, BenchError::Garbage { .. }), "{figure}: {error}");
    }
}

#[tokio::test]
async fn endless_output_is_cut_off_long_before_the_deadline() {
    for text in ["exec yes", "exec yes >&2", "exec tr '\\000' x </dev/zero >&2"] {
        let error = Script::new(text).run(LONG).await.unwrap_err();
        assert!(matches!(error, BenchError::TooMuchOutput { .. }), "{text}: {error}");
        assert!(error.to_string().len() < 4_000, "{}", error.to_string().len());
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error = run_child(Path::new("/nowhere/fizz"), true, LONG, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/fizz"), "{error}");
}

#[tokio::test]
async fn the_child_sees_none_of_our_configuration() {
    // Tests must not change the environment of this process; what cargo sets is enough to show that the rest goes through.
    let script = Script::new("env | grep -c ^FIZZ_ >&2; exit 9");
    let error = script.run(LONG).await.unwrap_err().to_string();
    assert!(error.contains("it said last: 0"), "{error}");
}

#[test]
fn only_the_last_lines_are_kept_and_cut() {
    let mut said = LastLines::default();
    for number in 0..100 {
        said.push(format!("line {number} {}", "x".repeat(10_000)).as_bytes());
        said.push(b"\n");
    }
    assert_eq!(said.0.len(), LINES_KEPT);
    assert!(said.0[0].starts_with("line 95") && said.0[0].len() <= LINE_BYTES_MAX);
}
