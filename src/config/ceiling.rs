//! The owner's ceiling: what a stranger's container may have on this machine at most. Nothing on the wire can raise it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Deserialize;

use super::ByteSize;
use crate::wire::domain::DomainPattern;
use crate::wire::job::Isolation;

/// The whole ceiling, as the container runtime takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// How containers are shut in.
    pub sandbox: SandboxConfig,
    /// What they may reach.
    pub network: NetworkConfig,
    /// Where their images may come from.
    pub images: ImagesConfig,
}

/// How containers are shut in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// The separation every job gets at least: `"container"`, `"user_namespace"`, `"gvisor"` or `"kata"`. A job may ask for more.
    pub isolation: Isolation,
    /// Whether a job may run as root of its container: `"yes"`, `"remapped"` (only where that root is nobody outside), `"no"`.
    pub root: RootRule,
    /// Whether renters may open a shell in their own running jobs and copy files, where the job asked for it.
    pub interactive: bool,
    /// Jobs' share of the processor where the owner's programs want it too: 2 to 1024, of the owner's 1024.
    pub cpu_weight: CpuWeight,
    /// Most containers one job may have.
    pub services_max: u8,
    /// Most processes and threads of one container, 1 to 65536; what a job asks for beyond it is cut.
    pub pids_max: PidsMax,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::Container,
            root: RootRule::Yes,
            interactive: true,
            cpu_weight: CpuWeight::default(),
            services_max: 8,
            pids_max: PidsMax::default(),
        }
    }
}

/// Whether jobs may run as root of their container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootRule {
    /// They may: root in there has no capabilities.
    #[default]
    Yes,
    /// Only where the engine maps it to an unprivileged user outside.
    Remapped,
    /// Never.
    No,
}

/// Relative share of the processor, 2 to 1024; 64 when absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct CpuWeight(u16);

impl CpuWeight {
    /// The share, 2 to 1024.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for CpuWeight {
    fn default() -> Self {
        Self(64)
    }
}

impl TryFrom<u16> for CpuWeight {
    type Error = String;

    fn try_from(weight: u16) -> Result<Self, String> {
        if (2..=1024).contains(&weight) { Ok(Self(weight)) } else { Err(format!("{weight} must be from 2 to 1024")) }
    }
}

/// Processes and threads of one container, 1 to 65536; 4096 when absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct PidsMax(u32);

impl PidsMax {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for PidsMax {
    fn default() -> Self {
        Self(4096)
    }
}

impl TryFrom<u32> for PidsMax {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        if (1..=65_536).contains(&count) { Ok(Self(count)) } else { Err(format!("{count} must be from 1 to 65536")) }
    }
}

/// What containers may reach.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Whether jobs that ask for it may reach the internet. Even then only where it was shown that they cannot reach this home.
    pub internet: bool,
    /// Only these domains: `"example.com"` is that name, `"*.example.com"` what is below it; everything public when empty.
    pub domains: Vec<DomainPattern>,
    /// IPv4 addresses of the name servers that jobs may ask.
    pub resolvers: Vec<Ipv4Addr>,
    /// Most bytes per second a job may receive, `"10MB"`; without limit when absent.
    pub download_per_second: Option<ByteSize>,
    /// Most bytes per second a job may send; without limit when absent.
    pub upload_per_second: Option<ByteSize>,
    /// IPv4 network out of which jobs get their addresses, `"10.219.0.0/16"`; a free one is found when absent.
    pub pool: Option<Pool>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            internet: true,
            domains: Vec::new(),
            resolvers: vec![Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)],
            download_per_second: None,
            upload_per_second: None,
            pool: None,
        }
    }
}

/// Private networks (RFC 1918) that a pool may be, or be a part of.
const PRIVATE: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];

/// A private IPv4 network of 8 to 26 bits, out of which jobs get their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pool {
    address: Ipv4Addr,
    prefix: u8,
}

impl Pool {
    /// Its first address.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// How many bits all its addresses share, 8 to 26.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }
}

impl TryFrom<String> for Pool {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        let Some((address, prefix)): Option<(Ipv4Addr, u8)> = parts else {
            return Err(format!("'{text}' must be an IPv4 network like 10.219.0.0/16"));
        };
        if !(8..=26).contains(&prefix) {
            return Err(format!("'{text}' must have from 8 to 26 bits, like 10.219.0.0/16"));
        }
        let first = first_of(address, prefix);
        if first != address {
            return Err(format!("'{text}' has bits beyond its prefix; write {first}/{prefix}"));
        }
        if PRIVATE.iter().any(|&(private, bits)| prefix >= bits && first_of(address, bits) == private) {
            Ok(Self { address, prefix })
        } else {
            Err(format!("'{text}' is not private; take a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"))
        }
    }
}

/// The first address of the network of `prefix` bits, 1 to 32, that holds `address`.
fn first_of(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    (u32::from(address) & !u32::MAX.checked_shr(prefix.into()).unwrap_or(0)).into()
}

/// Where images may come from, and how many are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesConfig {
    /// Only images whose `registry/repository` begins so; all when empty. `docker.io/library/` are Docker's own.
    pub allow: Vec<String>,
    /// Never images whose `registry/repository` begins so; goes before `allow`.
    pub deny: Vec<String>,
    /// Disk for images that Fizz pulled, `"50GiB"`; a tenth of the disk when absent. The least recently used go first.
    pub cache: Option<ByteSize>,
    /// A registry that holds copies of Docker Hub's images, `https://mirror.example`.
    pub mirror: Option<String>,
    /// PEM files of cosign public keys; only images that one of them has signed, when there is any.
    pub signed_by: Vec<PathBuf>,
}
