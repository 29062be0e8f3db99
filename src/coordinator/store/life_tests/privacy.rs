//! What is left on the disk of a secret that nobody needs any more: nothing.

use super::*;

/// How often `text` occurs in the database's files.
fn found(world: &World, text: &str) -> usize {
    let files = std::fs::read_dir(world.dir.path()).unwrap();
    let bytes = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    bytes.map(|b| b.windows(text.len()).filter(|window| *window == text.as_bytes()).count()).sum()
}

#[tokio::test]
async fn no_byte_of_a_final_jobs_environment_stays_in_any_file_of_the_database() {
    let world = World::new().await;
    let mut secret = spec();
    // Long enough for pages of their own, and short enough for a page with others.
    let long = "0123456789abcdef".repeat(1000);
    secret.services[0].env.insert("LONG".into(), crate::wire::Secret::new(&long));
    secret.services[0].registry = Some(crate::wire::job::RegistryLogin {
        username: "somebody".into(),
        password: crate::wire::Secret::new("sesame-of-the-registry"),
    });
    let long_id = world.try_submit(&secret, None).await.unwrap().job_id;
    let short_id = world.submit().await;
    assert!(world.store.empty_log().await.unwrap());
    assert!(found(&world, "hunter2") == 2 && found(&world, "0123456789abcdef") > 0, "nodes still need them");
    assert_eq!(found(&world, "sesame-of-the-registry"), 1);
    let shown = serde_json::to_string(&world.view(long_id).await).unwrap();
    assert!(!shown.contains("sesame-of-the-registry") && !shown.contains("hunter2"), "{shown}");
    for job_id in [long_id, short_id] {
        let lease = world.place(job_id, 0, at(2)).await.unwrap();
        let ended = LeaseChange::Ended { end: LeaseEnd::Exited { code: 0 }, ran_millis: 1 };
        world.report(0, lease, 1, &[LeaseChange::Running, ended], at(3)).await.unwrap();
        assert!(world.view(job_id).await.state.is_final());
    }
    assert!(found(&world, "hunter2") > 0, "the log still has them");
    assert!(world.store.empty_log().await.unwrap());
    assert_eq!((found(&world, "hunter2"), found(&world, "0123456789abcdef")), (0, 0));
    assert_eq!(found(&world, "sesame-of-the-registry"), 0);
    world.books_balance().await;
}
