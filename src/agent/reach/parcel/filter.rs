//! The check of a tar on its way: what is harmless is written anew, everything else ends the copy. Blocking, in a thread of its own.
//!
//! Invariant: memory is bounded whatever the tar says: long names have a limit, and links are counted.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf as _, Bytes};
use tar::{Archive, Builder, Entry, EntryType, Header};
use tokio::sync::mpsc;

/// Most bytes of a name or of where a link leads.
const NAME_BYTES_MAX: u64 = 4096;
/// Most entries.
const ENTRIES_MAX: u64 = 1_000_000;
/// Most links, which are remembered.
const LINKS_MAX: usize = 10_000;
/// Most folders, which are remembered too.
const FOLDERS_MAX: usize = 100_000;
/// Bytes that are gathered before they are passed on.
const PIECE_BYTES: usize = 64 << 10;
/// Bits of a mode that pass.
const MODE_BITS: u32 = 0o777;

/// To whom everything belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u64,
    pub(super) gid: u64,
}

/// What is done to the tar.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) owner: Owner,
    /// Name instead of that of the first part of every entry.
    pub(super) top: Option<String>,
    /// Most bytes of all files.
    pub(super) bytes_max: u64,
}

/// Reads a tar, checks it and passes it on.
pub(super) fn run(
    unchecked: mpsc::Receiver<Bytes>,
    passed: mpsc::Sender<io::Result<Bytes>>,
    rules: &Rules,
) -> Result<(), String> {
    let writer = PieceWriter { pieces: passed.clone(), gathered: Vec::with_capacity(PIECE_BYTES) };
    let result = check(PieceReader { pieces: unchecked, piece: Bytes::new() }, writer, rules);
    if let Err(why) = &result {
        // The engine must not take what it has for the whole.
        let _ = passed.blocking_send(Err(io::Error::other(why.clone())));
    }
    result
}

fn check(from: impl Read, to: impl Write, rules: &Rules) -> Result<(), String> {
    let mut archive = Archive::new(from);
    let mut check = Check {
        rules,
        to: Builder::new(to),
        bytes: 0,
        links: HashSet::new(),
        folders: HashSet::new(),
        name: None,
        target: None,
    };
    let entries = archive.entries().map_err(|error| unreadable(&error))?.raw(true);
    for (count, entry) in (1_u64..).zip(entries) {
        if count > ENTRIES_MAX {
            return Err(format!("the copy has more than {ENTRIES_MAX} files"));
        }
        check.entry(entry.map_err(|error| unreadable(&error))?)?;
    }
    let mut to = check.to.into_inner().map_err(|error| unreadable(&error))?;
    to.flush().map_err(|error| unreadable(&error))
}

struct Check<'a, W: Write> {
    rules: &'a Rules,
    to: Builder<W>,
    bytes: u64,
    links: HashSet<PathBuf>,
    /// Folders that were passed on.
    folders: HashSet<PathBuf>,
    /// From an entry of its own, for names that are too long for a header.
    name: Option<PathBuf>,
    target: Option<PathBuf>,
}

