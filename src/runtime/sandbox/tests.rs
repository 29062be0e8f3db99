use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::runtime::ImageSettings;
use crate::runtime::isolation::Given;
use crate::wire::{LeaseId, NodeId};

fn facts() -> EngineFacts {
    let given = vec![Given { isolation: Isolation::Container, runtime: None }];
    let storage_driver = "overlay2".to_owned();
    EngineFacts { limits_hold: true, seccomp: true, storage_driver, given, ..EngineFacts::default() }
}

fn spec() -> ContainerSpec {
    let now = Clock::system().now();
    ContainerSpec::new(NodeId::generate(now), LeaseId::generate(now), "sha256:1".to_owned())
}

fn with_root(rule: RootRule) -> SandboxConfig {
    SandboxConfig { root: rule, ..SandboxConfig::default() }
}

fn planned(spec: &ContainerSpec) -> Plan {
    plan(spec, &SandboxConfig::default(), &facts()).unwrap()
}

#[test]
fn a_job_is_nobody_unless_its_image_names_somebody_who_is_not_root() {
    for (user, written) in [
        ("", "65532:65532"),
        ("root", "65532:65532"),
        ("root:users", "65532:65532"),
        ("0", "65532:65532"),
        ("0:1000", "65532:65532"),
        ("00", "65532:65532"),
        ("1000", "1000"),
        ("1000:50", "1000:50"),
        ("app", "app"),
        ("app:app", "app:app"),
        // Not a number that any kernel takes: looked up as a name, and not found.
        ("-1", "-1"),
        ("4294967296", "4294967296"),
    ] {
        assert_eq!(JobUser::of_image(user).written(), written, "{user}");
    }
    let mut spec = spec();
    spec.settings.user = "1000".to_owned();
    assert_eq!(planned(&spec).user.written(), "1000");
    spec.root = true;
    assert_eq!(planned(&spec).user, JobUser::ROOT);
}

#[test]
fn a_name_that_stands_for_root_is_nobody() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\napp:x:1000:50::/home/app:/bin/sh\nodd:x:zero:1:::\nodd:x:5:5:::\n";
    for (user, who) in [
        ("app", JobUser::Number { uid: 1000, gid: Some(50) }),
        ("app:7", JobUser::Number { uid: 1000, gid: Some(7) }),
        ("app:staff", JobUser::Number { uid: 1000, gid: Some(50) }),
        ("toor", JobUser::NOBODY),
        // An engine reads the first line, and its broken number as 0.
        ("odd", JobUser::NOBODY),
        ("nobody-knows", JobUser::NOBODY),
    ] {
        assert_eq!(from_passwd(user, passwd), who, "{user}");
    }
}

#[test]
fn root_is_had_only_where_the_owner_allows_it() {
    let mapped = EngineFacts { userns_remap: true, ..facts() };
    let rootless = EngineFacts { rootless: true, ..facts() };
    for (rule, facts, allowed) in [
        (RootRule::Yes, facts(), true),
        (RootRule::Remapped, facts(), false),
        (RootRule::Remapped, mapped.clone(), true),
        (RootRule::Remapped, rootless, true),
        (RootRule::No, mapped, false),
    ] {
        let asks = ContainerSpec { root: true, ..spec() };
        let found = plan(&asks, &with_root(rule), &facts);
        assert_eq!(found.is_ok(), allowed, "{rule:?}");
        assert!(plan(&spec(), &with_root(rule), &facts).is_ok(), "who does not ask is not concerned");
    }
    let told = facts().notices(true);
    assert!(told.len() == 1 && told[0].contains("userns-remap"), "{told:?}");
    assert_eq!(EngineFacts { rootless: true, ..facts() }.notices(true), Vec::<&str>::new());
}

#[test]
fn an_engine_whose_limits_or_filter_do_not_hold_is_not_used() {
    assert_eq!(facts().unusable(), None);
    assert!(EngineFacts { limits_hold: false, ..facts() }.unusable().unwrap().contains("limits"));
    assert!(EngineFacts { seccomp: false, ..facts() }.unusable().unwrap().contains("system calls"));
}

#[test]
fn without_disk_only_memory_can_be_written() {
    let spec = ContainerSpec { disk_bytes: 0, output_path: Some("/output".to_owned()), ..spec() };
    let plan = planned(&spec);
    assert!(plan.read_only_root && plan.folders.is_empty());
    let work = plan.tmpfs.iter().find(|tmpfs| tmpfs.path == WORK_PATH).unwrap();
    assert_eq!(work.owner, Some((65_532, 65_532)));
    assert_eq!(plan.layer_bytes_max, None);
}

#[test]
fn a_job_gets_its_work_folder_and_its_output_folder() {
    let folders = |output: Option<&str>| {
        let spec = ContainerSpec { output_path: output.map(str::to_owned), ..spec() };
        planned(&spec).folders.into_iter().map(|folder| folder.path).collect::<Vec<_>>()
    };
    assert_eq!(folders(None), ["/tmp", "/run", "/var/tmp", "/work"]);
    assert_eq!(folders(Some("/output"))[3..], ["/work", "/output"]);
    assert_eq!(folders(Some("/work/"))[3..], ["/work"]);
    assert_eq!(folders(Some("//a/./b//"))[3..], ["/work", "/a/b"]);
}

