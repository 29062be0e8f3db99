use std::collections::BTreeMap;

use super::*;
use crate::wire::Secret;
use crate::wire::job::{
    HealthCheck, HealthTest, InputSpec, RegistryLogin, Resources, RestartPolicy, RestartWhen, default_log_bytes_max,
    default_output_bytes_max, default_pids_max, default_stop_grace_seconds,
};

fn valid() -> JobSpec {
    JobSpec {
        name: Some("render a café".into()),
        services: vec![ServiceSpec {
            name: "main".into(),
            image: "ghcr.io/a/b@sha256:0123".into(),
            entrypoint: None,
            command: vec!["echo".into(), "…".into()],
            env: BTreeMap::from([("TOKEN".into(), Secret::new("hunter2"))]),
            workdir: Some("/work".into()),
            resources: Resources::default(),
            ..ServiceSpec::default()
        }],
        requirements: Requirements::default(),
        limits: JobLimits {
            price_max: "0.36".parse().unwrap(),
            duration_seconds_max: 3600,
            start_deadline_seconds: None,
            stop_grace_seconds: default_stop_grace_seconds(),
            log_bytes_max: default_log_bytes_max(),
            output_bytes_max: default_output_bytes_max(),
            pids_max: default_pids_max(),
        },
        output_path: Some("/output".into()),
        ..JobSpec::default()
    }
}

fn refused(field: &str, change: impl FnOnce(&mut JobSpec)) -> String {
    let mut spec = valid();
    change(&mut spec);
    let error = job(&spec).expect_err(field);
    assert_eq!(error.field, field, "{error}");
    error.to_string()
}

#[test]
fn a_sound_job_is_accepted_and_its_escrow_is_price_times_duration() {
    assert_eq!(job(&valid()).unwrap().escrow, Amount::from_micros(360_000));
}

#[test]
fn a_job_has_one_to_eight_services_with_names_of_their_own() {
    refused("services", |j| j.services.clear());
    let many = |count: usize| {
        move |j: &mut JobSpec| {
            let names = (1..count).map(|number| format!("s{number}"));
            let more: Vec<_> = names.map(|name| ServiceSpec { name, ..j.services[0].clone() }).collect();
            j.services.extend(more);
        }
    };
    let mut spec = valid();
    many(8)(&mut spec);
    assert!(job(&spec).is_ok());
    assert_eq!(refused("services", many(9)), "services must hold 1 to 8 containers, not 9");
    refused("services[1].name", |j| j.services.push(j.services[0].clone()));
    refused("services[1].image", |j| {
        many(2)(j);
        j.services[1].image.clear();
    });
    refused("services[1].resources.gpus", |j| {
        many(2)(j);
        j.services[1].resources.gpus = 1;
    });
}

#[test]
fn services_wait_for_known_others_and_never_in_a_circle() {
    let three = |waits: [&'static [&'static str]; 3]| {
        move |j: &mut JobSpec| {
            let main = j.services[0].clone();
            for (name, waits) in ["main", "db", "cache"].iter().zip(waits) {
                let depends_on = waits.iter().map(|&name| name.to_owned()).collect();
                j.services.push(ServiceSpec { name: (*name).to_owned(), depends_on, ..main.clone() });
            }
            j.services.remove(0);
        }
    };
    let mut spec = valid();
    three([&["db", "cache"], &["cache"], &[]])(&mut spec);
    assert!(job(&spec).is_ok());
    refused("services[0].depends_on", three([&["nobody"], &[], &[]]));
    refused("services[1].depends_on", three([&[], &["db"], &[]]));
    refused("services[0].depends_on", three([&["db", "db"], &[], &[]]));
    let sentence = refused("services", three([&["db"], &["cache"], &["db"]]));
    assert_eq!(sentence, "services wait for each other in a circle by depends_on: main, db, cache");
}