impl<W: Write> Check<'_, W> {
    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), String> {
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            self.name = Some(long(&mut entry)?);
            return Ok(());
        }
        if kind.is_gnu_longlink() {
            self.target = Some(long(&mut entry)?);
            return Ok(());
        }
        let (name, target) = (self.name.take(), self.target.take());
        let name = match name {
            Some(name) => name,
            None => entry.header().path().map_err(|error| unreadable(&error))?.into_owned(),
        };
        let Some(inside) = self.inside(&name)? else { return Ok(()) };
        let mut header = self.header(entry.header(), kind);
        if kind.is_dir() {
            return self.folder(header, inside);
        }
        self.folders_above(&inside)?;
        if kind.is_symlink() {
            let found = entry.header().link_name().map_err(|error| unreadable(&error))?;
            let target = target.or_else(|| found.map(std::borrow::Cow::into_owned)).unwrap_or_default();
            return self.link(header, inside, &target);
        }
        if !(kind.is_file() || kind.is_contiguous()) {
            let what = what(kind);
            return Err(format!("'{}' is {what}; only files, folders and links can be copied", shown(&name)));
        }
        header.set_entry_type(EntryType::Regular);
        let size = entry.header().entry_size().map_err(|error| unreadable(&error))?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.rules.bytes_max {
            return Err(format!("the copy is larger than the job's disk ({} bytes)", self.rules.bytes_max));
        }
        header.set_size(size);
        self.written(|to| to.append_data(&mut header, &inside, entry.take(size)))
    }

    /// The name under which it is passed on; nothing for the folder that is unpacked into.
    fn inside(&self, name: &Path) -> Result<Option<PathBuf>, String> {
        let mut inside = PathBuf::new();
        for part in name.components() {
            match part {
                Component::Normal(part) if inside.as_os_str().is_empty() => {
                    inside.push(self.rules.top.as_ref().map_or(part, |top| top.as_ref()));
                }
                Component::Normal(part) => inside.push(part),
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) | Component::ParentDir => {
                    return Err(format!("'{}' leads out of the folder it is copied to", shown(name)));
                }
            }
        }
        if inside.ancestors().skip(1).any(|above| self.links.contains(above)) {
            return Err(format!("'{}' passes through a link", shown(name)));
        }
        Ok((!inside.as_os_str().is_empty()).then_some(inside))
    }

    fn folder(&mut self, mut header: Header, inside: PathBuf) -> Result<(), String> {
        self.folders_above(&inside)?;
        header.set_entry_type(EntryType::Directory);
        self.written(|to| to.append_data(&mut header, &inside, io::empty()))?;
        self.folders.insert(inside);
        if self.folders.len() > FOLDERS_MAX {
            return Err(format!("the copy has more than {FOLDERS_MAX} folders"));
        }
        Ok(())
    }

    /// Folders that the tar leaves unsaid would be made by the engine as its own.
    fn folders_above(&mut self, inside: &Path) -> Result<(), String> {
        let Some(above) = inside.parent().filter(|above| !above.as_os_str().is_empty()) else { return Ok(()) };
        if self.folders.contains(above) {
            return Ok(());
        }
        let mut usual = Header::new_gnu();
        usual.set_mode(0o755);
        self.folder(self.header(&usual, EntryType::Directory), above.to_owned())
    }

    /// A link may point to what is below or beside it in the same copy, never out of it.
    fn link(&mut self, mut header: Header, inside: PathBuf, target: &Path) -> Result<(), String> {
        // The folder that is unpacked into is no part of the copy.
        let mut depth = inside.components().count().saturating_sub(2);
        let mut down = false;
        for part in target.components() {
            match part {
                Component::Normal(_) => down = true,
                Component::CurDir => {}
                // A folder on the way may itself be a link, so `..` may stand at the front only.
                Component::ParentDir if depth > 0 && !down => depth -= 1,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(format!("the link '{}' leads out of what is copied", shown(&inside)));
                }
            }
        }
        if self.links.len() >= LINKS_MAX {
            return Err(format!("the copy has more than {LINKS_MAX} links"));
        }
        header.set_entry_type(EntryType::Symlink);
        self.written(|to| to.append_link(&mut header, &inside, target))?;
        self.links.insert(inside);
        Ok(())
    }

    /// A new head with what may pass of the old one.
    fn header(&self, old: &Header, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        let usual = if kind.is_dir() { 0o755 } else { 0o644 };
        header.set_mode(old.mode().unwrap_or(usual) & MODE_BITS);
        header.set_uid(self.rules.owner.uid);
        header.set_gid(self.rules.owner.gid);
        header.set_mtime(old.mtime().unwrap_or(0));
        header.set_size(0);
        header
    }

    fn written(&mut self, write: impl FnOnce(&mut Builder<W>) -> io::Result<()>) -> Result<(), String> {
        write(&mut self.to).map_err(|error| unreadable(&error))
    }
}

fn long(entry: &mut Entry<'_, impl Read>) -> Result<PathBuf, String> {
    let mut bytes = Vec::new();
    entry.take(NAME_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.len() as u64 > NAME_BYTES_MAX || bytes.contains(&0) {
        return Err(format!("a name in the copy has more than {NAME_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map(PathBuf::from).map_err(|_| "a long name in the copy is not UTF-8".to_owned())
}

fn what(kind: EntryType) -> &'static str {
    if kind.is_hard_link() {
        "a hard link"
    } else if kind.is_pax_global_extensions() || kind.is_pax_local_extensions() {
        "an extension of the pax kind (write the tar in GNU format)"
    } else if kind.is_gnu_sparse() {
        "a sparse file"
    } else if kind.is_block_special() || kind.is_character_special() {
        "a device"
    } else {
        "no file"
    }
}

fn shown(name: &Path) -> String {
    name.display().to_string().chars().take(200).flat_map(char::escape_debug).collect()
}

fn unreadable(error: &io::Error) -> String {
    format!("the copy broke off: {error}")
}

struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = to.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut to[..count]);
        Ok(count)
    }
}

