//! Runs the isolation probe: five small containers on four networks, at the same time.
//!
//! One is on a network made exactly like a job's that reaches the internet, one on a network like a job's that reaches only
//! itself, one on a network that is kept to no domain at all. Two are the control, on a bridge that our rules are not about: one to be reached, one that reaches.
//!
//! Invariants
//! - Everything made here carries `io.fizz.probe` and this node's label, and is removed at the end; what a killed agent left
//!   is removed before the next probe.
//! - The image is made from a program in this binary: nothing is pulled.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder, PruneContainersOptionsBuilder,
    PruneNetworksOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, UdpSocket};

use super::super::archive::{ImageContents, image_archive};
use super::super::firewall::proof::{self, Answer, Evidence, Listeners, PROBE_PORT, Target, judge, read_answers};
use super::super::firewall::surroundings::{CONTROL_PREFIX, Surroundings};
use super::super::firewall::{NetworkPolicy, NftError, Verdict};
use super::super::network::{BRIDGE_PREFIX, ContainerNetwork, NetworkId, Subnet};
use super::super::{ContainerId, LABEL_NODE, LABEL_PROBE, RuntimeError};
use super::gates::{GateSpec, own_end};
use super::networks::{NetworkRequest, attach};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE};
use crate::wire::NodeId;
use crate::wire::logs::LogStream;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.gz"));
const PROGRAM: &str = "/probe";
/// What a probe left is nobody's by then: they take half a minute at most.
const OLD_AFTER: Duration = Duration::from_secs(300);
/// The image's name without its tag.
pub(super) const IMAGE: &str = "fizz-probe";
/// How long a probe waits for answers: long enough for a second try of a lost packet.
const PROBE_MILLIS: u32 = 1500;
/// How long the one that is to be reached stays: until it is removed.
const NEIGHBOUR_MILLIS: u32 = 30_000;
const MEMORY_BYTES: i64 = 16 << 20;

/// The verdicts on both kinds of network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdicts {
    pub(super) private: Verdict,
    pub(super) internet: Verdict,
    pub(super) domains: Verdict,
}

impl Verdicts {
    pub(super) fn not_shown(why: &str) -> Self {
        let verdict = Verdict::NotShown { why: why.to_owned() };
        Self { private: verdict.clone(), internet: verdict.clone(), domains: verdict }
    }

    /// Whether nothing but the proof of lists of domains is missing, and another try may bring it.
    pub(super) const fn domains_wait(&self) -> bool {
        self.internet.is_isolated() && matches!(self.domains, Verdict::NotShown { .. })
    }
}

/// One place a probe is put.
struct Place {
    network: NetworkId,
    name: String,
    subnet: Subnet,
}

impl Place {
    fn bridge(&self) -> Option<Ipv4Addr> {
        Some(own_end(self.subnet))
    }
}

impl DockerRuntime {
    /// Tries both kinds of network and judges what was found.
    pub(super) async fn probe(
        &self,
        node_id: NodeId,
        policy: &NetworkPolicy,
        around: &Surroundings,
        rules: &Result<(), NftError>,
    ) -> Result<Verdicts, RuntimeError> {
        self.sweep_probes(&format!("{LABEL_NODE}={node_id}")).await?;
        self.sweep_old_probes(&[], OLD_AFTER).await;
        let shown = self.try_networks(node_id, policy, around, rules).await;
        self.guard.gates.lock().await.close(None).await;
        self.sweep_probes(&format!("{LABEL_NODE}={node_id}")).await?;
        shown
    }

