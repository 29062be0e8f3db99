//! Images over a real Docker engine and a real registry: pinned, refused, remembered, evicted, signed.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_support::lease_bench::LeaseBench;
use docker_support::{REGISTRY_LOGIN, Registry, TestImage, TestNode, docker, docker_output, here, in_time};
use fizz::agent::journal::Journal;
use fizz::clock::Clock;
use fizz::http::public::Reach;
use fizz::job::fake::Received;
use fizz::job::images::{ImagePolicy, Images, Logins};
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::images::ImageRules;
use fizz::runtime::images::cosign::SignerKey;
use fizz::runtime::{PinnedImage, RuntimeError};
use fizz::wire::job::{RegistryLogin, ServiceSpec};
use fizz::wire::lease::{Assignment, FailureKind, LeaseEnd};
use fizz::wire::logs::LogStream;
use fizz::wire::{LeaseId, Secret};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc;

const HOME: [u8; 4] = [127, 0, 0, 1];

struct World {
    folder: TempDir,
    engine: Arc<DockerRuntime>,
    images: Images,
}

impl World {
    async fn new(policy: ImagePolicy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Arc::new(DockerRuntime::connect(None).await.unwrap());
        let images = open(&folder, policy).await;
        Self { folder, engine, images }
    }

    async fn pull(&self, image: &str, login: Option<(&str, &str)>) -> Result<(LeaseId, PinnedImage), RuntimeError> {
        let lease = LeaseId::generate(Clock::system().now());
        let registry = login.map(|(username, password)| RegistryLogin {
            username: username.to_owned(),
            password: Secret::new(password),
        });
        let service = ServiceSpec { name: "main".into(), image: image.to_owned(), registry, ..ServiceSpec::default() };
        let prepared = self.images.prepare(&*self.engine, lease, &service, mpsc::channel(64).0, &|_| {});
        in_time(prepared).await.map(|pinned| (lease, pinned))
    }

    /// Pulls for a lease that is over at once.
    async fn use_once(&self, image: &str) -> PinnedImage {
        let (lease, pinned) = self.pull(image, None).await.unwrap();
        self.images.lease_over(&*self.engine, lease).await;
        pinned
    }
}

async fn open(folder: &TempDir, policy: ImagePolicy) -> Images {
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    Images::new(journal, Clock::system(), policy, Logins::default())
}

fn policy(rules: ImageRules, cache_bytes: u64) -> ImagePolicy {
    ImagePolicy { rules, cache_bytes, reach: Reach::Only(IpAddr::from(HOME)) }
}

fn anything() -> ImagePolicy {
    policy(ImageRules::default(), u64::MAX)
}

/// An image of its own content, in the registry only; a few hundred kilobytes larger than the others when `kilobytes` says so.
fn pushed(registry: &Registry, name: &str, kilobytes: usize) -> String {
    let noise: Vec<u8> =
        (0..kilobytes * 64).flat_map(|n| Sha256::digest(format!("{name}{n}"))[..16].to_vec()).collect();
    let image = TestImage::for_architecture(here(), name, &[("noise", noise)]);
    registry.push(&image, &format!("{name}:1"))
}

fn is_here(id: &str) -> bool {
    docker_output(&["image", "inspect", id]).status.success()
}

/// Takes what a test left, by id.
struct CleanUp(Vec<String>);

