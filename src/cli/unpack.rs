//! Unpacking a job's output: a tar from a stranger.
//!
//! Invariants
//! - Nothing is written outside the target folder, whatever names, links or types the tar holds.
//! - Only folders, files and links that stay inside are made. Links that lead out, devices, sockets and pipes are left out and
//!   counted; every name that leads out is refused.
//! - Permissions are cut to plain ones: no set-uid, no set-gid, no sticky bit; owner and times are ours.
//! - A tar that unpacks to more than it may is given up; a hard link counts as the copy that is made of it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry};

use super::errors::{CliError, Exit};
use super::output::printable;
use super::values::{count, show_bytes};
use crate::os;

/// Most bytes that are unpacked: the wire's own limit on outputs leaves room below this.
const BYTES_MAX: u64 = 64 << 30;
/// Most entries.
const ENTRIES_MAX: u64 = 1_000_000;

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries that were not made: links that lead out of the folder, or to what was not made; devices, sockets and pipes.
    pub left_out: u64,
    /// The first of them, below the folder.
    pub left_out_first: Option<PathBuf>,
}

impl Unpacked {
    /// What was left out, as a clause; `None` when everything is there.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let first = self.left_out_first.as_deref()?.display().to_string();
        Some(format!(
            "left out {}, first '{}': links that lead out, devices, sockets and pipes are not brought",
            count(self.left_out, "item"),
            printable(&first)
        ))
    }

    /// Counts bytes before they are written.
    fn add_bytes(&mut self, bytes: u64, bytes_max: u64) -> Result<(), CliError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > bytes_max { Err(too_large(bytes_max)) } else { Ok(()) }
    }
}

impl fmt::Display for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", count(self.files, "file"), show_bytes(self.bytes))
    }
}

/// Makes sure, before money is spent, that the folder can take the output.
///
/// # Errors
/// When it cannot be made or is no folder.
pub fn check_target(folder: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(folder)
        .and_then(|()| tempfile::tempfile_in(folder))
        .map(drop)
        .map_err(|error| unwritable(folder, error).with_exit(Exit::Usage))
}

/// Unpacks the tar in `file` into `folder`. The tar's first folder, the output folder itself, is left away.
///
/// # Errors
/// When the tar is damaged or hostile, or the folder cannot be written; what was unpacked before stays.
pub fn unpack(file: File, folder: &Path) -> Result<Unpacked, CliError> {
    unpack_limited(file, folder, None, (BYTES_MAX, ENTRIES_MAX))
}

/// The same, but the tar's top file or folder gets the name `top` in `folder`.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_as(file: File, folder: &Path, top: &OsStr) -> Result<Unpacked, CliError> {
    unpack_limited(file, folder, Some(top), (BYTES_MAX, ENTRIES_MAX))
}

fn unpack_limited(
    file: impl Read,
    folder: &Path,
    top: Option<&OsStr>,
    (bytes_max, entries_max): (u64, u64),
) -> Result<Unpacked, CliError> {
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    let root = folder.canonicalize().map_err(|error| unwritable(folder, error))?;
    let mut archive = Archive::new(file);
    let mut unpacked = Unpacked::default();
    let mut entries: u64 = 0;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        entries += 1;
        unpacked.add_bytes(entry.size(), bytes_max)?;
        if entries > entries_max {
            return Err(too_large(bytes_max));
        }
        let name = entry.path().map_err(damaged)?.into_owned();
        let Some(inside) = path_inside(&name, top)? else { continue };
        match write_entry(&mut entry, &root, &inside, top, &mut |bytes| unpacked.add_bytes(bytes, bytes_max))? {
            Written::Folder => {}
            Written::File => unpacked.files += 1,
            Written::LeftOut => {
                unpacked.left_out += 1;
                unpacked.left_out_first.get_or_insert(inside);
            }
        }
    }
    Ok(unpacked)
}

