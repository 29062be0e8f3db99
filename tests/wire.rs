//! The wire protocol as it is written: a snapshot per message, and readers of another version.
//!
//! A changed snapshot is a changed protocol: an added optional field is fine, anything else breaks nodes in the field.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;

use fizz::wire::account::*;
use fizz::wire::bench::*;
use fizz::wire::enroll::*;
use fizz::wire::job::*;
use fizz::wire::lease::*;
use fizz::wire::node::*;
use fizz::wire::reach::*;
use fizz::wire::signed::SignedReport;
use fizz::wire::*;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const ID: &str = "0198c0de-0000-7000-8000-00000000000";

fn id<T: FromStr<Err: Debug>>(last_digit: u8) -> T {
    format!("{ID}{last_digit}").parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn rate(text: &str) -> HourlyRate {
    text.parse().unwrap()
}

/// Checks one message: its snapshot, the way back, and that fields from the future are ignored at every depth.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let json = serde_json::to_value(message).unwrap();
    insta::assert_json_snapshot!(name, json);
    assert_eq!(&serde_json::from_value::<T>(json.clone()).unwrap(), message, "{name} does not survive its own text");
    let mut newer = json.clone();
    add_future_fields(&mut newer);
    let text = serde_json::to_string(&newer).unwrap();
    let read: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name} from a newer writer: {e}\n{text}"));
    // Maps of free keys (env) keep what they are given, so compare through the fields this version knows.
    let mut back = serde_json::to_value(&read).unwrap();
    drop_future_fields(&mut back);
    assert_eq!(back, json, "{name} from a newer writer reads differently");
}

