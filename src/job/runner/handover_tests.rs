//! What a job leaves behind reaches the coordinator: its output and its log, whole, once, and within their limits.

use super::tests::{Bench, ended, in_time, lease};
use super::*;
use crate::job::fake::LostParts;
use crate::runtime::RuntimeError;
use crate::runtime::fake::{Call, Step};
use crate::wire::lease::LeaseEnd;
use crate::wire::logs::LogStream;

#[tokio::test]
async fn the_output_folder_arrives_as_a_tar_and_its_spool_file_goes() {
    let bench = Bench::new([Step::File("/out/a/b.txt".into(), b"picture".to_vec()), Step::Exit(0)]).await;
    let mut lease = lease();
    lease.spec.output_path = Some("/out".to_owned());
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    let tar = received.output.unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let paths: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(paths, ["out/", "out/a/b.txt"].map(std::path::Path::new));
    let left = std::fs::read_dir(&bench.deps.spool_dir).unwrap();
    assert!(left.into_iter().all(|file| !file.unwrap().file_name().to_string_lossy().ends_with(".tar")));
}

/// Bytes of one part.
const PART: u64 = 2 << 20;

/// A lease whose job leaves an output of five parts.
async fn with_large_output() -> (Bench, Assignment) {
    let bench = Bench::new([Step::File("/out/numbers".to_owned(), vec![7; 9 << 20])]).await;
    let mut lease = lease();
    lease.spec.output_path = Some("/out".to_owned());
    (bench, lease)
}

#[tokio::test]
async fn an_output_whose_connection_breaks_again_and_again_is_sent_once_but_for_the_parts_that_were_lost() {
    let (bench, lease) = with_large_output().await;
    bench.port.lose_parts(Some(LostParts::Every(2)));
    let handle = bench.spawn(&lease);
    let received = bench.received(&lease, |received| received.end().is_some()).await;
    in_time(handle.done).await.unwrap();
    let size = received.output.unwrap().len() as u64;
    assert!(size > 4 * PART);
    // Five parts are needed, so four were lost in between.
    assert!(
        (size + 3 * PART..=size + 4 * PART).contains(&received.output_bytes_sent),
        "{}",
        received.output_bytes_sent
    );
}

#[tokio::test]
async fn an_agent_killed_in_mid_upload_goes_on_where_the_coordinator_is_and_collects_nothing_again() {
    let (bench, lease) = with_large_output().await;
    bench.port.lose_parts(Some(LostParts::After(3)));
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| received.output_bytes_sent > 3 * PART).await;
    bench.kill(handle).await;
    let sent = bench.port.received(lease.lease_id).output_bytes_sent;
    bench.port.lose_parts(None);
    // It cannot be collected a second time.
    bench.engine.fail_next(Call::Archive, RuntimeError::NoSuchPath { path: "/out".to_owned() });
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    let size = received.output.expect("the output is there").len() as u64;
    assert_eq!(received.output_bytes_sent - sent, size - 3 * PART, "nothing is sent again");
    let left: Vec<_> =
        std::fs::read_dir(&bench.deps.spool_dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().contains("sqlite")), "{left:?}");
}

#[tokio::test]
async fn an_output_that_is_missing_or_too_large_is_said_in_the_log_and_the_exit_code_stays() {
    for (file, words) in [("/elsewhere/x", "has no '/out'"), ("/out/x", "larger than the limit")] {
        let bench = Bench::new([Step::File(file.into(), vec![7; 100_000]), Step::Exit(4)]).await;
        let mut lease = lease();
        lease.spec.output_path = Some("/out".to_owned());
        lease.spec.limits.output_bytes_max = 50_000;
        let received = bench.ended(&lease, bench.spawn(&lease)).await;
        assert_eq!(ended(&received), LeaseEnd::Exited { code: 4 });
        assert_eq!(received.output, None);
        let notice = String::from_utf8(received.text(LogStream::Notice)).unwrap();
        assert!(notice.contains(words), "{notice}");
    }
}

#[tokio::test]
async fn a_log_past_its_limit_is_cut_and_says_so() {
    let script = (0..100).map(|number| Step::line(&format!("line number {number}")));
    let bench = Bench::new(script).await;
    let mut lease = lease();
    lease.spec.limits.log_bytes_max = 200;
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    let frames = received.frames();
    assert!(frames.iter().take(frames.len() - 1).all(|frame| frame.stream == LogStream::Stdout));
    let notice = frames.last().unwrap();
    assert_eq!(notice.stream, LogStream::Notice);
    assert!(String::from_utf8_lossy(&notice.bytes).contains("200 bytes"));
    assert!(received.text(LogStream::Stdout).starts_with(b"line number 0\n"));
    assert!(received.log.len() < 300);
}

#[tokio::test]
async fn a_coordinator_that_lost_part_of_the_log_gets_it_again() {
    let bench =
        Bench::new([Step::line("one"), Step::line("two"), Step::Hold, Step::line("three"), Step::Exit(0)]).await;
    let lease = lease();
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| received.text(LogStream::Stdout) == b"one\ntwo\n").await;
    bench.port.lose_log_after(lease.lease_id, 9);
    bench.engine.release(lease.lease_id);
    let received = bench.ended(&lease, handle).await;
    assert_eq!(received.text(LogStream::Stdout), b"one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_line_of_ten_megabytes_goes_through_in_bodies_of_bounded_size() {
    let line: Vec<u8> = (0..10 << 20).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
    let bench = Bench::new([Step::Out(line.clone()), Step::Exit(0)]).await;
    let lease = lease();
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    assert_eq!(received.text(LogStream::Stdout), line);
    assert!(received.log_body_bytes_max <= 1 << 20);
}
