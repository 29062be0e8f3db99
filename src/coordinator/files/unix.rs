//! Linux and macOS: permission bits.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The permission bits of a file.
pub(super) fn permission_bits(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// Sets the permission bits of an open file.
pub(super) fn set_permission_bits(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

/// Makes a file with mode 0600 where there is nothing.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a file mode 0600.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// Makes a folder (mode 0700) and its parents.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use crate::coordinator::files::{read_secret, write_secret};
    use crate::coordinator::store::Store;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_written_for_its_owner_alone_and_loose_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert_eq!(read_secret(&path).unwrap(), None);
        write_secret(&path, "hush").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some("hush"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_secret(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("0640"), "{error}");
    }

    #[tokio::test]
    async fn the_database_and_its_log_are_for_their_owner_alone_also_where_they_were_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coordinator.sqlite");
        let modes = || {
            let mode = |file: fs::DirEntry| file.metadata().unwrap().permissions().mode() & 0o777;
            fs::read_dir(folder.path()).unwrap().map(|file| mode(file.unwrap())).collect::<Vec<_>>()
        };
        let store = Store::open(&path).await.unwrap();
        assert_eq!(modes(), [0o600; 3], "the database, its log, and the log's index");
        for file in fs::read_dir(folder.path()).unwrap() {
            fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let again = Store::open(&path).await.unwrap();
        assert_eq!(modes(), [0o600; 3], "a database that an earlier Fizz left open to others");
        again.close().await;
        store.close().await;
    }
}
