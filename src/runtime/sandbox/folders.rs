//! Where a job may write: folders in its own layer, and memory.
//!
//! Folders are made by unpacking a small archive into the container's layer before its first start. The engine unpacks it shut into
//! that layer, so that a link in the image leads nowhere else; a link or file in the place of the folder itself is replaced.
//!
//! A file system in memory gets the mode of the image's folder below it, whatever it is asked to have (runc's doing), so the folders
//! for passing files are made anew below, for everybody; where the layer is read-only they are at least the job's own.

use super::{JobUser, PlanError};
use crate::runtime::ContainerSpec;

/// The job's own folder: its home, and where it begins unless it or its image says otherwise.
pub const WORK_PATH: &str = "/work";
/// One file in memory per so many bytes of it.
const BYTES_PER_FILE: u64 = 4096;
/// Every file system in memory may have so many files.
const FILES_MIN: u64 = 1024;
/// What programs write down about themselves: small.
const RUN_BYTES_MAX: u64 = 64 << 20;
/// An image may have so many volumes.
const VOLUMES_MAX: usize = 32;

/// A folder in the container's layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// Its rights, as `chmod` has them.
    pub mode: u32,
}

/// A file system in memory. Nothing on it is a device or gains rights; what it holds counts as the container's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Files it can hold.
    pub files: u64,
    /// Whose it is; root's when absent.
    pub owner: Option<(u32, u32)>,
    /// Its rights, as `chmod` has them.
    pub mode: u32,
    /// Whether programs can be started from it.
    pub exec: bool,
}

/// Folders that hold what containers are made of.
const SYSTEM: &[&str] =
    &["/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/sbin", "/usr", "/var"];
/// Folders that are not in the container's layer, and what is below them.
const VOLATILE: &[&str] = &["/dev", "/proc", "/run", "/sys", "/tmp", "/var/run", "/var/tmp"];

/// Folders of the kernel: nothing else can be there.
const KERNEL: &[&str] = &["/dev", "/proc", "/sys"];
/// Folders for passing files, of every process of the container.
const SHARED: &[&str] = &["/tmp", "/run", "/var/tmp"];
/// Everybody may write, and remove what is one's own.
const MODE_SHARED: u32 = 0o1777;
/// Its owner may write.
const MODE_OWN: u32 = 0o755;

/// Where the program begins.
pub(super) fn workdir(spec: &ContainerSpec) -> String {
    let image = Some(spec.settings.workdir.as_str()).filter(|path| !matches!(*path, "" | "/"));
    spec.workdir.as_deref().or(image).unwrap_or(WORK_PATH).to_owned()
}

/// The folders to make in the container's layer.
pub(super) fn made(spec: &ContainerSpec, read_only: bool) -> Result<Vec<Folder>, PlanError> {
    let output = spec.output_path.as_deref().map(output_path).transpose()?;
    if read_only {
        return Ok(Vec::new());
    }
    let work = Folder { path: WORK_PATH.to_owned(), mode: MODE_OWN };
    let output = output.filter(|path| path != WORK_PATH).map(|path| Folder { path, mode: MODE_OWN });
    let shared = SHARED.iter().map(|path| Folder { path: (*path).to_owned(), mode: MODE_SHARED });
    // First, for the image may have a link there that leads to a place of the others.
    Ok(shared.chain([Some(work), output].into_iter().flatten()).collect())
}

/// The output folder in its plain form, if it can be one.
fn output_path(path: &str) -> Result<String, PlanError> {
    let bad = |why| Err(PlanError::BadOutput { path: path.to_owned(), why });
    let plain = plain(path);
    match plain {
        None => bad("must be an absolute path without '..'"),
        Some(plain) if SYSTEM.contains(&plain.as_str()) => {
            bad("is a folder of the system; use one of its own, such as /output")
        }
        Some(plain) if VOLATILE.iter().any(|folder| is_in(&plain, folder)) => {
            bad("is gone when the container ends; use another, such as /output")
        }
        Some(plain) => Ok(plain),
    }
}

fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An absolute path without empty parts and `.`; nothing when it goes back.
fn plain(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let usable = parts.iter().all(|part| *part != ".." && !part.contains('\0'));
    usable.then(|| format!("/{}", parts.join("/")))
}

/// The file systems in memory: the usual places for passing files, the image's volumes (an engine would put them on the host's
/// disk, beyond every limit), and the work folder where there is no disk for it.
pub(super) fn in_memory(spec: &ContainerSpec, user: &JobUser, read_only: bool) -> Result<Vec<Tmpfs>, PlanError> {
    let half = spec.memory_bytes / 2;
    let shared = |path: &&str| Tmpfs {
        mode: MODE_SHARED,
        ..tmpfs(path, if *path == "/run" { half.min(RUN_BYTES_MAX) } else { half }, user.owner(), false)
    };
    let mut all: Vec<Tmpfs> = SHARED.iter().map(shared).collect();
    if read_only {
        all.push(tmpfs(WORK_PATH, half, user.owner(), false));
    }
    if spec.settings.volumes.len() > VOLUMES_MAX {
        return Err(PlanError::TooManyVolumes { volumes: spec.settings.volumes.len(), most: VOLUMES_MAX });
    }
    let output = spec.output_path.as_deref().and_then(plain);
    for volume in &spec.settings.volumes {
        let path = plain(volume).unwrap_or_else(|| volume.clone());
        if path == "/" || KERNEL.iter().any(|folder| is_in(&path, folder)) {
            return Err(PlanError::BadVolume { path });
        }
        if output.as_deref().is_some_and(|output| is_in(output, &path)) {
            let why = "is in a volume of the image, which is gone when the container ends; use another folder";
            return Err(PlanError::BadOutput { path: spec.output_path.clone().unwrap_or_default(), why });
        }
        if !all.iter().any(|other| other.path == path) {
            all.push(tmpfs(&path, half, user.owner(), true));
        }
    }
    Ok(all)
}

fn tmpfs(path: &str, bytes: u64, owner: Option<(u32, u32)>, exec: bool) -> Tmpfs {
    let files = (bytes / BYTES_PER_FILE).max(FILES_MIN);
    Tmpfs { path: path.to_owned(), bytes, files, owner, mode: MODE_OWN, exec }
}
