//! Renters in their own running jobs, over a real Docker engine: coordinator and agent as they are, in this process.
#![cfg(feature = "coordinator")]
#![expect(clippy::wildcard_enum_match_arm, reason = "any other frame fails the test")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::time::Duration;

use bytes::Bytes;
use docker_support::market::Market;
use docker_support::raw_tar::tar_of;
use docker_support::{TestImage, TestNode, docker, in_time};
use fizz::agent::signals::{self, Stop};
use fizz::agent::{self, Outcome};
use fizz::clock::Clock;
use fizz::config::Ceiling;
use fizz::rent::{ReachInput, ReachSession};
use fizz::wire::job::{JobSpec, JobState};
use fizz::wire::reach::{NewReach, ReachFrame, ReachWish, TerminalSize};
use fizz::wire::{JobId, LeaseId, Secret};
use sha2::{Digest as _, Sha256};
use tar::EntryType;
use tokio::sync::watch;
use tokio::task::JoinHandle;

struct World {
    market: Market,
    image: TestImage,
    ceiling: Ceiling,
    node: Option<(JoinHandle<Outcome>, watch::Sender<Stop>)>,
    lease: Option<LeaseId>,
    /// Removes what its node has on the engine, probes of its network included.
    left: Option<TestNode>,
}

impl World {
    async fn new(ceiling: Ceiling) -> Self {
        let market = Market::open(200).await;
        let token = market.join_token().await;
        let mut world = Self { market, image: TestImage::new(), ceiling, node: None, lease: None, left: None };
        world.start_node(Some(token)).await;
        world.left = Some(world.market.test_node().await);
        world
    }