/// The entry's path below the output folder; `None` for that folder itself. With a name for the top: below its parent.
fn path_inside(name: &Path, top: Option<&OsStr>) -> Result<Option<PathBuf>, CliError> {
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::ParentDir => {
                return Err(hostile(name, "leads out of the folder"));
            }
        }
    }
    let inside: PathBuf = match parts.first() {
        Some(_) => top.into_iter().chain(parts.into_iter().skip(1)).collect(),
        None => PathBuf::new(),
    };
    Ok((!inside.as_os_str().is_empty()).then_some(inside))
}

/// What became of an entry.
enum Written {
    Folder,
    /// Or a link.
    File,
    /// A link that would lead out, or what is no file.
    LeftOut,
}

/// Asked before bytes are written that are not in the tar itself.
type MayWrite<'a> = &'a mut dyn FnMut(u64) -> Result<(), CliError>;

/// Writes one entry.
fn write_entry(
    entry: &mut Entry<'_, impl Read>,
    root: &Path,
    inside: &Path,
    top: Option<&OsStr>,
    may_write: MayWrite<'_>,
) -> Result<Written, CliError> {
    let target = root.join(inside);
    let kind = entry.header().entry_type();
    if kind.is_dir() {
        make_folders(root, inside)?;
        return Ok(Written::Folder);
    }
    if let Some(parent) = inside.parent() {
        make_folders(root, parent)?;
    }
    if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        write_file(entry, &target).map_err(|error| unwritable(&target, error))?;
    } else if kind.is_symlink() {
        return write_link(entry, inside, &target);
    } else if kind.is_hard_link() {
        return write_hard_link(entry, root, &target, top, may_write);
    } else {
        return Ok(Written::LeftOut);
    }
    Ok(Written::File)
}

/// Makes `inside` below `root` part by part, refusing to walk through a link.
fn make_folders(root: &Path, inside: &Path) -> Result<(), CliError> {
    let mut at = root.to_path_buf();
    for part in inside.components() {
        at.push(part);
        match std::fs::symlink_metadata(&at) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(hostile(inside, "passes through something that is no folder")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir(&at).map_err(|error| unwritable(&at, error))?;
            }
            Err(error) => return Err(unwritable(&at, error)),
        }
    }
    Ok(())
}

fn write_file(entry: &mut Entry<'_, impl Read>, target: &Path) -> io::Result<()> {
    remove_old(target)?;
    // create_new never follows a link.
    let mut file = File::options().write(true).create_new(true).open(target)?;
    io::copy(entry, &mut file)?;
    let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
    os::set_executable(&file, executable)
}

