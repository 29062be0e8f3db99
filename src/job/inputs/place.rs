//! A fetched input as the tar that an engine unpacks into a container; streamed, however large it is.

use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio_util::io::ReaderStream;

use crate::runtime::sandbox::WORK_PATH;
use crate::wire::job::InputSpec;

const BLOCK: u64 = 512;

/// The file at its place, owned by `user`; folders between it and the job's work folder too. It unpacks into `/`.
pub(super) async fn tar(
    file: &Path,
    input: &InputSpec,
    user: (u32, u32),
) -> std::io::Result<BoxStream<'static, std::io::Result<Bytes>>> {
    let content = tokio::fs::File::open(file).await?;
    let size = content.metadata().await?.len();
    let head = head(input, size, user)?;
    // Padding to whole blocks, and two empty blocks for the end.
    let tail = usize::try_from(size.next_multiple_of(BLOCK) - size + 2 * BLOCK).unwrap_or(0);
    let head = stream::iter([Ok(Bytes::from(head))]);
    let tail = stream::iter([Ok(Bytes::from(vec![0; tail]))]);
    Ok(head.chain(ReaderStream::new(content)).chain(tail).boxed())
}

fn head(input: &InputSpec, size: u64, (uid, gid): (u32, u32)) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_size(size);
        header
    };
    let path = Path::new(&input.path);
    let below =
        path.ancestors().skip(1).take_while(|folder| folder.starts_with(WORK_PATH) && *folder != Path::new(WORK_PATH));
    let mut folders: Vec<&Path> = below.collect();
    folders.reverse();
    for folder in folders {
        let mut folder_header = header(tar::EntryType::Directory, 0o755, 0);
        tar.append_data(&mut folder_header, relative(folder), std::io::empty())?;
    }
    let mode = if input.executable { 0o755 } else { 0o644 };
    let mut file_header = header(tar::EntryType::Regular, mode, size);
    // The content follows in the stream.
    tar.append_data(&mut file_header, relative(path), std::io::empty())?;
    // Without the end that a finished archive has.
    Ok(tar.get_ref().clone())
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