struct PieceWriter {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(from);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE_BYTES)));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the container engine takes no more");
        self.pieces.blocking_send(Ok(piece)).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { uid: 65532, gid: 65533 };

    fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o6755);
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            if is_link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            // Without the checks that the crate's own setters make.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, if is_link { &[][..] } else { content.as_bytes() }).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn rules(top: Option<&str>) -> Rules {
        Rules { owner: OWNER, top: top.map(str::to_owned), bytes_max: 1000 }
    }

    fn passed(tar: &[u8], top: Option<&str>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        check(tar, &mut out, &rules(top)).map(|()| out)
    }

    #[test]
    fn an_honest_tar_passes_with_its_owner_and_its_mode_made_harmless() {
        let long = format!("top/{}/file", "x".repeat(150));
        let mut tar = Builder::new(tar_of(&[
            ("top/", EntryType::Directory, ""),
            ("top/a", EntryType::Regular, "one"),
            ("top/link", EntryType::Symlink, "a"),
        ]));
        // What was written ends with two empty blocks; go on in front of them.
        tar.get_mut().truncate(512 * 4);
        let mut header = Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o4777);
        tar.append_data(&mut header, &long, &b"two"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let out = passed(&tar, Some("renamed")).unwrap();
        let mut archive = Archive::new(&out[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (uid, gid) = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
            assert_eq!((uid, gid), (OWNER.uid, OWNER.gid));
            assert_eq!(entry.header().mode().unwrap() & !0o777, 0);
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            names.push((entry.path().unwrap().display().to_string(), text));
        }
        let long = long.replace("top/", "renamed/");
        // Its folder, which the tar left unsaid, comes in front of it.
        let folder = long.trim_end_matches("/file");
        let expected = [("renamed", ""), ("renamed/a", "one"), ("renamed/link", ""), (folder, ""), (&long, "two")];
        let names: Vec<_> = names.iter().map(|(name, text)| (name.trim_end_matches('/'), text.as_str())).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn folders_that_the_tar_leaves_unsaid_belong_to_the_job_too() {
        let tar = tar_of(&[("a/b/c", EntryType::Regular, "x"), ("a/d", EntryType::Regular, "y")]);
        let out = passed(&tar, None).unwrap();
        let mut archive = Archive::new(&out[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            assert_eq!(entry.header().uid().unwrap(), OWNER.uid);
            entry.path().unwrap().display().to_string()
        });
        assert_eq!(entries.collect::<Vec<_>>(), ["a", "a/b", "a/b/c", "a/d"]);
    }

    #[test]
    fn hostile_entries_end_the_copy() {
        use EntryType as T;
        for (entries, why) in [
            (&[("/etc/passwd", T::Regular, "x")][..], "leads out"),
            (&[("a/../../x", T::Regular, "x")], "leads out"),
            (&[("..", T::Directory, "")], "leads out"),
            (&[("a/null", T::Char, "")], "a device"),
            (&[("a/disk", T::Block, "")], "a device"),
            (&[("a/pipe", T::Fifo, "")], "no file"),
            (&[("a/hard", T::Link, "etc/shadow")], "a hard link"),
            (&[("a/l", T::Symlink, "/etc")], "leads out"),
            (&[("a/l", T::Symlink, "../etc")], "leads out"),
            (&[("a/l", T::Symlink, "b/../../etc")], "leads out"),
            (&[("a/l", T::Symlink, "b"), ("a/l/x", T::Regular, "x")], "passes through a link"),
            (&[("a/x", T::XHeader, "30 SCHILY.xattr.security.capability=x\n")], "pax"),
        ] {
            let refused = passed(&tar_of(entries), None).unwrap_err();
            assert!(refused.contains(why), "{entries:?}: {refused}");
        }
    }

    #[test]
    fn a_tar_that_is_too_large_or_no_tar_is_refused_before_it_is_read() {
        let large = "x".repeat(600);
        let refused = passed(&tar_of(&[("a", EntryType::Regular, &large), ("b", EntryType::Regular, &large)]), None);
        assert!(refused.unwrap_err().contains("larger than the job's disk (1000 bytes)"));
        let mut liar = tar_of(&[("a", EntryType::Regular, "x")]);
        let mut header = Header::from_byte_slice(&liar[..512]).clone();
        header.set_size(1 << 40);
        header.set_cksum();
        liar[..512].copy_from_slice(header.as_bytes());
        assert!(passed(&liar, None).unwrap_err().contains("larger than the job's disk"));
        assert!(passed(&[7; 4096], None).is_err());
        // A long name that is longer than any name.
        let bomb = "n".repeat(5000);
        assert!(passed(&tar_of(&[("a", EntryType::GNULongName, &bomb)]), None).unwrap_err().contains("4096 bytes"));
    }
}
