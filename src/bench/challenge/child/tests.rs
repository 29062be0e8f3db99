//! Children that behave badly, as shell scripts.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::wire::challenge::Device;

async fn start(script: &str) -> Result<Prover, ProveError> {
    let folder = tempfile::tempdir().unwrap();
    let (draft, path) = (folder.path().join("draft"), folder.path().join("fizz"));
    std::fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&draft, &path).unwrap();
    let parts = [Part { device: Device::Cpu, size: 256 }];
    loop {
        match Prover::start(&path, &parts).await {
            // Another test forked between our open and close of the script; it lets go when it executes.
            Err(ProveError::Start(source)) if source.raw_os_error() == Some(26) => {}
            result => return result,
        }
    }
}

#[tokio::test]
async fn a_child_that_crashes_fails_or_talks_nonsense_is_an_error_with_its_reason() {
    assert!(matches!(start("exit 3").await, Err(ProveError::Crashed)));
    assert!(matches!(start("read x; echo hello").await, Err(ProveError::Garbage)));
    let failed = start(r#"read x; echo '{"report":"failed","why":"the adapter was lost"}'"#).await.unwrap_err();
    assert_eq!(failed.to_string(), "the challenge could not be computed: the adapter was lost");
    assert!(matches!(start(r#"read x; echo '{"report":"roots","roots":[]}'"#).await, Err(ProveError::Garbage)));
}

#[tokio::test]
async fn a_child_that_hangs_while_it_computes_is_told_by_its_deadline() {
    let mut prover = start(r#"read x; echo '{"report":"ready"}'; exec sleep 1000"#).await.unwrap();
    let result = prover.compute(vec![Digest::from_bytes([0; 32])], Duration::from_millis(50)).await;
    assert!(matches!(result, Err(ProveError::TimedOut { .. })), "{result:?}");
}
