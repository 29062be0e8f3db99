use super::*;
use crate::wire::lease::{Desired, LeaseEnd};
use crate::wire::{Generation, JobId};

fn assignment(generation: u64) -> Assignment {
    let now = Timestamp::from_second(1_000).unwrap();
    let spec = serde_json::json!({
        "services": [{"name": "main", "image": "busybox", "resources": {"cpu_millis": 1000, "memory_bytes": 1 << 24, "disk_bytes": 0}}],
        "limits": {"price_max": 1, "duration_seconds_max": 60},
    });
    Assignment {
        lease_id: LeaseId::generate(now),
        job_id: JobId::generate(now),
        generation: Generation(generation),
        desired: Desired::Run,
        rate: 5.try_into().unwrap(),
        spec: serde_json::from_value(spec).unwrap(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    let lease = assignment(1);
    let journal = Journal::open(&path).await.unwrap();
    journal.put_lease(&lease).await.unwrap();
    journal
        .record(lease.lease_id, &Saved::default(), at(1), &[LeaseChange::Pulling { per_mille: None }])
        .await
        .unwrap();
    let position = LogPosition { offset: 77, ..LogPosition::default() };
    journal.put_log_position(lease.lease_id, &position).await.unwrap();
    journal.set_meta("node_id", Some("abc")).await.unwrap();
    journal.close().await;

    let journal = Journal::open(&path).await.unwrap();
    let record = LeaseRecord { assignment: lease.clone(), saved: Saved::default(), log: position };
    assert_eq!(journal.leases().await.unwrap(), vec![record]);
    assert_eq!(journal.unacked_events(lease.lease_id).await.unwrap().len(), 1);
    assert_eq!(journal.meta("node_id").await.unwrap().as_deref(), Some("abc"));
    journal.set_meta("node_id", None).await.unwrap();
    assert_eq!(journal.meta("node_id").await.unwrap(), None);
}

#[tokio::test]
async fn sequences_have_no_gaps_and_go_on_after_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    let lease = assignment(1);
    journal.put_lease(&lease).await.unwrap();
    let two = [LeaseChange::Pulling { per_mille: None }, LeaseChange::Running];
    let events = journal.record(lease.lease_id, &Saved::default(), at(1), &two).await.unwrap();
    assert_eq!(events.iter().map(|e| e.sequence.0).collect::<Vec<_>>(), [1, 2]);
    journal.ack_events(lease.lease_id, Sequence(1)).await.unwrap();
    journal.append_event(lease.lease_id, at(2), LeaseChange::Collecting).await.unwrap();
    let left = journal.unacked_events(lease.lease_id).await.unwrap();
    assert_eq!(left.iter().map(|e| e.sequence.0).collect::<Vec<_>>(), [2, 3]);
    journal.ack_events(lease.lease_id, Sequence(3)).await.unwrap();
    let ended = LeaseChange::Ended { end: LeaseEnd::Exited { code: 0 }, ran_millis: 1 };
    let last = journal.append_event(lease.lease_id, at(3), ended).await.unwrap();
    assert_eq!(last[0].sequence, Sequence(4));
}

#[tokio::test]
async fn a_newer_wish_replaces_an_older_one_and_never_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    let mut lease = assignment(2);
    journal.put_lease(&lease).await.unwrap();
    lease.generation = Generation(3);
    lease.desired = Desired::Stop;
    journal.put_lease(&lease).await.unwrap();
    let old = Assignment { generation: Generation(1), desired: Desired::Run, ..lease.clone() };
    journal.put_lease(&old).await.unwrap();
    assert_eq!(journal.lease(lease.lease_id).await.unwrap().unwrap().assignment, lease);
}

#[tokio::test]
async fn a_forgotten_lease_takes_its_events_along_and_cannot_be_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    let lease = assignment(1);
    journal.put_lease(&lease).await.unwrap();
    journal.append_event(lease.lease_id, at(1), LeaseChange::Running).await.unwrap();
    journal.forget_lease(lease.lease_id).await.unwrap();
    assert!(journal.leases().await.unwrap().is_empty());
    assert!(journal.unacked_events(lease.lease_id).await.unwrap().is_empty());
    let error = journal.record(lease.lease_id, &Saved::default(), at(1), &[]).await.unwrap_err();
    assert!(matches!(error, JournalError::UnknownLease { .. }), "{error}");
}