#[test]
fn an_output_folder_is_never_a_folder_of_the_system_nor_one_that_is_lost() {
    for (path, why) in [
        ("/", "system"),
        ("/etc", "system"),
        ("/./usr/", "system"),
        ("/proc/self", "gone"),
        ("/dev/shm/x", "gone"),
        ("/tmp", "gone"),
        ("/var/run/x", "gone"),
        ("relative", "absolute"),
        ("/a/../etc", "absolute"),
        ("", "absolute"),
    ] {
        for disk_bytes in [0, 1 << 20] {
            let spec = ContainerSpec { output_path: Some(path.to_owned()), disk_bytes, ..spec() };
            let error = plan(&spec, &SandboxConfig::default(), &facts()).unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
    }
    for path in ["/etc/mine", "/home/me/out", "/devices", "/tmpfs"] {
        let spec = ContainerSpec { output_path: Some(path.to_owned()), ..spec() };
        assert_eq!(planned(&spec).folders[4].path, path);
    }
}

#[test]
fn the_volumes_of_an_image_are_in_memory_and_not_on_the_owners_disk() {
    let settings = ImageSettings {
        volumes: vec!["/data".to_owned(), "/tmp/".to_owned()],
        user: "7".to_owned(),
        ..ImageSettings::default()
    };
    let mut spec = ContainerSpec { settings, ..spec() };
    let plan_of = |spec: &ContainerSpec| plan(spec, &SandboxConfig::default(), &facts());
    let made = plan_of(&spec).unwrap();
    let data = made.tmpfs.iter().find(|tmpfs| tmpfs.path == "/data").unwrap();
    assert_eq!((data.owner, data.bytes), (Some((7, 0)), spec.memory_bytes / 2));
    assert_eq!(made.tmpfs.iter().filter(|tmpfs| tmpfs.path == "/tmp").count(), 1);
    spec.output_path = Some("/data/out".to_owned());
    assert!(plan_of(&spec).unwrap_err().to_string().contains("volume"));
    for kernels in ["/", "/proc", "/sys/x", "//dev/./shm"] {
        spec.settings.volumes = vec![kernels.to_owned()];
        assert!(matches!(plan_of(&spec), Err(PlanError::BadVolume { .. })), "{kernels}");
    }
    spec.output_path = None;
    spec.settings.volumes = (0..100).map(|number| format!("/v{number}")).collect();
    assert!(matches!(plan_of(&spec), Err(PlanError::TooManyVolumes { volumes: 100, .. })));
}

#[test]
fn a_program_begins_where_its_job_or_image_says_else_in_the_work_folder() {
    for (job, image, begins) in [
        (None, "", "/work"),
        (None, "/", "/work"),
        (None, "/app", "/app"),
        (Some("/job"), "/app", "/job"),
        (Some("/"), "/app", "/"),
    ] {
        let settings = ImageSettings { workdir: image.to_owned(), ..ImageSettings::default() };
        let spec = ContainerSpec { workdir: job.map(str::to_owned), settings, ..spec() };
        assert_eq!(planned(&spec).workdir, begins);
    }
}

#[test]
fn storage_that_counts_the_image_in_gets_that_much_more() {
    let settings = ImageSettings { bytes: 1000, ..ImageSettings::default() };
    let spec = ContainerSpec { disk_bytes: 500, settings, ..spec() };
    for (driver, quota, limit) in
        [("overlay2", true, Some(500)), ("btrfs", true, Some(1500)), ("overlay2", false, None), ("vfs", false, None)]
    {
        let facts = EngineFacts { disk_quota: quota, storage_driver: driver.to_owned(), ..facts() };
        assert_eq!(plan(&spec, &SandboxConfig::default(), &facts).unwrap().layer_bytes_max, limit, "{driver}");
    }
}

fn any_spec() -> impl Strategy<Value = ContainerSpec> {
    let numbers = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<Option<u64>>());
    let words = (
        ".{0,20}",
        ".{0,20}",
        prop::collection::vec(".{0,12}", 0..6),
        any::<Option<String>>(),
        any::<Option<String>>(),
    );
    (numbers, words, any::<bool>()).prop_map(|(numbers, words, root)| {
        let (cpu_millis, memory_bytes, pids_max, log_bytes_max, disk_bytes, shm_bytes) = numbers;
        let (user, image_workdir, volumes, workdir, output_path) = words;
        let settings = ImageSettings { user, workdir: image_workdir, volumes, ..ImageSettings::default() };
        ContainerSpec {
            cpu_millis,
            memory_bytes,
            pids_max,
            log_bytes_max,
            disk_bytes,
            shm_bytes,
            settings,
            workdir,
            output_path,
            root,
            ..spec()
        }
    })
}