fn add_future_fields(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(add_future_fields);
            map.insert("added_in_v1_9".into(), Value::from("later"));
        }
        Value::Array(items) => items.iter_mut().for_each(add_future_fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn drop_future_fields(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("added_in_v1_9");
            map.values_mut().for_each(drop_future_fields);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_future_fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn spec() -> JobSpec {
    JobSpec {
        name: Some("render".into()),
        services: vec![ServiceSpec {
            name: "main".into(),
            image: "alpine:3.20".into(),
            entrypoint: Some(vec!["/bin/sh".into(), "-c".into()]),
            command: vec!["echo hi".into()],
            env: BTreeMap::from([("SEED".into(), Secret::new("7"))]),
            workdir: Some("/work".into()),
            resources: Resources { cpu_millis: 1500, memory_bytes: 1 << 30, disk_bytes: 2 << 30, gpus: 1 },
            root: true,
            depends_on: vec!["db".into()],
            restart: RestartPolicy { when: RestartWhen::OnFailure, times_max: Some(3) },
            health: Some(HealthCheck {
                test: HealthTest::Http { port: 8080, path: "/healthz".into() },
                interval_seconds: 10,
                timeout_seconds: 5,
                retries: 3,
                start_grace_seconds: 30,
            }),
            inputs: vec![InputSpec {
                url: "https://example.org/model.bin".into(),
                sha256: "cd".repeat(32),
                path: "/work/model.bin".into(),
                bytes_max: Some(1 << 20),
                executable: true,
            }],
            registry: Some(RegistryLogin { username: "ann".into(), password: Secret::new("hush") }),
            shm_bytes: Some(64 << 20),
        }],
        requirements: Requirements {
            score_min: Some(100),
            node_id: Some(id(1)),
            architecture: Some("amd64".into()),
            isolation: Some(Isolation::Gvisor),
            proven: false,
        },
        limits: JobLimits {
            price_max: rate("0.25"),
            duration_seconds_max: 3600,
            start_deadline_seconds: Some(600),
            stop_grace_seconds: 10,
            log_bytes_max: 16 << 20,
            output_bytes_max: 1 << 30,
            pids_max: 512,
        },
        output_path: Some("/output".into()),
        network: NetworkSpec { reach: Reach::Internet, domains: vec!["example.org".into()] },
        interactive: true,
    }
}

fn job_view() -> JobView {
    JobView {
        job_id: id(2),
        spec: spec(),
        state: JobState::Done,
        why: "the command ended with code 0".into(),
        submitted_at: at(0),
        started_at: Some(at(1)),
        ended_at: Some(at(9)),
        lease: Some(LeaseView {
            lease_id: id(3),
            node_id: id(1),
            rate: rate("0.10"),
            phase: LeasePhase::Done,
            pull_per_mille: Some(1000),
        }),
        lease_count: 1,
        outcome: Some(LeaseEnd::Exited { code: 0 }),
        cost: Amount::from_micros(222),
        paid_millis: Some(7_990),
        escrow: Amount::ZERO,
        log_bytes: 42,
        log_complete: true,
        output: Some(OutputView { bytes: 10_240, sha256: "ab".repeat(32) }),
    }
}

#[test]
fn job_messages_are_written_as_agreed() {
    check("submit_job", &SubmitJob { spec: spec() });
    check("job_view", &job_view());
    check("job_list", &JobList { jobs: vec![job_view()] });
    check(
        "market_view",
        &MarketView { nodes_online: 3, jobs_queued: 1, jobs_running: 2, price_min: Some(rate("0.05")) },
    );
}

fn wishes() -> Vec<ReachWish> {
    let exec = ReachWish::Exec {
        command: vec!["sh".into(), "-i".into()],
        tty: Some(TerminalSize { columns: 80, rows: 24 }),
        env: [("TERM".to_owned(), Secret::new("xterm"))].into(),
        workdir: Some("/work".into()),
    };
    vec![exec, ReachWish::CopyOut { path: "/work/a".into() }, ReachWish::CopyIn { path: "/work".into() }]
}

#[test]
fn session_messages_are_written_as_agreed() {
    let new = |what| NewReach { service: Some("main".into()), what };
    check("new_sessions", &wishes().into_iter().map(new).collect::<Vec<_>>());
    check("session_opened", &ReachOpened { session_id: id(9) });
}

#[test]
fn the_short_form_of_a_job_stays_short() {
    let short = r#"{"spec":{"services":[{"name":"main","image":"alpine","resources":{"cpu_millis":1000,"memory_bytes":536870912,"disk_bytes":1073741824}}],"limits":{"price_max":250000,"duration_seconds_max":60}}}"#;
    let job: SubmitJob = serde_json::from_str(short).unwrap();
    assert_eq!(job.spec.services[0].resources, Resources::default());
    assert_eq!(job.spec.limits.pids_max, default_pids_max());
    assert_eq!(job.spec.limits.stop_grace_seconds, default_stop_grace_seconds());
}

#[test]
fn lease_messages_are_written_as_agreed() {
    let assignment = Assignment {
        lease_id: id(3),
        job_id: id(2),
        generation: Generation(1),
        desired: Desired::Run,
        rate: rate("0.10"),
        spec: spec(),
    };
    check(
        "assignments",
        &Assignments { generation: Generation(7), leases: vec![assignment], sessions: Vec::new(), challenge: None },
    );
    let pending = PendingReach { session_id: id(9), lease_id: id(3), service: None, what: wishes().remove(0) };
    check(
        "assignments_with_a_session",
        &Assignments { generation: Generation(7), leases: Vec::new(), sessions: vec![pending], challenge: None },
    );
    let changes = [
        LeaseChange::Pulling { per_mille: Some(500) },
        LeaseChange::Starting { image_digest: "alpine@sha256:00".into() },
        LeaseChange::Running,
        LeaseChange::Frozen { reason: "a game runs".into() },
        LeaseChange::Thawed,
        LeaseChange::Restarted { service: "main".into(), code: 1, times: 2 },
        LeaseChange::Collecting,
    ];
    let ends = [
        LeaseEnd::Exited { code: 3 },
        LeaseEnd::OutOfMemory { limit_bytes: 1 << 30 },
        LeaseEnd::TimedOut { limit_seconds: 3600 },
        LeaseEnd::Signalled { signal: 9 },
        LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 1 << 30 },
        LeaseEnd::Unhealthy { detail: "GET /healthz answered 500".into() },
        LeaseEnd::ServiceFailed { service: "db".into(), code: 1 },
        LeaseEnd::Stopped { code: 143 },
        LeaseEnd::Failed { why: FailureKind::ImageNotFound, detail: "no such image".into() },
        LeaseEnd::Evicted { reason: "the owner plays".into() },
        LeaseEnd::Lost,
    ];
    let ended = ends.into_iter().map(|end| LeaseChange::Ended { end, ran_millis: 8000 });
    let events = changes
        .into_iter()
        .chain(ended)
        .zip(1..)
        .map(|(what, n)| LeaseEvent { sequence: Sequence(n), at: at(0), what })
        .collect();
    check("lease_events", &LeaseEvents { events });
    check("events_accepted", &EventsAccepted { through: Sequence(13) });
    check("log_accepted", &LogAccepted { next_offset: 4096 });
    check("output_accepted", &OutputAccepted { bytes: 10_240, sha256: "ab".repeat(32) });
}

#[test]
fn node_messages_are_written_as_agreed() {
    let offer = Offer {
        cpu_millis: 6000,
        memory_bytes: 12 << 30,
        disk_bytes: 50 << 30,
        gpus: 1,
        price_min: rate("0.30"),
        internet: true,
        domains: Some(vec!["*.example.com".into()]),
        isolation: vec![Isolation::Container, Isolation::Gvisor],
    };
    check(
        "inventory",
        &Inventory {
            host: Host {
                os: "Debian 12".into(),
                kernel: "6.1.0".into(),
                architecture: "amd64".into(),
                cpu_model: "Example CPU".into(),
                cpu_cores: 4,
                cpu_threads: 8,
                memory_bytes: 16 << 30,
                disk_bytes_free: 100 << 30,
            },
            gpus: vec![Gpu {
                name: "Example GPU".into(),
                vendor: "nvidia".into(),
                kind: GpuKind::Discrete,
                backend: "vulkan".into(),
                driver: "550.1".into(),
                pci_address: Some("0000:01:00.0".into()),
                uuid: Some("GPU-0a1b".into()),
            }],
            engine: Engine { name: "docker".into(), version: "20.10.24".into(), api_version: "1.41".into() },
            offer: offer.clone(),
        },
    );
    check(
        "heartbeat",
        &Heartbeat {
            boot_id: id(4),
            sequence: Sequence(9),
            state: NodeState::Working,
            reason: Some("one job".into()),
            assignment_generation: Generation(7),
            leases: vec![LeaseReport { lease_id: id(3), phase: LeasePhase::Running }],
        },
    );
    check(
        "heartbeat_ack",
        &HeartbeatAck {
            server_time: at(0),
            assignment_generation: Generation(7),
            interval_millis: 30_000,
            proof: None,
        },
    );
    check(
        "node_view",
        &NodeView {
            node_id: id(1),
            name: "rig".into(),
            state: NodeState::Idle,
            online: true,
            seen_at: Some(at(0)),
            score: Some(812),
            offer: Some(offer),
            leases: 0,
            proof: None,
        },
    );
    let result = GpuResult {
        name: "Example GPU".into(),
        kind: GpuKind::Discrete,
        pci_address: None,
        fp32_flops: 8.0e12,
        memory_bytes_per_second: 4.0e11,
        matmul_flops: 6.0e12,
        score: 812,
        verified: true,
        more: GpuFigures { fp16_flops: Some(1.6e13), int8_dot_ops: Some(3.2e13), ..GpuFigures::default() },
        health: Some(GpuHealth {
            temperature_celsius: Some(83.0),
            held_back_by: vec!["its temperature".into()],
            ..GpuHealth::default()
        }),
    };
    check(
        "benchmark_report",
        &BenchmarkReport {
            measured_at: at(0),
            fingerprint: "cd".repeat(32),
            method: 1,
            host: Default::default(),
            gpus: vec![result],
            score: 812,
            problems: vec!["the second card answered nothing".into()],
        },
    );
}

#[test]
fn joining_messages_are_written_as_agreed() {
    let key = PublicKey::from_bytes([1; 32]);
    let signature = Signature::from_bytes([2; 64]);
    let nonce = Nonce::from_bytes([3; 16]);
    check(
        "enroll_request",
        &EnrollRequest {
            public_key: key,
            name: "rig".into(),
            agent_version: "0.1.0".into(),
            join_token: Some(Secret::new("fzj_x")),
            proof: signature,
        },
    );
    check("enroll_approved", &EnrollStatus::Approved { node_id: id(1) });
    check(
        "enroll_pending",
        &EnrollStatus::Pending(PendingEnrollment {
            enrollment_id: id(5),
            user_code: "BCDF-GHJK".into(),
            verification_url: "https://c.example/activate".into(),
            verification_url_complete: "https://c.example/activate?code=BCDF-GHJK".into(),
            poll_token: Secret::new("fzp_x"),
            expires_at: at(900),
            poll_interval_seconds: 5,
        }),
    );
    check("enroll_denied", &EnrollStatus::Denied);
    check("enroll_expired", &EnrollStatus::Expired);
    check("enroll_poll", &EnrollPoll { poll_token: Secret::new("fzp_x") });
    check("nonce_request", &NonceRequest { node_id: id(1) });
    check("nonce_grant", &NonceGrant { nonce, expires_at: at(120), server_time: at(0) });
    check("session_request", &SessionRequest { node_id: id(1), nonce, agent_version: "0.1.0".into(), signature });
    check("session_grant", &SessionGrant { token: Secret::new("fzs_x"), expires_at: at(3600), server_time: at(0) });
    check("signed_report", &SignedReport { body: "{}".into(), nonce, at: at(0), signature });
}

#[test]
fn account_messages_are_written_as_agreed() {
    check(
        "account_view",
        &AccountView {
            account_id: id(6),
            name: "ann".into(),
            balance: Amount::from_micros(1_000_000),
            escrow: Amount::ZERO,
            earned: Amount::from_micros(211),
        },
    );
    check("new_account", &NewAccount { name: "ann".into() });
    check("account_created", &AccountCreated { account_id: id(6), api_key: Secret::new("fzk_x") });
    check("deposit", &Deposit { amount: Amount::from_micros(5_000_000) });
    check("new_join_token", &NewJoinToken { expires_seconds: 3600 });
    check("join_token_created", &JoinTokenCreated { join_token: Secret::new("fzj_x"), expires_at: at(3600) });
    check(
        "earnings",
        &Earnings {
            as_of: at(0),
            today: Amount::from_micros(211),
            last_7_days: Amount::from_micros(211),
            all_time: Amount::from_micros(211),
            pending: Amount::ZERO,
            leases_paid: 1,
            fee_per_mille: 50,
            days: vec![DayEarnings { date: jiff::civil::date(2026, 9, 22), net: Amount::from_micros(211), leases: 1 }],
        },
    );
    let receipt = Receipt {
        sequence: Sequence(1),
        node_id: id(1),
        lease_id: id(3),
        job_id: id(2),
        ended_at: at(9),
        billed_millis: 8000,
        rate: rate("0.10"),
        gross: Amount::from_micros(222),
        fee: Amount::from_micros(11),
        net: Amount::from_micros(211),
        previous_sha256: "0".repeat(64),
        signature: Signature::from_bytes([2; 64]),
    };
    check("receipt_list", &ReceiptList { coordinator_key: PublicKey::from_bytes([1; 32]), receipts: vec![receipt] });
    let lines = vec![
        LedgerLine { account: "deposits".into(), balance: Amount::from_micros(-5) },
        LedgerLine { account: "fees".into(), balance: Amount::from_micros(5) },
    ];
    check("ledger_view", &LedgerView { lines, sum: Amount::ZERO, transactions: 2, unbalanced: 0 });
    check("problem", &Problem::new(ErrorCode::TokenUsed, "it enrolled 'rig' on Tuesday"));
}

/// A word no version knows yet must read as `Unknown`, and say so when written back.
fn unknown_word<T: DeserializeOwned + PartialEq + Debug>(json: &str, expected: &T) {
    assert_eq!(&serde_json::from_str::<T>(json).unwrap(), expected, "{json}");
}

#[test]
fn words_from_the_future_read_as_unknown() {
    let word = r#""from_the_future""#;
    unknown_word(word, &JobState::Unknown);
    unknown_word(word, &LeasePhase::Unknown);
    unknown_word(word, &Desired::Unknown);
    unknown_word(word, &FailureKind::Unknown);
    unknown_word(word, &NodeState::Unknown);
    unknown_word(word, &GpuKind::Unknown);
    unknown_word(word, &ErrorCode::Unknown);
    unknown_word(word, &Reach::Unknown);
    unknown_word(word, &RestartWhen::Unknown);
    unknown_word(word, &Isolation::Unknown);
    unknown_word(word, &LimitKind::Unknown);
    unknown_word(r#"{"kind":"from_the_future","x":1}"#, &HealthTest::Unknown);
    unknown_word(r#"{"kind":"from_the_future","x":1}"#, &LeaseChange::Unknown);
    unknown_word(r#"{"kind":"from_the_future","x":[1]}"#, &LeaseEnd::Unknown);
    unknown_word(r#"{"status":"from_the_future"}"#, &EnrollStatus::Unknown);
}

#[test]
fn what_an_unknown_word_means_is_the_safe_thing() {
    assert!(!JobState::Unknown.is_final());
    assert!(!LeasePhase::Unknown.is_final());
    assert!(!NodeState::Unknown.takes_leases());
    assert!(!GpuKind::Unknown.is_hardware());
    assert!(!LeaseEnd::Unknown.retries_elsewhere());
    for isolation in [Isolation::Container, Isolation::UserNamespace, Isolation::Gvisor, Isolation::Kata] {
        assert!(!Isolation::Unknown.satisfies(isolation) && !isolation.satisfies(Isolation::Unknown));
        assert!(isolation.satisfies(Isolation::Container) && Isolation::Kata.satisfies(isolation));
    }
    assert!(!Isolation::Container.satisfies(Isolation::Gvisor));
}

#[test]
fn secrets_never_show_in_debug_output_of_messages() {
    let request = SubmitJob { spec: spec() };
    let mut secret_spec = request.spec.clone();
    secret_spec.services[0].env.insert("TOKEN".into(), Secret::new("hunter2"));
    secret_spec.services[0].registry = Some(RegistryLogin { username: "ann".into(), password: Secret::new("hunter2") });
    assert!(!format!("{secret_spec:?}").contains("hunter2"));
    assert!(format!("{secret_spec:?}").contains("TOKEN"));
}