/// What an earlier download left is replaced; a folder is not.
fn remove_old(target: &Path) -> io::Result<()> {
    match std::fs::remove_file(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A link may point anywhere inside the folder, never out of it.
fn write_link(entry: &Entry<'_, impl Read>, inside: &Path, target: &Path) -> Result<Written, CliError> {
    let to = entry.link_name().map_err(damaged)?.ok_or_else(|| hostile(inside, "is a link to nothing"))?;
    let mut depth = inside.components().count().saturating_sub(1);
    let mut down = false;
    for part in to.components() {
        match part {
            // A folder on the way may itself be a link, so going down and up again is not the same as staying: `..` may
            // stand at the front only, where the folders above are real ones.
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !down => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Ok(Written::LeftOut);
            }
        }
    }
    remove_old(target).and_then(|()| os::symlink(&to, target)).map_err(|error| unwritable(target, error))?;
    Ok(Written::File)
}

/// A hard link becomes a copy of a file that was unpacked before. One to a link, or to what was left out, is left out too.
fn write_hard_link(
    entry: &Entry<'_, impl Read>,
    root: &Path,
    target: &Path,
    top: Option<&OsStr>,
    may_write: MayWrite<'_>,
) -> Result<Written, CliError> {
    let name = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
    let Ok(Some(from)) = path_inside(&name, top) else { return Ok(Written::LeftOut) };
    let mut at = root.to_path_buf();
    for part in from.components() {
        at.push(part);
        if !std::fs::symlink_metadata(&at).is_ok_and(|found| !found.is_symlink()) {
            return Ok(Written::LeftOut);
        }
    }
    if !at.is_file() || at == target {
        return Ok(Written::LeftOut);
    }
    // Otherwise a small tar of one file and many links to it would fill the disk.
    may_write(at.metadata().map_err(|error| unwritable(&at, error))?.len())?;
    remove_old(target).and_then(|()| std::fs::copy(&at, target)).map_err(|error| unwritable(target, error))?;
    Ok(Written::File)
}

fn too_large(bytes_max: u64) -> CliError {
    CliError::new(Exit::Error, format!("the output is larger than {}", show_bytes(bytes_max)))
        .next("fetch the tar itself with `fizz job output JOB --tar FILE`")
}

fn damaged(error: io::Error) -> CliError {
    CliError::new(Exit::Error, "the job's output is no tar that can be read").because(error)
}

fn hostile(name: &Path, what: &str) -> CliError {
    let shown = name.display().to_string();
    CliError::new(Exit::Error, format!("the job's output is refused: '{}' {what}", shown.escape_debug()))
        .next("fetch the tar itself with `fizz job output JOB --tar FILE` and look into it")
}

fn unwritable(path: &Path, error: io::Error) -> CliError {
    CliError::new(Exit::Error, format!("{} cannot be written", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, EntryType, Header};

    fn header(kind: EntryType, size: u64, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header
    }

    /// Writes a name without the checks that the tar crate's own setters make.
    fn raw_name(header: &mut Header, name: &str) {
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
    }

    fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let mut header = header(*kind, if is_link { 0 } else { content.len() as u64 }, 0o6755);
            if is_link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            raw_name(&mut header, name);
            tar.append(&header, if is_link { &[][..] } else { content.as_bytes() }).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn unpacked(entries: &[(&str, EntryType, &str)]) -> (tempfile::TempDir, Result<Unpacked, String>) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("into");
        let result =
            unpack_limited(&tar_of(entries)[..], &target, None, (1000, 100)).map_err(|error| error.to_string());
        (folder, result)
    }

    #[test]
    fn an_honest_output_is_unpacked_without_its_outer_folder() {
        let (folder, result) = unpacked(&[
            ("output/", EntryType::Directory, ""),
            ("output/picture.png", EntryType::Regular, "PNG"),
            ("output/deep/er/log.txt", EntryType::Regular, "hello"),
            ("output/latest", EntryType::Symlink, "deep/er/log.txt"),
            ("output/copy", EntryType::Link, "output/picture.png"),
        ]);
        assert_eq!(result, Ok(Unpacked { files: 4, bytes: 11, ..Unpacked::default() }));
        let into = folder.path().join("into");
        assert_eq!(std::fs::read(into.join("picture.png")).unwrap(), b"PNG");
        assert_eq!(std::fs::read(into.join("latest")).unwrap(), b"hello");
        assert_eq!(std::fs::read(into.join("copy")).unwrap(), b"PNG");
    }

    #[test]
    fn a_second_download_replaces_the_first() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["one", "two"] {
            let tar = tar_of(&[("output/a", EntryType::Regular, content)]);
            unpack_limited(&tar[..], folder.path(), None, (1000, 100)).unwrap();
        }
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"two");
    }

    #[test]
    fn nothing_is_written_outside_whatever_the_names_say() {
        for name in ["/etc/evil", "../evil", "output/../../evil", "output/a/../../../evil"] {
            let (folder, result) = unpacked(&[(name, EntryType::Regular, "x")]);
            assert!(result.unwrap_err().contains("out of the folder"), "{name}");
            assert!(!folder.path().join("evil").exists());
        }
    }

    /// Nothing is made where the link would be, it is told, and what follows it is there.
    fn assert_left_out(before: &[(&str, EntryType, &str)], kind: EntryType, name: &str, to: &str) {
        let link = [(name, kind, to), ("output/z", EntryType::Regular, "rest")];
        let (folder, result) = unpacked(&[before, &link].concat());
        let unpacked = result.unwrap();
        let inside = Path::new(name).strip_prefix("output").unwrap();
        assert_eq!((unpacked.left_out, unpacked.left_out_first.as_deref()), (1, Some(inside)), "{to}");
        let into = folder.path().join("into");
        assert!(std::fs::symlink_metadata(into.join(inside)).is_err(), "{to}");
        assert_eq!(std::fs::read(into.join("z")).unwrap(), b"rest");
    }

    #[test]
    fn links_that_lead_out_are_refused() {
        for (name, to) in [
            ("output/l", "/etc/passwd"),
            ("output/l", "../evil"),
            ("output/a/l", "../../evil"),
            ("output/l", "a/../../evil"),
        ] {
            assert_left_out(&[], EntryType::Symlink, name, to);
        }
        // `a/up` is the folder itself, so `a/up/..` is its parent although the names alone seem to stay inside.
        let up = ("output/a/up", EntryType::Symlink, "../");
        assert_left_out(&[up], EntryType::Symlink, "output/l", "a/up/../secret");
        for to in ["/etc/passwd", "output/../../evil", "output/absent", "output/a/up", "output/a/up/z"] {
            assert_left_out(&[up], EntryType::Link, "output/l", to);
        }
    }

    #[test]
    fn what_lies_below_a_link_that_was_left_out_stays_inside() {
        let (folder, result) = unpacked(&[
            ("output/l", EntryType::Symlink, "../"),
            ("output/l/evil", EntryType::Regular, "x"),
            ("output/m", EntryType::Symlink, "/etc"),
        ]);
        let unpacked = result.unwrap();
        assert_eq!((unpacked.left_out, unpacked.left_out_first.as_deref()), (2, Some(Path::new("l"))));
        assert!(!folder.path().join("evil").exists());
        assert!(folder.path().join("into/l/evil").is_file());
    }

    #[test]
    fn a_file_is_never_written_through_a_link_made_before() {
        let (folder, result) = unpacked(&[
            ("output/d", EntryType::Directory, ""),
            ("output/l", EntryType::Symlink, "d"),
            ("output/l/x", EntryType::Regular, "x"),
        ]);
        assert!(result.unwrap_err().contains("no folder"));
        assert!(!folder.path().join("into/d/x").exists());
        let (folder, result) =
            unpacked(&[("output/l", EntryType::Symlink, "x"), ("output/l", EntryType::Regular, "new")]);
        result.unwrap();
        assert!(!folder.path().join("into/x").exists());
        assert_eq!(std::fs::read(folder.path().join("into/l")).unwrap(), b"new");
    }

    #[test]
    fn devices_pipes_and_sockets_are_left_out_and_told() {
        // Tar has no type for sockets; a tool's own is any other.
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::new(b's')] {
            assert_left_out(&[], kind, "output/dev", "");
        }
        let (_folder, result) = unpacked(&[("output/p", EntryType::Fifo, ""), ("output/q", EntryType::Fifo, "")]);
        let missing = result.unwrap().missing().unwrap();
        assert!(missing.starts_with("left out 2 items, first 'p'"), "{missing}");
        assert_eq!(Unpacked::default().missing(), None);
    }

    #[test]
    fn hard_links_count_as_the_copies_that_they_become() {
        let big = "x".repeat(400);
        let links = |names: &'static [&'static str]| {
            let mut entries = vec![("output/a", EntryType::Regular, big.as_str())];
            entries.extend(names.iter().map(|name| (*name, EntryType::Link, "output/a")));
            unpacked(&entries)
        };
        let (_folder, result) = links(&["output/b"]);
        assert_eq!(result, Ok(Unpacked { files: 2, bytes: 800, ..Unpacked::default() }));
        let (folder, result) = links(&["output/b", "output/c"]);
        assert!(result.unwrap_err().contains("larger than"));
        assert!(!folder.path().join("into/c").exists(), "nothing past the limit is written");
    }

    #[test]
    fn an_output_past_its_size_is_given_up() {
        let (_folder, result) = unpacked(&[("output/a", EntryType::Regular, &"x".repeat(1001))]);
        assert!(result.unwrap_err().contains("larger than"));
    }

    #[cfg(unix)]
    #[test]
    fn no_set_uid_bit_survives() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, result) = unpacked(&[("output/a", EntryType::Regular, "x")]);
        result.unwrap();
        let mode = std::fs::metadata(folder.path().join("into/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn bytes_that_are_no_tar_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack_limited(&[7_u8; 2048][..], folder.path(), None, (1000, 100)).is_err());
    }
}