proptest! {
    #[test]
    fn nothing_a_job_says_raises_the_owners_ceiling(spec in any_spec(), rule in 0_usize..3, weight in 2_u16..=1024) {
        let root = [RootRule::Yes, RootRule::Remapped, RootRule::No][rule];
        let owner = SandboxConfig { root, cpu_weight: weight.try_into().unwrap(), ..SandboxConfig::default() };
        let Ok(plan) = plan(&spec, &owner, &facts()) else { return Ok(()) };
        prop_assert_eq!(plan.cpu_weight, weight);
        prop_assert_eq!((plan.memory_bytes, plan.cpu_millis), (spec.memory_bytes, spec.cpu_millis));
        prop_assert_eq!(plan.pids_max, spec.pids_max.min(owner.pids_max.get()));
        prop_assert!(plan.shm_bytes <= spec.memory_bytes);
        prop_assert!(plan.tmpfs.iter().all(|tmpfs| tmpfs.bytes <= spec.memory_bytes && tmpfs.files > 0));
        prop_assert_eq!(plan.read_only_root, spec.disk_bytes == 0);
        prop_assert!(plan.folders.len() <= 5);
        for folder in &plan.folders {
            let inside = folder.path.starts_with('/') && folder.path.split('/').all(|part| part != "..");
            prop_assert!(inside && folder.path.len() > 1, "{}", folder.path);
        }
        let is_root = plan.user.owner().is_some_and(|(uid, _)| uid == 0);
        prop_assert_eq!(is_root, spec.root && root == RootRule::Yes);
        for volume in spec.settings.volumes.iter().filter(|path| path.starts_with("/v")) {
            prop_assert!(plan.tmpfs.iter().any(|tmpfs| tmpfs.path.trim_end_matches('/').len() <= volume.len()));
        }
    }

    #[test]
    fn whatever_a_list_of_users_says_nobody_becomes_root(user in ".{0,10}", passwd in "([a-z0:]{0,12}\n){0,8}") {
        let who = from_passwd(&user, &passwd);
        prop_assert!(who.owner().is_some_and(|(uid, _)| uid != 0));
    }
}

fn with(asked: Option<Isolation>, owner: Isolation, given: &[Given]) -> Result<Plan, PlanError> {
    let facts = EngineFacts { given: given.to_vec(), ..EngineFacts::default() };
    let spec = ContainerSpec { isolation: asked, ..spec() };
    plan(&spec, &SandboxConfig { isolation: owner, ..SandboxConfig::default() }, &facts)
}

#[test]
fn the_runtime_is_the_weakest_that_satisfies_job_and_owner_and_none_is_an_error() {
    let plain = Given { isolation: Isolation::Container, runtime: None };
    let gvisor = Given { isolation: Isolation::Gvisor, runtime: Some("runsc".into()) };
    let both = [plain.clone(), gvisor];
    let runtime = |asked, owner| with(asked, owner, &both).unwrap().runtime;
    assert_eq!(runtime(None, Isolation::Container), None);
    assert_eq!(runtime(Some(Isolation::Gvisor), Isolation::Container).as_deref(), Some("runsc"));
    assert_eq!(runtime(Some(Isolation::Container), Isolation::Gvisor).as_deref(), Some("runsc"));
    let refused = with(Some(Isolation::Gvisor), Isolation::Container, &[plain]).unwrap_err();
    assert_eq!(refused.to_string(), "gVisor isolation cannot be had here");
}

#[test]
fn a_gpu_is_not_given_to_a_container_with_a_kernel_of_its_own() {
    let gvisor = Given { isolation: Isolation::Gvisor, runtime: Some("runsc".into()) };
    let facts = EngineFacts { given: vec![gvisor], ..EngineFacts::default() };
    let gpus = vec![GpuBinding::Nvidia { uuid: "GPU-1".into() }];
    let spec = ContainerSpec { gpus, ..spec() };
    let refused = plan(&spec, &SandboxConfig::default(), &facts).unwrap_err();
    assert_eq!(refused.to_string(), "container isolation with a GPU cannot be had here");
}

#[test]
fn variables_that_the_toolkit_acts_on_are_stripped_from_job_and_image() {
    let variables = vec!["NVIDIA_VISIBLE_DEVICES".to_owned(), "LD_PRELOAD".to_owned(), "PATH".to_owned()];
    let settings = ImageSettings { variables, ..ImageSettings::default() };
    let env = vec![("NVIDIA_REQUIRE_CUDA".to_owned(), crate::wire::Secret::new("x".to_owned()))];
    let mut spec = ContainerSpec { settings, env, ..spec() };
    let facts = facts();
    let stripped = |spec: &ContainerSpec| plan(spec, &SandboxConfig::default(), &facts).unwrap().stripped;
    assert_eq!(stripped(&spec), ["NVIDIA_REQUIRE_CUDA", "NVIDIA_VISIBLE_DEVICES"]);
    spec.gpus = vec![GpuBinding::Nvidia { uuid: "GPU-1".into() }];
    assert_eq!(stripped(&spec), ["LD_PRELOAD", "NVIDIA_REQUIRE_CUDA", "NVIDIA_VISIBLE_DEVICES"]);
}