    async fn try_networks(
        &self,
        node_id: NodeId,
        policy: &NetworkPolicy,
        around: &Surroundings,
        rules: &Result<(), NftError>,
    ) -> Result<Verdicts, RuntimeError> {
        let Some(image) = self.probe_image().await? else {
            return Ok(Verdicts::not_shown("this build of fizz has no isolation probe, so nothing can be shown"));
        };
        let ears = Ears::open()
            .await
            .map_err(|error| RuntimeError::Engine { what: "listen for probes", detail: error.to_string() })?;
        let words = [(); 4].map(|()| uuid::Uuid::new_v4().simple().to_string());
        let hearing = ears.listen(&words);
        // One after the other: each takes addresses that the next must see taken.
        let control = self.place(node_id, CONTROL_PREFIX, false, policy).await?;
        let internet = self.place(node_id, BRIDGE_PREFIX, false, policy).await?;
        let private = self.place(node_id, BRIDGE_PREFIX, true, policy).await?;
        let kept = self.place(node_id, BRIDGE_PREFIX, false, policy).await?;
        let gate = self.open_empty_gate(&kept, rules).await;
        let neighbour = self.start_probe(node_id, &image, &control, NEIGHBOUR_MILLIS, "-", &[]).await?;
        let neighbour = self.address_of(&neighbour).await?;
        let mut of_control = proof::own_targets(around, ears.ports);
        of_control.extend(proof::forbidden_targets(&Surroundings::default(), ears.ports, control.bridge(), neighbour));
        let forbidden = |place: &Place| proof::forbidden_targets(around, ears.ports, place.bridge(), neighbour);
        let (of_internet, of_private, of_kept) = (forbidden(&internet), forbidden(&private), forbidden(&kept));
        let resolvers = proof::resolver_targets(&policy.resolvers);
        let server = Target::new(true, own_end(kept.subnet).into(), 53, "its own name server");
        let internet_and_out = [&of_internet[..], &resolvers].concat();
        let kept_and_out = [&of_kept[..], &resolvers, &[server]].concat();
        let (control, mut internet, private, mut kept) = tokio::try_join!(
            self.ask(node_id, &image, &control, &words[0], &of_control),
            self.ask(node_id, &image, &internet, &words[1], &internet_and_out),
            self.ask(node_id, &image, &private, &words[2], &of_private),
            self.ask(node_id, &image, &kept, &words[3], &kept_and_out),
        )?;
        let (control_out, mut kept_out) = (internet.split_off(of_internet.len()), kept.split_off(of_kept.len()));
        let server = kept_out.pop().unwrap_or(Answer::Silent);
        let heard = hearing.finish();
        let evidence = |targets: Vec<Target>, answers: Vec<Answer>, heard: bool| Evidence {
            found: targets.into_iter().zip(answers).collect(),
            heard,
            control_reached_host: reached_host(&of_control, &control),
            control_reached_neighbour: reached_neighbour(&of_control, &control),
            rules: rules.clone(),
        };
        let home = judge(&evidence(of_kept, kept, heard[3]));
        Ok(Verdicts {
            domains: match gate {
                Ok(()) => proof::judge_domains(home, &control_out, &kept_out, server),
                Err(why) => Verdict::NotShown { why },
            },
            internet: judge(&evidence(of_internet, internet, heard[1])),
            private: judge(&evidence(of_private, private, heard[2])),
        })
    }

    /// Keeps a network to no domain at all.
    async fn open_empty_gate(&self, place: &Place, rules: &Result<(), NftError>) -> Result<(), String> {
        rules.clone().map_err(|error| error.to_string())?;
        let (bridge, subnet) = (place.name.clone(), place.subnet);
        let spec = GateSpec { bridge, subnet, domains: Vec::new(), network: None };
        self.guard.gates.lock().await.open(spec, &self.guard.policy).await
    }