#[test]
fn checks_and_restarts_that_make_no_sense_are_refused() {
    let check =
        |test| HealthCheck { test, interval_seconds: 1, timeout_seconds: 1, retries: 1, start_grace_seconds: 0 };
    let tcp = || check(HealthTest::Tcp { port: 80 });
    let set = |j: &mut JobSpec, health| j.services[0].health = Some(health);
    refused("services[0].health.interval_seconds", |j| set(j, HealthCheck { interval_seconds: 0, ..tcp() }));
    refused("services[0].health.timeout_seconds", |j| set(j, HealthCheck { timeout_seconds: 601, ..tcp() }));
    refused("services[0].health.retries", |j| set(j, HealthCheck { retries: 101, ..tcp() }));
    refused("services[0].health.start_grace_seconds", |j| set(j, HealthCheck { start_grace_seconds: 3601, ..tcp() }));
    refused("services[0].health.test.port", |j| set(j, check(HealthTest::Tcp { port: 0 })));
    for path in ["live", "/a b", "/a\r\nHost: x"] {
        let test = HealthTest::Http { port: 80, path: path.into() };
        refused("services[0].health.test.path", move |j| set(j, check(test)));
    }
    refused("services[0].health.test.command", |j| set(j, check(HealthTest::Exec { command: Vec::new() })));
    refused("services[0].health.test.kind", |j| set(j, check(HealthTest::Unknown)));
    let restart = |when, times_max| RestartPolicy { when, times_max };
    refused("services[0].restart.when", |j| j.services[0].restart = restart(RestartWhen::Unknown, None));
    refused("services[0].restart.times_max", |j| j.services[0].restart = restart(RestartWhen::Never, Some(1)));
    refused("services[0].restart.times_max", |j| j.services[0].restart = restart(RestartWhen::OnFailure, Some(0)));
}

#[test]
fn inputs_are_web_addresses_with_a_checksum_and_a_path_of_their_own() {
    let input = || InputSpec {
        url: "https://example.com/a".into(),
        sha256: "0123456789abcdef".repeat(4),
        path: "/work/a".into(),
        bytes_max: None,
        executable: false,
    };
    let mut spec = valid();
    spec.services[0].inputs = vec![input(), InputSpec { path: "/work/b".into(), ..input() }];
    assert!(job(&spec).is_ok());
    for url in ["ftp://x/y", "file:///etc/passwd", "https://", "https://u:p@example.com/", "https://a b/", "/x"] {
        refused("services[0].inputs[0].url", |j| j.services[0].inputs = vec![InputSpec { url: url.into(), ..input() }]);
    }
    for url in [
        "http://127.0.0.1/",
        "https://192.168.1.1:8443/x",
        "http://0x7f.1/",
        "http://[fd00::1]/",
        "http://localhost:9/",
    ] {
        refused("services[0].inputs[0].url", |j| j.services[0].inputs = vec![InputSpec { url: url.into(), ..input() }]);
    }
    for sha256 in ["", "00", &"g".repeat(64)] {
        refused("services[0].inputs[0].sha256", |j| {
            j.services[0].inputs = vec![InputSpec { sha256: sha256.into(), ..input() }];
        });
    }
    for path in ["a", "/a/../b", "/work/", "/work/."] {
        refused("services[0].inputs[0].path", |j| {
            j.services[0].inputs = vec![InputSpec { path: path.into(), ..input() }];
        });
    }
    refused("services[0].inputs[1].path", |j| {
        j.services[0].inputs = vec![input(), InputSpec { path: "/work/.//a".into(), ..input() }];
    });
}

#[test]
fn networks_logins_and_shared_memory_are_checked_and_a_password_is_never_shown() {
    let internet = |domains: &[&str]| NetworkSpec {
        reach: Reach::Internet,
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
    };
    let mut spec = valid();
    spec.network = internet(&["example.com", "xn--bcher-kva.example", "*.example.com", "localhost"]);
    assert!(job(&spec).is_ok());
    for bad in ["", ".", "*", "*.*.com", "-a.com", "a..b", "10.0.0.1", "a b"] {
        refused("network.domains", |j| j.network = internet(&[bad]));
    }
    refused("network.domains", |j| j.network = NetworkSpec { reach: Reach::None, ..internet(&["example.com"]) });
    refused("network.reach", |j| j.network.reach = Reach::Unknown);
    refused("requirements.isolation", |j| j.requirements.isolation = Some(Isolation::Unknown));
    let sentence = refused("services[0].registry.password", |j| {
        j.services[0].registry = Some(RegistryLogin { username: "me".into(), password: Secret::new("hunter2\0") });
    });
    assert!(!sentence.contains("hunter2"), "{sentence}");
    refused("services[0].registry.username", |j| {
        j.services[0].registry = Some(RegistryLogin { username: "a:b".into(), password: Secret::new("x") });
    });
    refused("services[0].shm_bytes", |j| j.services[0].shm_bytes = Some(j.services[0].resources.memory_bytes + 1));
}