    async fn start_node(&mut self, join_token: Option<Secret>) {
        let options = self.market.node(join_token, self.ceiling.clone());
        let (stop, stopped) = signals::channel();
        let agent = in_time(async {
            loop {
                // One that was cut off holds its folder until it is next polled.
                match agent::build(options.clone(), Clock::system()).await {
                    Ok(agent) => return agent,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let agent = agent.await;
        self.node = Some((tokio::spawn(agent.run(stopped)), stop));
    }

    /// A job that runs, with /work there and what `line` does first.
    async fn job(&mut self, line: &str) -> JobId {
        let line = format!("mkdir -p /work; {line}; echo ready; sleep 600");
        let spec: JobSpec = serde_json::from_value(serde_json::json!({
            "services": [{
                "name": "main", "image": self.image.name, "command": ["/bin/sh", "-c", line],
                "resources": {"cpu_millis": 500, "memory_bytes": 64 << 20, "disk_bytes": 64 << 20},
            }],
            "limits": {"price_max": 1_000_000, "duration_seconds_max": 600, "stop_grace_seconds": 1},
            "interactive": true,
        }))
        .unwrap();
        let job = self.market.renter.submit(&spec, "the-job").await.unwrap().job_id;
        let running = async {
            loop {
                let view = self.market.renter.job(job).await.unwrap();
                assert!(!view.state.is_final(), "{}", view.why);
                if view.state == JobState::Running && view.log_bytes > 0 {
                    return view.lease.unwrap().lease_id;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        self.lease = Some(in_time(running).await);
        job
    }

    fn container(&self) -> String {
        docker(&["ps", "-q", "--filter", &format!("label=io.fizz.lease={}", self.lease.unwrap())])
    }

    /// What the engine says runs in the container.
    fn processes(&self) -> String {
        docker(&["top", &self.container()])
    }

    async fn until_gone(&self, word: &str) {
        let gone = async {
            while self.processes().contains(word) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        in_time(gone).await;
    }

    async fn open(&self, job: JobId, what: ReachWish) -> (ReachInput, ReachSession) {
        self.market.renter.reach(job, &NewReach { service: None, what }).await.unwrap()
    }

    /// Runs a command to its end.
    async fn run(&self, job: JobId, command: &[&str]) -> Ended {
        let (input, session) = self.open(job, exec(command, None)).await;
        input.send(&ReachFrame::InputEnd).await;
        end(session).await
    }

    /// Sends a tar in and hears what the node says of it.
    async fn copy_in(&self, job: JobId, path: &str, tar: Vec<u8>) -> Result<(), String> {
        let (input, session) = self.open(job, ReachWish::CopyIn { path: path.to_owned() }).await;
        let sending = async {
            for piece in tar.chunks(30_000) {
                if !input.send(&ReachFrame::Input(Bytes::copy_from_slice(piece))).await {
                    return;
                }
            }
            input.send(&ReachFrame::InputEnd).await;
        };
        let (ended, ()) = tokio::join!(end(session), sending);
        match ended {
            Ended { why: Some(why), .. } => Err(why),
            Ended { code, .. } => {
                assert_eq!(code, Some(0));
                Ok(())
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((node, _)) = &self.node {
            node.abort();
        }
        if let Some(lease) = self.lease {
            let filter = format!("label=io.fizz.lease={lease}");
            for id in docker(&["ps", "-aq", "--filter", &filter]).lines() {
                docker_support::docker_output(&["rm", "-f", id]);
            }
        }
    }
}

fn exec(command: &[&str], tty: Option<TerminalSize>) -> ReachWish {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    ReachWish::Exec { command, tty, env: Default::default(), workdir: None }
}

#[derive(Debug, Default)]
struct Ended {
    out: Vec<u8>,
    err: Vec<u8>,
    code: Option<i32>,
    why: Option<String>,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).replace('\r', "")
    }
}

async fn end(mut session: ReachSession) -> Ended {
    let mut ended = Ended::default();
    in_time(async {
        loop {
            match session.next().await.unwrap() {
                ReachFrame::Stdout(bytes) => ended.out.extend_from_slice(&bytes),
                ReachFrame::Stderr(bytes) => ended.err.extend_from_slice(&bytes),
                ReachFrame::Exit(code) => return ended.code = Some(code),
                ReachFrame::Error(why) => return ended.why = Some(why),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    ended
}

async fn until(session: &mut ReachSession, word: &str) -> String {
    let mut text = String::new();
    in_time(async {
        while !text.contains(word) {
            match session.next().await.unwrap() {
                ReachFrame::Stdout(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {text}"),
            }
        }
    })
    .await;
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn a_command_runs_as_the_jobs_user_with_no_more_rights_and_its_streams_and_code_come_back() {
    let mut world = World::new(Ceiling::default()).await;
    let job = world.job("grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp:)' /proc/self/status > /tmp/rights 2>/dev/null || grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp:)' /proc/self/status > /work/rights").await;
    let ended = world.run(job, &["sh", "-c", "echo out; echo err >&2; exit 9"]).await;
    assert_eq!((ended.text().as_str(), ended.err.as_slice(), ended.code), ("out\n", &b"err\n"[..], Some(9)));
    let own = world.run(job, &["sh", "-c", "cat /tmp/rights /work/rights 2>/dev/null"]).await.text();
    let here = world.run(job, &["grep", "-E", "^(Uid|Gid|Cap|NoNewPrivs|Seccomp:)", "/proc/self/status"]).await.text();
    assert_eq!(own, here);
    assert!(here.contains("CapEff:\t0000000000000000") && here.contains("NoNewPrivs:\t1"), "{here}");
    let said = |ended: &Ended| String::from_utf8(ended.err.clone()).unwrap();
    let missing = world.run(job, &["no-such-program"]).await;
    assert_eq!((missing.text().as_str(), missing.code), ("", Some(127)), "{missing:?}");
    assert_eq!(said(&missing), "the command was not found in the image: no-such-program\n");
    let locked = world.run(job, &["/etc/not-executable"]).await;
    assert_eq!(
        (said(&locked).as_str(), locked.code),
        ("the command cannot be executed: /etc/not-executable\n", Some(126))
    );

    let env = [("COLOUR".to_owned(), Secret::new("blue")), ("LD_PRELOAD".to_owned(), Secret::new("/x.so"))].into();
    let what = ReachWish::Exec {
        command: vec!["sh".into(), "-c".into(), "pwd; echo $COLOUR-$LD_PRELOAD".into()],
        tty: None,
        env,
        workdir: Some("/bin".into()),
    };
    let (input, session) = world.open(job, what).await;
    input.send(&ReachFrame::InputEnd).await;
    assert_eq!(end(session).await.text(), "/bin\nblue-\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn fifty_megabytes_go_in_and_come_back_the_same() {
    let mut world = World::new(Ceiling::default()).await;
    let job = world.job("true").await;
    let (input, mut session) = world.open(job, exec(&["cat"], None)).await;
    let piece: Vec<u8> = (0..30_000_u32).map(|n| (n * n % 253) as u8).collect();
    const PIECES: u64 = 1_750;
    let sending = async {
        let mut sum = Sha256::new();
        for number in 0..PIECES {
            let mut piece = piece.clone();
            piece[..8].copy_from_slice(&number.to_be_bytes());
            sum.update(&piece);
            assert!(input.send(&ReachFrame::Input(piece.into())).await);
        }
        input.send(&ReachFrame::InputEnd).await;
        sum.finalize()
    };
    let reading = async {
        let (mut sum, mut bytes) = (Sha256::new(), 0_u64);
        loop {
            match session.next().await.unwrap() {
                ReachFrame::Stdout(piece) => {
                    bytes += piece.len() as u64;
                    sum.update(&piece);
                }
                ReachFrame::Exit(code) => return (code, bytes, sum.finalize()),
                other => panic!("{other:?}"),
            }
        }
    };
    let (sent, (code, bytes, got)) = in_time(async { tokio::join!(sending, reading) }).await;
    assert_eq!((code, bytes), (0, PIECES * 30_000));
    assert_eq!(sent, got);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn a_terminal_has_the_renters_size_and_follows_it_and_ctrl_c_goes_inside() {
    let mut world = World::new(Ceiling::default()).await;
    let job = world.job("true").await;
    let size = TerminalSize { columns: 101, rows: 37 };
    let (input, mut session) = world.open(job, exec(&["sh"], Some(size))).await;
    let type_in = async |text: &str| assert!(input.send(&ReachFrame::Input(text.to_owned().into())).await);
    type_in("/bin/busybox stty size\n").await;
    until(&mut session, "37 101").await;
    input.send(&ReachFrame::Resize(TerminalSize { columns: 55, rows: 11 })).await;
    // The size travels in order with the keys.
    type_in("/bin/busybox stty size\n").await;
    until(&mut session, "11 55").await;
    type_in("sleep 1000\n").await;
    let begun = async {
        while !world.processes().contains("sleep 1000") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    in_time(begun).await;
    type_in("\x03").await;
    world.until_gone("sleep 1000").await;
    // What a terminal writes may look like the head of a frame of the engine's; it is handed on as it is.
    type_in("printf '\\001\\000\\000\\000\\377\\377\\377\\377after'; exit 4\n").await;
    let ended = end(session).await;
    assert!(ended.out.windows(13).any(|bytes| bytes == b"\x01\0\0\0\xff\xff\xff\xffafter"), "{}", ended.text());
    assert_eq!(ended.code, Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn a_command_ends_with_its_session_whatever_it_ignores() {
    let mut world = World::new(Ceiling::default()).await;
    let job = world.job("true").await;
    let line = "trap '' TERM HUP INT; echo begun; sleep 7771 & sleep 7772; sleep 7773";
    for tty in [None, Some(TerminalSize { columns: 80, rows: 24 })] {
        let (input, mut session) = world.open(job, exec(&["sh", "-c", line], tty)).await;
        until(&mut session, "begun").await;
        assert!(world.processes().contains("sleep 7771"));
        drop((input, session));
        world.until_gone("sleep 777").await;
    }
    assert!(world.processes().contains("sleep 600"), "the job itself goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn an_agent_killed_in_mid_session_is_missed_and_the_next_one_ends_what_it_left() {
    let mut world = World::new(Ceiling::default()).await;
    let job = world.job("true").await;
    let (_input, mut session) = world.open(job, exec(&["sh", "-c", "echo begun; sleep 7774; true"], None)).await;
    until(&mut session, "begun").await;
    let container = world.container();
    let (node, _) = world.node.take().unwrap();
    node.abort();
    let ended = end(session).await;
    assert!(ended.why.as_deref().unwrap_or_default().contains("the node went away"), "{ended:?}");
    world.start_node(None).await;
    world.until_gone("sleep 7774").await;
    assert_eq!(world.container(), container, "the job itself goes on");
    let again = async {
        loop {
            // Until the new agent has answered.
            let ended = world.run(job, &["echo", "again"]).await;
            if ended.code == Some(0) {
                return ended;
            }
        }
    };
    assert_eq!(in_time(again).await.text(), "again\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn an_owner_who_lets_nobody_in_is_obeyed() {
    let mut ceiling = Ceiling::default();
    ceiling.sandbox.interactive = false;
    let mut world = World::new(ceiling).await;
    let job = world.job("true").await;
    let ended = world.run(job, &["true"]).await;
    assert!(ended.why.unwrap().contains("the owner of this node lets nobody into running jobs"));
    let refused = world.copy_in(job, "/work", tar_of(&[("a", EntryType::Regular, "x")])).await;
    assert!(refused.unwrap_err().contains("lets nobody"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn files_are_copied_both_ways_and_hostile_tars_change_nothing_outside() {
    let mut world = World::new(Ceiling::default()).await;
    let job = world.job("mkdir /work/mine; ln -s /etc /work/out; ln -s /etc/hostile /work/file").await;
    let honest =
        [("top", EntryType::Directory, ""), ("top/a", EntryType::Regular, "one"), ("top/l", EntryType::Symlink, "a")];
    world.copy_in(job, "/work/mine", tar_of(&honest)).await.unwrap();
    world.copy_in(job, "/work/mine/renamed", tar_of(&[("a", EntryType::Regular, "one")])).await.unwrap();
    // Set-uid and set-gid are gone, and all of it is the job's own, as its folder is.
    let listed = world
        .run(
            job,
            &[
                "sh",
                "-c",
                "cat /work/mine/top/l; cd /work/mine; ls -ln . top | grep -E ' (top|a|l|renamed)'; ls -lnd /work/mine",
            ],
        )
        .await
        .text();
    assert!(listed.starts_with("one"), "{listed}");
    assert!(!listed.contains("rws") && !listed.contains("r-s"), "{listed}");
    let owner = |line: &str| line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(":");
    let lines: Vec<&str> = listed.trim_start_matches("one").lines().filter(|line| line.len() > 20).collect();
    let folder = owner(lines.last().unwrap());
    assert!(lines.len() >= 4 && lines.iter().all(|line| owner(line) == folder), "{listed}");

    for (path, entries) in [
        ("/work", &[("../etc/hostile", EntryType::Regular, "x")][..]),
        ("/work", &[("/etc/hostile", EntryType::Regular, "x")]),
        ("/work", &[("null", EntryType::Char, "")]),
        ("/work", &[("l", EntryType::Symlink, "/etc"), ("l/hostile", EntryType::Regular, "x")]),
        ("/work", &[("hard", EntryType::Link, "/etc/not-executable")]),
        ("/work/out", &[("hostile", EntryType::Regular, "x")]),
        ("/work/out/hostile", &[("hostile", EntryType::Regular, "x")]),
        ("/work/file", &[("hostile", EntryType::Regular, "x")]),
        ("/work/../etc", &[("hostile", EntryType::Regular, "x")]),
        ("/etc", &[("hostile", EntryType::Regular, "x")]),
        ("/work/absent/deep", &[("hostile", EntryType::Regular, "x")]),
    ] {
        let refused = world.copy_in(job, path, tar_of(entries)).await;
        assert!(refused.is_err(), "{path} {entries:?}");
    }
    let left = world.run(job, &["sh", "-c", "ls /etc; ls -l /work; ls /"]).await.text();
    assert!(
        !left.contains("hostile\n") || left.matches("hostile").count() == left.matches("-> /etc/hostile").count(),
        "{left}"
    );
    assert!(!std::path::Path::new("/etc/hostile").exists());

    let (_input, session) = world.open(job, ReachWish::CopyOut { path: "/work/mine".into() }).await;
    let out = end(session).await;
    assert_eq!(out.code, Some(0));
    let mut archive = tar::Archive::new(out.out.as_slice());
    let names: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert!(
        names.iter().any(|name| name == "mine/top/a") && names.iter().any(|name| name == "mine/renamed"),
        "{names:?}"
    );
    let (_input, session) = world.open(job, ReachWish::CopyOut { path: "/nowhere".into() }).await;
    assert!(end(session).await.why.unwrap().contains("no '/nowhere'"));
}