#[tokio::test]
async fn a_file_held_by_another_process_is_said_to_be_locked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    let holder = Journal::open(&path).await.unwrap();
    let tx = holder.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = Journal::open(&path).await.unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains("fuser"), "{error}");
    drop(tx);
}

#[tokio::test]
async fn a_damaged_file_is_left_alone_and_the_error_says_how_to_move_it_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    let garbage = vec![0x5a_u8; 8192];
    std::fs::write(&path, &garbage).unwrap();
    let error = Journal::open(&path).await.unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("mv "), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_counts_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    journal.put_lease(&assignment(1)).await.unwrap();
    sqlx::query("UPDATE leases SET saved = 'no json'").execute(&journal.pool).await.unwrap();
    assert!(matches!(journal.leases().await.unwrap_err(), JournalError::Corrupt { .. }));
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    let journal = Journal::open(&path).await.unwrap();
    sqlx::query("PRAGMA user_version = 9").execute(&journal.pool).await.unwrap();
    journal.close().await;
    for _ in 0..2 {
        let error = Journal::open(&path).await.unwrap_err();
        assert!(matches!(error, JournalError::Newer { found: 9, known: 2, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Journal::open(&folder.path().join("nowhere/state.sqlite")).await.unwrap_err();
    assert!(matches!(error, JournalError::NotAccessible { .. }), "{error:?}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_called_by_its_name_and_nothing_half_done_stays() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    // SQLite reports a file that may not grow exactly as it reports a full disk.
    sqlx::query("PRAGMA max_page_count = 1").execute(&journal.pool).await.unwrap();
    let mut lease = assignment(1);
    lease.spec.name = Some("x".repeat(1 << 20));
    let error = journal.put_lease(&lease).await.unwrap_err();
    assert!(matches!(error, JournalError::NoSpace { .. }), "{error:?}");
    assert!(error.is_temporary());
    assert!(journal.leases().await.unwrap().is_empty());
}

/// The file and what SQLite keeps beside it.
fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_may_read_it_even_if_that_was_otherwise_before() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    let modes = |what: &str| {
        let found = files(folder.path());
        assert_eq!(found.len(), 3, "{what}: the file, its write-ahead log and its index: {found:?}");
        for file in found {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{what}: {}", file.display());
        }
    };
    let journal = Journal::open(&path).await.unwrap();
    journal.put_lease(&assignment(1)).await.unwrap();
    modes("new");
    // What an agent that was killed leaves, made by one that knew no better.
    for file in files(folder.path()) {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let again = Journal::open(&path).await.unwrap();
    modes("opened again");
    assert_eq!(again.leases().await.unwrap().len(), 1);
    again.close().await;
    journal.close().await;
}

#[tokio::test]
async fn a_forgotten_lease_leaves_no_byte_of_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    let holds = |secret: &str| {
        let secret = secret.as_bytes();
        let any = |file: &PathBuf| std::fs::read(file).unwrap().windows(secret.len()).any(|bytes| bytes == secret);
        files(folder.path()).iter().any(any)
    };
    let with = |secret: &str| {
        let mut lease = assignment(1);
        lease.spec.services[0].env.insert("TOKEN".to_owned(), crate::wire::Secret::new(secret));
        // Large enough for pages of its own.
        let filler = crate::wire::Secret::new(secret.repeat(1_000));
        lease.spec.services[0].env.insert("FILLER".to_owned(), filler);
        lease
    };
    let (gone, stays) = (with("sesame-of-the-first"), with("sesame-of-the-second"));
    for lease in [&gone, &stays] {
        journal.put_lease(lease).await.unwrap();
        journal.append_event(lease.lease_id, at(1), LeaseChange::Running).await.unwrap();
    }
    assert!(holds("sesame-of-the-first"), "or this test proves nothing");
    journal.forget_lease(gone.lease_id).await.unwrap();
    assert!(!holds("sesame-of-the-first"));
    assert!(holds("sesame-of-the-second"));
}

#[tokio::test]
async fn a_file_of_the_first_version_opens_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    let journal = Journal::open(&path).await.unwrap();
    let lease = assignment(1);
    journal.put_lease(&lease).await.unwrap();
    journal.set_meta("node_id", Some("abc")).await.unwrap();
    sqlx::raw_sql("DROP TABLE images; PRAGMA user_version = 1").execute(&journal.pool).await.unwrap();
    journal.close().await;
    for _ in 0..2 {
        let journal = Journal::open(&path).await.unwrap();
        assert_eq!(journal.leases().await.unwrap()[0].assignment, lease);
        assert_eq!(journal.meta("node_id").await.unwrap().as_deref(), Some("abc"));
        journal.claim_image("alpine@sha256:1", false, at(5)).await.unwrap();
        assert_eq!(journal.cached_images().await.unwrap().len(), 1);
        journal.close().await;
    }
}

#[tokio::test]
async fn images_are_remembered_in_the_order_of_their_last_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    let journal = Journal::open(&path).await.unwrap();
    for (reference, second) in [("a", 1), ("b", 2), ("c", 3)] {
        journal.claim_image(reference, reference == "b", at(second)).await.unwrap();
    }
    journal.keep_image("a", "sha256:a", 10, at(4)).await.unwrap();
    journal.keep_image("b", "sha256:b", 20, at(5)).await.unwrap();
    journal.use_image("a", false, at(6)).await.unwrap();
    journal.forget_image("c").await.unwrap();
    journal.close().await;
    let journal = Journal::open(&path).await.unwrap();
    let seen: Vec<_> = journal.cached_images().await.unwrap();
    let seen: Vec<_> =
        seen.iter().map(|i| (i.reference.as_str(), i.image_id.as_deref(), i.bytes, i.needed_login)).collect();
    assert_eq!(seen, [("b", Some("sha256:b"), 20, true), ("a", Some("sha256:a"), 10, false)]);
}

#[tokio::test]
async fn an_image_is_wanted_while_a_lease_that_is_not_over_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    let lease = assignment(1);
    let saved: Saved = serde_json::from_value(serde_json::json!({
        "stage": "starting", "image": {"image_id": "sha256:abc", "digest": "x@sha256:1"},
    }))
    .unwrap();
    journal.record_new(&lease, &saved, at(1), &[]).await.unwrap();
    assert!(journal.leases_name("sha256:abc").await.unwrap());
    assert!(!journal.leases_name("sha256:other").await.unwrap());
    let over = Saved { stage: crate::job::machine::Stage::Over, ..saved };
    journal.record(lease.lease_id, &over, at(2), &[]).await.unwrap();
    assert!(!journal.leases_name("sha256:abc").await.unwrap());
}

#[tokio::test]
async fn no_byte_of_a_registrys_password_is_ever_written() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    let mut lease = assignment(1);
    lease.spec.services[0].registry = Some(crate::wire::job::RegistryLogin {
        username: "renter-name".to_owned(),
        password: crate::wire::Secret::new("sesame-of-the-registry"),
    });
    journal.put_lease(&lease).await.unwrap();
    journal.record_new(&lease, &Saved::default(), at(1), &[LeaseChange::Running]).await.unwrap();
    let holds = |text: &[u8]| {
        let any = |file: &PathBuf| std::fs::read(file).unwrap().windows(text.len()).any(|bytes| bytes == text);
        files(folder.path()).iter().any(any)
    };
    assert!(holds(b"renter-name"), "or this test proves nothing");
    assert!(!holds(b"sesame-of-the-registry"));
    let kept = journal.lease(lease.lease_id).await.unwrap().unwrap().assignment;
    assert_eq!(kept.spec.services[0].registry.as_ref().unwrap().password.expose(), "", "that there was one is known");
}
