//! `fizz demo` as people type it.
#![cfg(all(unix, feature = "coordinator"))]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The renderer at its smallest: these tests are about the way, not the picture.
const SMALL: [&str; 7] = ["--", "--width", "64", "--height", "40", "--samples", "1"];

fn demo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fizz"));
    command.arg("demo").current_dir(folder).env("TMPDIR", folder);
    command
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What is in the folder that the demo used for everything temporary.
fn left_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "fizz-demo").collect()
}

#[test]
fn without_an_engine_the_demo_says_what_to_type_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path()).env("DOCKER_HOST", "unix:///nowhere/docker.sock").output().unwrap();
    let said = words(&output);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("/nowhere/docker.sock") && said.contains("start docker"), "{said}");
    assert_eq!(left_in(folder.path()), [""; 0]);
}

#[test]
#[ignore = "needs a Docker engine"]
fn the_demo_ends_with_its_picture_and_its_story_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = demo(folder.path()).args(SMALL).output().unwrap();
        let said = words(&output);
        assert!(output.status.success(), "{said}");
        for part in [
            "hardware   score",
            "ms from submit to the first line of log",
            "exit code 0",
            "fizz-demo/fizz.png",
            "the job cost the renter $",
            "the node earned $",
            "and they sum to $0.00",
            "nothing: no container, no image, no process",
        ] {
            assert!(said.contains(part), "'{part}' is missing in\n{said}");
        }
        let picture = std::fs::read(folder.path().join("fizz-demo/fizz.png")).unwrap();
        assert!(picture.starts_with(b"\x89PNG"), "a picture came back");
        assert_eq!(left_in(folder.path()), [""; 0]);
    }
}

#[test]
#[ignore = "needs a Docker engine"]
fn the_demo_ends_with_the_exit_code_of_its_job() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path()).args(["--", "--no-such-option", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(words(&output).contains("there is no option --no-such-option"), "{}", words(&output));
}

#[test]
#[ignore = "needs a Docker engine"]
fn ctrl_c_in_the_middle_takes_everything_down() {
    // Work for an hour, and a number that no other container has in its command.
    const MARK: &str = "19997";
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(folder.path())
        .args(["--", "--samples", MARK])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        let runs = line.contains("scene: ");
        said.push(line);
        if runs {
            break;
        }
    }
    let container_is_there = || {
        let list =
            Command::new("docker").args(["ps", "-a", "--no-trunc", "--format", "{{.Command}}"]).output().unwrap();
        String::from_utf8(list.stdout).unwrap().contains(MARK)
    };
    assert!(container_is_there(), "{said:?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    said.extend(lines);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{said:?}");
    assert!(said.iter().any(|line| line.contains("the demo was stopped")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("left over")), "{said:?}");
    assert!(!container_is_there(), "the container is gone");
    assert_eq!(left_in(folder.path()), [""; 0]);
}
