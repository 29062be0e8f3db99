//! Tars as only a dishonest program writes them.

use tar::{Builder, EntryType, Header};

/// Written as given, without the checks that honest programs make: name, kind, and content or where a link leads. All of it is
/// root's, with the set-user-id and set-group-id bits.
pub(crate) fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(if is_link { 0 } else { content.len() as u64 });
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if kind.is_character_special() {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        tar.append(&header, if is_link { &[][..] } else { content.as_bytes() }).unwrap();
    }
    tar.into_inner().unwrap()
}