#[test]
fn names_and_images_that_no_engine_takes_are_refused() {
    refused("name", |j| j.name = Some(String::new()));
    refused("name", |j| j.name = Some("a\nb".into()));
    refused("name", |j| j.name = Some("x".repeat(64)));
    for name in ["", "Main", "a_b", "a b", "ä"] {
        refused("services[0].name", |j| j.services[0].name = name.into());
    }
    for image in ["", " ", "alpine; rm -rf /", "a b", "-alpine", "/x", "é", "a\0", &"x".repeat(513)] {
        refused("services[0].image", |j| j.services[0].image = image.into());
    }
}

#[test]
fn bad_environment_keys_are_refused_and_values_never_shown() {
    for key in ["", "A=B", "A B", "A\n"] {
        let sentence = refused("services[0].env", |j| {
            j.services[0].env = BTreeMap::from([(key.to_owned(), Secret::new("hunter2"))]);
        });
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
    let zero = refused("services[0].env", |j| {
        j.services[0].env.insert("A".into(), Secret::new("hunter2\0"));
    });
    assert!(!zero.contains("hunter2"), "{zero}");
    refused("services[0].env", |j| {
        j.services[0].env.insert("A".into(), Secret::new("x".repeat(256 << 10)));
    });
}

#[test]
fn paths_are_absolute_and_never_climb() {
    for path in ["", "out", "./out", "/a/../b", "/..", "/a\n"] {
        refused("output_path", |j| j.output_path = Some(path.into()));
        refused("services[0].workdir", |j| j.services[0].workdir = Some(path.into()));
    }
    refused("output_path", |j| j.output_path = Some("//".into()));
    let mut dots = valid();
    dots.output_path = Some("/a..b/...".into());
    assert!(job(&dots).is_ok());
}

#[test]
fn sizes_and_times_out_of_range_are_refused_with_the_range() {
    refused("services[0].resources.cpu_millis", |j| j.services[0].resources.cpu_millis = 9);
    refused("services[0].resources.cpu_millis", |j| j.services[0].resources.cpu_millis = u32::MAX);
    refused("services[0].resources.memory_bytes", |j| j.services[0].resources.memory_bytes = (6 << 20) - 1);
    refused("services[0].resources.memory_bytes", |j| j.services[0].resources.memory_bytes = u64::MAX);
    refused("services[0].resources.disk_bytes", |j| j.services[0].resources.disk_bytes = u64::MAX);
    refused("services[0].resources.gpus", |j| j.services[0].resources.gpus = u32::MAX);
    refused("limits.duration_seconds_max", |j| j.limits.duration_seconds_max = 0);
    refused("limits.duration_seconds_max", |j| j.limits.duration_seconds_max = u64::MAX);
    refused("limits.start_deadline_seconds", |j| j.limits.start_deadline_seconds = Some(0));
    refused("limits.stop_grace_seconds", |j| j.limits.stop_grace_seconds = 301);
    refused("limits.log_bytes_max", |j| j.limits.log_bytes_max = u64::MAX);
    refused("limits.output_bytes_max", |j| j.limits.output_bytes_max = u64::MAX);
    refused("limits.pids_max", |j| j.limits.pids_max = 0);
    refused("requirements.architecture", |j| j.requirements.architecture = Some("x86 64".into()));
}

#[test]
fn the_highest_price_for_the_longest_time_still_counts_right() {
    let mut spec = valid();
    spec.limits.price_max = crate::wire::HourlyRate::MAX;
    spec.limits.duration_seconds_max = DURATION_SECONDS_MAX;
    assert_eq!(job(&spec).unwrap().escrow.to_string(), "$7200000.00");
}