    /// A network like a job's, or one for the control.
    async fn place(
        &self,
        node_id: NodeId,
        prefix: &str,
        internal: bool,
        policy: &NetworkPolicy,
    ) -> Result<Place, RuntimeError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let request = NetworkRequest {
            name: format!("fizz-probe-{id}"),
            bridge: format!("{prefix}{}", id.get(..11).unwrap_or_default()),
            internal,
            labels: labels(node_id),
            pool: policy.pool,
            start: id.bytes().fold(0, |start, byte| start << 1 ^ u32::from(byte)),
        };
        let (network, subnet) = self.make_network(&request).await?;
        Ok(Place { network, name: request.bridge, subnet })
    }

    /// Starts a probe, waits for its end and reads what it says.
    async fn ask(
        &self,
        node_id: NodeId,
        image: &str,
        place: &Place,
        word: &str,
        targets: &[Target],
    ) -> Result<Vec<Answer>, RuntimeError> {
        let id = self.start_probe(node_id, image, place, PROBE_MILLIS, word, targets).await?;
        tokio::time::timeout(START_DEADLINE, self.wait_for_end(&id))
            .await
            .map_err(|_| RuntimeError::TimedOut { what: "run a probe", seconds: START_DEADLINE.as_secs() })??;
        let pieces: Vec<_> = self.log_entries(&id, 0).try_collect().await?;
        let bytes: Vec<u8> = pieces
            .into_iter()
            .filter(|piece| piece.stream == LogStream::Stdout)
            .flat_map(|piece| piece.bytes.to_vec())
            .collect();
        let output = String::from_utf8_lossy(&bytes).into_owned();
        read_answers(&output, targets.len()).ok_or_else(|| RuntimeError::Engine {
            what: "run a probe",
            detail: format!(
                "it answered {:?} to {} questions",
                output.chars().take(80).collect::<String>(),
                targets.len()
            ),
        })
    }

    async fn start_probe(
        &self,
        node_id: NodeId,
        image: &str,
        place: &Place,
        millis: u32,
        word: &str,
        targets: &[Target],
    ) -> Result<ContainerId, RuntimeError> {
        let network = ContainerNetwork::Lease { network: place.network.clone(), aliases: Vec::new() };
        let mut arguments = vec![millis.to_string(), word.to_owned()];
        arguments.extend(targets.iter().map(Target::argument));
        let mut body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(arguments),
            user: Some("65534:65534".to_owned()),
            labels: Some(labels(node_id)),
            // It does not listen to SIGTERM: an engine that stops or comes up would wait 10 s for it.
            stop_signal: Some("SIGKILL".to_owned()),
            host_config: Some(HostConfig {
                memory: Some(MEMORY_BYTES),
                memory_swap: Some(MEMORY_BYTES),
                pids_limit: Some(8),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                readonly_rootfs: Some(true),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        attach(&mut body, &network, &self.guard.policy.resolvers);
        let create = self.docker.create_container(None::<CreateContainerOptions>, body);
        let made = self.call("create a container", START_DEADLINE, create).await?;
        self.call("start a container", START_DEADLINE, self.docker.start_container(&made.id, None)).await?;
        Ok(ContainerId(made.id))
    }

    /// The probe's image, made if it is not here; `None` when this build has none.
    pub(super) async fn probe_image(&self) -> Result<Option<String>, RuntimeError> {
        if PACKED.is_empty() {
            return Ok(None);
        }
        let broken = |error: std::io::Error| RuntimeError::Engine { what: "load an image", detail: error.to_string() };
        let mut program = Vec::new();
        flate2::read::GzDecoder::new(PACKED).read_to_end(&mut program).map_err(broken)?;
        let digest = hex::encode(Sha256::digest(&program));
        let tag = format!("{IMAGE}:{}", digest.get(..12).unwrap_or(&digest));
        match self.call("look at an image", CALL_DEADLINE, self.docker.inspect_image(&tag)).await {
            Ok(found) => return Ok(found.id),
            Err(RuntimeError::ImageNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        // Those of other versions of fizz.
        self.remove_probe_images().await?;
        let contents = ImageContents {
            program: &program,
            path: PROGRAM,
            folders: &[],
            labels: &[(LABEL_PROBE, "1")],
            architecture: &self.architecture,
        };
        let archive = image_archive(&contents, &tag).map_err(broken)?;
        self.import_image(archive, &tag).await.map(Some)
    }

    /// Removes every probe image.
    pub(super) async fn remove_probe_images(&self) -> Result<(), RuntimeError> {
        let filters = HashMap::from([("label".to_owned(), vec![LABEL_PROBE.to_owned()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let found = self.call("list images", CALL_DEADLINE, self.docker.list_images(Some(options))).await?;
        for tag in found.into_iter().flat_map(|image| image.repo_tags) {
            if tag.starts_with(IMAGE)
                && let Err(error) = self.remove_image(&tag).await
            {
                // Another agent on this machine runs one at this moment.
                tracing::debug!(%error, tag, "a probe's image stays");
            }
        }
        Ok(())
    }

    /// Removes what probes left: containers, then networks, with this label besides.
    pub(super) async fn sweep_probes(&self, label: &str) -> Result<(), RuntimeError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{LABEL_PROBE}=1"), label.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.call("list containers", CALL_DEADLINE, self.docker.list_containers(Some(options))).await?;
        for id in found.into_iter().filter_map(|container| container.id) {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            match self
                .call("remove a container", START_DEADLINE, self.docker.remove_container(&id, Some(options)))
                .await
            {
                Ok(()) | Err(RuntimeError::NoSuchContainer) => {}
                Err(RuntimeError::Engine { detail, .. }) if detail.contains("already in progress") => {}
                Err(error) => return Err(error),
            }
        }
        for network in self.labelled_networks(&[LABEL_PROBE, label]).await? {
            self.drop_network(&network).await?;
        }
        Ok(())
    }
}

impl DockerRuntime {
    /// Removes what probes of any agent left that are so old by the engine's clock, with these labels besides. What runs or is in use
    /// stays.
    pub(super) async fn sweep_old_probes(&self, labels: &[String], older_than: Duration) {
        let labels = labels.iter().cloned().chain([format!("{LABEL_PROBE}=1")]);
        let filters = HashMap::from([
            ("label".to_owned(), labels.collect()),
            ("until".to_owned(), vec![format!("{}s", older_than.as_secs())]),
        ]);
        let options = PruneContainersOptionsBuilder::new().filters(&filters).build();
        let containers = self.docker.prune_containers(Some(options));
        let swept = self.call("sweep old probes", START_DEADLINE, containers).await.map(drop);
        let options = PruneNetworksOptionsBuilder::new().filters(&filters).build();
        let networks = self.docker.prune_networks(Some(options));
        let swept = swept.and(self.call("sweep old probes", START_DEADLINE, networks).await.map(drop));
        if let Err(error) = swept {
            tracing::debug!(%error, "what older probes left stays");
        }
    }
}

fn labels(node_id: NodeId) -> HashMap<String, String> {
    HashMap::from([(LABEL_NODE.to_owned(), node_id.to_string()), (LABEL_PROBE.to_owned(), "1".to_owned())])
}

fn reached_host(targets: &[Target], answers: &[Answer]) -> bool {
    targets.iter().zip(answers).any(|(target, answer)| target.port != PROBE_PORT && *answer == Answer::Open)
}

fn reached_neighbour(targets: &[Target], answers: &[Answer]) -> bool {
    targets.iter().zip(answers).any(|(target, answer)| target.port == PROBE_PORT && *answer == Answer::Open)
}

/// Sockets on every address of this machine, open while probes run.
struct Ears {
    ports: Listeners,
    udp: Arc<UdpSocket>,
    _tcp: Vec<TcpListener>,
}

impl Ears {
    async fn open() -> std::io::Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        // A machine without IPv6 has no address to be reached at.
        let tcp6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok();
        let port_of = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let ports = Listeners {
            tcp: port_of(&tcp)?,
            udp: udp.local_addr()?.port(),
            tcp6: tcp6.as_ref().map(port_of).transpose()?,
        };
        // Nothing is ever accepted: that the kernel completes the connection is what a probe sees.
        Ok(Self { ports, udp: Arc::new(udp), _tcp: std::iter::once(tcp).chain(tcp6).collect() })
    }

    /// Answers whoever knows one of the words, and notes which were heard.
    fn listen(&self, words: &[String; 4]) -> Hearing {
        let heard: Arc<[AtomicBool; 4]> = Arc::new([(); 4].map(|()| AtomicBool::new(false)));
        let (socket, words, notes) = (Arc::clone(&self.udp), words.clone(), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let said = buffer.get(..length).unwrap_or_default();
                if let Some(index) = words.iter().position(|word| word.as_bytes() == said) {
                    if let Some(note) = notes.get(index) {
                        note.store(true, Ordering::Relaxed);
                    }
                    // Who does not get it tries no more than once.
                    let _ = socket.send_to(said, from).await;
                }
            }
        });
        Hearing { heard, task }
    }
}

struct Hearing {
    heard: Arc<[AtomicBool; 4]>,
    task: tokio::task::JoinHandle<()>,
}

impl Hearing {
    fn finish(self) -> [bool; 4] {
        [0, 1, 2, 3].map(|index: usize| self.heard.get(index).is_some_and(|note| note.load(Ordering::Relaxed)))
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.task.abort();
    }
}