impl Drop for CleanUp {
    fn drop(&mut self) {
        for id in &self.0 {
            docker_output(&["rmi", "-f", id]);
        }
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn what_runs_is_what_was_pinned_though_the_tag_moves_and_no_tag_is_made() {
    let registry = Registry::start();
    let name = pushed(&registry, "moves", 1);
    let world = World::new(anything()).await;
    let (_, first) = world.pull(&name, None).await.unwrap();
    let second_image = TestImage::for_architecture(here(), "moves", &[("other", b"content".to_vec())]);
    registry.push(&second_image, "moves:1");
    let (_, second) = world.pull(&name, None).await.unwrap();
    let _clean = CleanUp(vec![first.image_id.clone(), second.image_id.clone()]);
    assert_ne!(first.image_id, second.image_id);
    assert!(first.digest.starts_with(&format!("{}/moves@sha256:", registry.address)), "{}", first.digest);
    // By digest the first is had, whatever the tag says now.
    let (_, again) = world.pull(&first.digest, None).await.unwrap();
    assert_eq!(again, first);
    let tags = docker(&["image", "inspect", "-f", "{{.RepoTags}}", &first.image_id]);
    assert_eq!(tags, "[]", "an owner's own tag of that name stays where it is");
    let wrong = format!("{}@sha256:{}", first.digest.split('@').next().unwrap(), "0".repeat(64));
    let error = world.pull(&wrong, None).await.unwrap_err();
    assert!(matches!(error, RuntimeError::ImageNotFound { .. }), "{error}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn images_that_the_owner_does_not_take_are_refused_before_anybody_is_asked() {
    let rules = ImageRules::new(&["ghcr.io/acme".into()], &["ghcr.io/acme/bad".into()], None, Vec::new()).unwrap();
    let world = World::new(policy(rules, u64::MAX)).await;
    for image in ["alpine", "ghcr.io/acme/bad:1", "127.0.0.1:1/x"] {
        let error = world.pull(image, None).await.unwrap_err();
        assert!(matches!(error, RuntimeError::ImageRefused { .. }), "{image}: {error}");
    }
    let registry = Registry::start();
    let strict = World::new(ImagePolicy::default()).await;
    let error = strict.pull(&pushed(&registry, "athome", 1), None).await.unwrap_err();
    assert!(matches!(error, RuntimeError::ImageRefused { .. }), "{error}");
    assert!(error.to_string().contains("its owner has not named"), "a registry in the owner's home: {error}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_login_opens_its_own_jobs_pull_only_and_leaves_no_byte() {
    let registry = Registry::with_login();
    let image = TestImage::for_architecture(here(), "private", &[("secret", b"weights".to_vec())]);
    let name = registry.push(&image, "private:1");
    let world = World::new(anything()).await;
    let anonymous = world.pull(&name, None).await.unwrap_err();
    assert!(matches!(anonymous, RuntimeError::ImageNotFound { .. }), "{anonymous}");
    let wrong = world.pull(&name, Some(("renter", "open-sesame"))).await.unwrap_err();
    assert!(!format!("{wrong:?} {wrong}").contains("open-sesame"), "{wrong:?}");
    let (lease, pinned) = world.pull(&name, Some(REGISTRY_LOGIN)).await.unwrap();
    let _clean = CleanUp(vec![pinned.image_id.clone()]);
    world.images.lease_over(&*world.engine, lease).await;
    assert!(is_here(&pinned.image_id), "it is cached");
    for image in [&name, &pinned.digest] {
        for login in [None, Some(("renter", "open-sesame"))] {
            let error = world.pull(image, login).await.unwrap_err();
            assert!(matches!(error, RuntimeError::ImageNotFound { .. }), "{image}: {error}");
        }
    }
    let again = world.pull(&pinned.digest, Some(REGISTRY_LOGIN)).await.unwrap().1;
    assert_eq!(again, pinned);
    // Where the registry cannot be asked nobody gets it.
    drop(registry);
    let error = world.pull(&pinned.digest, None).await.unwrap_err();
    assert!(matches!(error, RuntimeError::PullFailed { .. }), "{error}");
    for file in std::fs::read_dir(world.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(18).any(|window| window == b"sesame-of-the-test"));
        assert!(!bytes.windows(11).any(|window| window == b"open-sesame"));
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn the_least_recently_used_goes_first_and_what_a_lease_holds_stays_also_after_a_restart() {
    let registry = Registry::start();
    let names: Vec<String> = ["one", "two", "three"].iter().map(|name| pushed(&registry, name, 100)).collect();
    let mut world = World::new(anything()).await;
    let mut ids = Vec::new();
    for name in &names {
        ids.push(world.use_once(name).await.image_id);
    }
    let _clean = CleanUp(ids.clone());
    let (_held, _) = world.pull(&names[1], None).await.unwrap();
    world.use_once(&names[0]).await;
    // Used now: one, then two (held), and longest ago three.
    let bytes: u64 = docker(&["image", "inspect", "-f", "{{.Size}}", &ids[0]]).parse().unwrap();
    let two = policy(ImageRules::default(), bytes * 2 + bytes / 2);
    world.images = open(&world.folder, two).await;
    world.images.fit(&*world.engine).await;
    assert_eq!(ids.iter().map(|id| is_here(id)).collect::<Vec<_>>(), [true, true, false]);
    world.images = open(&world.folder, policy(ImageRules::default(), 0)).await;
    let (lease, _) = world.pull(&names[1], None).await.unwrap();
    world.images.fit(&*world.engine).await;
    assert_eq!(ids.iter().map(|id| is_here(id)).collect::<Vec<_>>(), [false, true, false], "a lease holds it");
    world.images.lease_over(&*world.engine, lease).await;
    assert!(!is_here(&ids[1]));
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn what_the_owner_has_named_runs_or_had_before_is_never_removed() {
    let registry = Registry::start();
    let [named, runs, had] = ["named", "runs", "had"].map(|name| pushed(&registry, name, 1));
    docker(&["pull", "-q", &had]);
    let world = World::new(policy(ImageRules::default(), 0)).await;
    let node = TestNode::new();
    let volume = format!("fizz-test-{}", node.node_id);
    docker(&["volume", "create", &volume]);
    let mut leases = Vec::new();
    let mut ids = Vec::new();
    for name in [&named, &runs, &had] {
        let (lease, pinned) = world.pull(name, None).await.unwrap();
        leases.push(lease);
        ids.push(pinned.image_id);
    }
    let _clean = CleanUp(ids.clone());
    let tag = format!("fizz-test-owned-{}:1", node.node_id);
    docker(&["tag", &ids[0], &tag]);
    let container = docker(&["create", "-v", &format!("{volume}:/data"), &ids[1], "/bin/true"]);
    for lease in leases {
        world.images.lease_over(&*world.engine, lease).await;
    }
    let left: Vec<bool> = ids.iter().map(|id| is_here(id)).collect();
    docker(&["rm", &container]);
    docker(&["volume", "rm", &volume]);
    docker(&["rmi", &tag]);
    assert_eq!(left, [true, true, true]);
    // Once its container is gone, the image that Fizz pulled goes; the owner's stay.
    world.images.fit(&*world.engine).await;
    assert!(!is_here(&ids[1]) && is_here(&ids[2]));
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_pull_that_broke_off_is_still_known_to_be_ours() {
    let registry = Registry::start();
    let name = pushed(&registry, "broken", 1);
    let world = World::new(anything()).await;
    let (_, pinned) = world.pull(&name, None).await.unwrap();
    let _clean = CleanUp(vec![pinned.image_id.clone()]);
    docker(&["rmi", &pinned.digest]);
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
    journal.claim_image(&pinned.digest, false, Clock::system().now()).await.unwrap();
    // The agent was killed here; the engine went on.
    docker(&["pull", "-q", &pinned.digest]);
    let images = Images::new(journal.clone(), Clock::system(), policy(ImageRules::default(), 0), Logins::default());
    images.fit(&*world.engine).await;
    assert!(!is_here(&pinned.image_id));
    assert!(journal.cached_images().await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_mirror_is_asked_first_and_gives_only_what_the_hub_means() {
    let (mirror, elsewhere) = (Registry::start(), Registry::start());
    // Docker Hub is not to be reached from here; the mirror alone says what the name means.
    let name = format!("fizztest/{}", LeaseId::generate(Clock::system().now()));
    let image = TestImage::for_architecture(here(), "mirrored", &[("a", b"b".to_vec())]);
    mirror.push(&image, &format!("{name}:1"));
    drop(image);
    let rules = |at: &str| ImageRules::new(&[], &[], Some(at), Vec::new()).unwrap();
    let world = World::new(policy(rules(&mirror.address), u64::MAX)).await;
    let (_, pinned) = world.pull(&format!("{name}:1"), None).await.unwrap();
    let _clean = CleanUp(vec![pinned.image_id.clone()]);
    assert!(pinned.digest.starts_with(&format!("{name}@sha256:")), "the job's own name: {}", pinned.digest);
    let references = docker(&["image", "inspect", "-f", "{{.RepoDigests}} {{.RepoTags}}", &pinned.image_id]);
    assert!(references.contains(&mirror.address) && references.ends_with("[]"), "{references}");
    let world = World::new(policy(rules(&elsewhere.address), u64::MAX)).await;
    assert!(world.pull(&format!("{name}:1"), None).await.is_err(), "a mirror without it");
}

struct Signer {
    pair: rcgen::KeyPair,
}

impl Signer {
    fn new() -> Self {
        Self { pair: rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    fn key(&self) -> SignerKey {
        SignerKey::from_pem(self.pair.public_key_pem().as_bytes()).unwrap()
    }

    /// What `cosign sign` pushes beside the image `digest` (with the repository before it), for a payload that names `claimed`.
    fn sign(&self, registry: &Registry, digest: &str, claimed: &str) {
        let payload = serde_json::json!({
            "critical": {
                "identity": {"docker-reference": "x"}, "image": {"docker-manifest-digest": claimed},
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string();
        let signature = STANDARD.encode(rcgen::SigningKey::sign(&self.pair, payload.as_bytes()).unwrap());
        let (repository, digest) = digest.split_once('@').unwrap();
        let repository = repository.strip_prefix(&format!("{}/", registry.address)).unwrap();
        let payload_digest = registry.push_blob(repository, payload.as_bytes());
        let config_digest = registry.push_blob(repository, b"{}");
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": config_digest},
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "size": payload.len(), "digest": payload_digest,
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            }],
        });
        let tag = format!("{}.sig", digest.replace(':', "-"));
        registry.push_manifest(repository, &tag, manifest.to_string().as_bytes());
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn only_what_a_known_key_has_signed_is_used_where_the_owner_says_so() {
    let registry = Registry::start();
    let [signed, unsigned, strange, swapped] =
        ["signed", "unsigned", "strange", "swapped"].map(|name| pushed(&registry, name, 1));
    let open = World::new(anything()).await;
    let mut pinned = Vec::new();
    for name in [&signed, &unsigned, &strange, &swapped] {
        pinned.push(open.pull(name, None).await.unwrap().1);
    }
    let _clean = CleanUp(pinned.iter().map(|pinned| pinned.image_id.clone()).collect());
    let digest_of = |index: usize| pinned[index].digest.split_once('@').unwrap().1.to_owned();
    let (owner, stranger) = (Signer::new(), Signer::new());
    owner.sign(&registry, &pinned[0].digest, &digest_of(0));
    stranger.sign(&registry, &pinned[2].digest, &digest_of(2));
    owner.sign(&registry, &pinned[3].digest, &digest_of(0));
    let rules = ImageRules::new(&[], &[], None, vec![Signer::new().key(), owner.key()]).unwrap();
    let world = World::new(policy(rules, u64::MAX)).await;
    assert_eq!(world.pull(&signed, None).await.unwrap().1, pinned[0]);
    for (image, why) in [(&unsigned, "has no signature"), (&strange, "by a known key"), (&swapped, "by a known key")] {
        let error = world.pull(image, None).await.unwrap_err();
        assert!(matches!(error, RuntimeError::ImageUnsigned { .. }), "{image}: {error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// Runs a lease to its end.
async fn run(world: &World, change: impl FnOnce(&mut Assignment)) -> Received {
    let mut bench = LeaseBench::over(world.engine.clone()).await;
    bench.deps.images = world.images.clone();
    bench.deps.spool_dir = world.folder.path().to_owned();
    let mut lease = bench.lease("ls -ln /work/data; cat /work/data/a.txt");
    lease.spec.services[0].resources.disk_bytes = 16 << 20;
    change(&mut lease);
    bench.run(&lease).await
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_input_is_in_the_container_before_it_starts_and_belongs_to_its_user() {
    let world = World::new(anything()).await;
    let image = TestImage::new();
    // Whatever serves files will do, and a registry serves its blobs.
    let registry = Registry::start();
    let digest = registry.push_blob("inputs", b"the input\n");
    let input = |sha256: &str| fizz::wire::job::InputSpec {
        url: format!("http://{}/v2/inputs/blobs/{digest}", registry.address),
        sha256: sha256.to_owned(),
        path: "/work/data/a.txt".to_owned(),
        bytes_max: None,
        executable: false,
    };
    let right = digest.strip_prefix("sha256:").unwrap();
    for root in [false, true] {
        let received = run(&world, |lease| {
            let service = &mut lease.spec.services[0];
            (service.image, service.root) = (image.name.clone(), root);
            service.inputs.push(input(right));
        })
        .await;
        assert_eq!(received.end().unwrap().0, LeaseEnd::Exited { code: 0 });
        let text = String::from_utf8(received.text(LogStream::Stdout)).unwrap();
        let owner = if root { " 0 " } else { " 65532 " };
        assert!(text.ends_with("the input\n") && text.contains(owner) && text.contains("-rw-r--r--"), "{text}");
    }
    for (sha256, disk, why) in
        [("00".repeat(32).as_str(), 16 << 20, FailureKind::InputMismatch), (right, 5, FailureKind::InputMismatch)]
    {
        let received = run(&world, |lease| {
            let service = &mut lease.spec.services[0];
            service.image = image.name.clone();
            service.resources.disk_bytes = disk;
            service.inputs.push(input(sha256));
        })
        .await;
        assert!(
            matches!(received.end().unwrap().0, LeaseEnd::Failed { why: found, .. } if found == why),
            "{received:?}"
        );
    }
    let strict = World::new(ImagePolicy::default()).await;
    let received = run(&strict, |lease| {
        lease.spec.services[0].image = image.name.clone();
        lease.spec.services[0].inputs.push(input(right));
    })
    .await;
    let end = received.end().unwrap().0;
    assert!(matches!(&end, LeaseEnd::Failed { why: FailureKind::InvalidSpec, .. }), "this home: {end:?}");
    let spool = std::fs::read_dir(world.folder.path()).unwrap();
    assert!(spool.into_iter().all(|file| !file.unwrap().file_name().to_string_lossy().contains(".input.")));
}
