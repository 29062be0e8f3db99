//! `fizz cp`: files and folders to and from one's own running job, as `docker cp` has it.
//!
//! Invariants
//! - What comes from a job is spooled and then unpacked as an output is: nothing is written outside the target.
//! - What goes to a job goes as a tar of files, folders and links; the node checks it again.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;

use super::connect::RenterArgs;
use super::errors::{CliError, Exit};
use super::exec::broken_off;
use super::job::find;
use super::values::{count, show_bytes};
use super::{output, unpack};
use crate::rent::{ReachInput, ReachSession, RentClient};
use crate::wire::JobId;
use crate::wire::reach::{NewReach, REACH_FRAME_BYTES_MAX, ReachFrame, ReachWish};

/// Arguments of `fizz cp`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The job must have been submitted with `fizz run --interactive`. Files can be
copied to where the job itself may write: its work directory /work and its
output folder.

  fizz cp render:/work/picture.png .
  fizz cp ./scenes render:/work")]
pub struct CpArgs {
    /// What to copy: a path here, or JOB:/PATH
    pub from: String,
    /// Where to: a path here, or JOB:/PATH
    pub to: String,
    /// In this service of the job instead of its main one
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Here(&'a Path),
    There { job: &'a str, path: &'a str },
}

impl<'a> Side<'a> {
    /// `JOB:/PATH` is in a job; everything else, also what begins with `.` or `/`, is here.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((job, path)) if job.len() > 1 && !job.contains(['/', '\\', '.']) && path.starts_with('/') => {
                Self::There { job, path }
            }
            _ => Self::Here(Path::new(text)),
        }
    }
}

/// Copies.
///
/// # Errors
/// When the job cannot be reached, the node refuses, or something here cannot be read or written.
pub async fn run(args: CpArgs) -> Result<u8, CliError> {
    let client = args.renter.connect()?;
    match (Side::of(&args.from), Side::of(&args.to)) {
        (Side::There { job, path }, Side::Here(to)) => {
            let job = find(&client, job).await?;
            fetch(&client, job, args.service.clone(), path, to).await?;
        }
        (Side::Here(from), Side::There { job, path }) => {
            let from = from.to_owned();
            let name = name_of(&from)?;
            let job = find(&client, job).await?;
            send(&client, job, args.service.clone(), from, name, path).await?;
        }
        (Side::Here(_), Side::Here(_)) => {
            return Err(CliError::usage("neither side is in a job").next("write JOB:/PATH for the one that is"));
        }
        (Side::There { .. }, Side::There { .. }) => {
            return Err(CliError::usage("both sides are in jobs").next("copy to a folder here first"));
        }
    }
    Ok(0)
}

async fn fetch(
    client: &RentClient,
    job: JobId,
    service: Option<String>,
    path: &str,
    to: &Path,
) -> Result<(), CliError> {
    let new = NewReach { service, what: ReachWish::CopyOut { path: path.to_owned() } };
    let (_input, mut session) = client.reach(job, &new).await?;
    let mut spool = tempfile::tempfile()
        .map_err(|error| CliError::new(Exit::Error, "no temporary file can be made").because(error))?;
    let bar = Progress::new();
    copy(&mut session, |bytes| {
        bar.add(bytes.len());
        spool.write_all(bytes)
    })
    .await?;
    bar.end();
    let unspooled = |error: io::Error| CliError::new(Exit::Error, "the temporary file cannot be read").because(error);
    spool.rewind().map_err(unspooled)?;
    let last = path.trim_end_matches('/').rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."));
    let unpacked = match (to.is_dir(), last) {
        (true, Some(name)) => unpack::unpack_as(spool, to, OsStr::new(name)),
        (true, None) => unpack::unpack(spool, to),
        (false, _) => {
            let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return Err(CliError::new(Exit::Error, format!("there is no folder {}", folder.display())));
            }
            unpack::unpack_as(spool, folder, &name_of(to)?)
        }
    };
    let unpacked =
        unpacked.map_err(|error| error.next("look at what is there with `fizz exec`, and copy less of it"))?;
    if let Some(missing) = unpacked.missing() {
        output::note(format!("warning: {missing}"));
    }
    output::note(format!("{unpacked} from {path}"));
    Ok(())
}

async fn send(
    client: &RentClient,
    job: JobId,
    service: Option<String>,
    from: PathBuf,
    name: std::ffi::OsString,
    path: &str,
) -> Result<(), CliError> {
    let new = NewReach { service, what: ReachWish::CopyIn { path: path.to_owned() } };
    let (input, mut session) = client.reach(job, &new).await?;
    let bar = Progress::new();
    let shown = bar.clone();
    let packing = tokio::task::spawn_blocking(move || pack(&from, &name, input, &shown));
    let answered = copy(&mut session, |_| Ok(())).await;
    bar.end();
    // The node's word says more than that it takes no more.
    answered?;
    let packed = packing.await.map_err(|error| CliError::new(Exit::Error, "packing broke off").because(error))?;
    let sent = packed?;
    output::note(format!("{sent} to {path}"));
    Ok(())
}

/// What was sent: the files themselves, not the tar around them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    files: u64,
    bytes: u64,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", count(self.files, "file"), show_bytes(self.bytes))
    }
}

impl Sent {
    /// What lies in a file or folder.
    fn of(from: &Path) -> io::Result<Self> {
        let mut sent = Self::default();
        let mut open = vec![from.to_path_buf()];
        while let Some(path) = open.pop() {
            // As in the tar, only what is named on the command line is followed.
            let found = if path == from { path.metadata()? } else { path.symlink_metadata()? };
            if found.is_dir() {
                for entry in path.read_dir()? {
                    open.push(entry?.path());
                }
            } else {
                sent.files += 1;
                sent.bytes += if found.is_file() { found.len() } else { 0 };
            }
        }
        Ok(sent)
    }
}

/// Packs a file or folder into a tar whose top entry has this name.
fn pack(from: &Path, name: &OsStr, input: ReachInput, bar: &Progress) -> Result<Sent, CliError> {
    let unreadable =
        |error: io::Error| CliError::new(Exit::Error, format!("{} cannot be copied", from.display())).because(error);
    let writer = FrameWriter { input, gathered: Vec::with_capacity(REACH_FRAME_BYTES_MAX), bar };
    let mut tar = tar::Builder::new(writer);
    tar.follow_symlinks(false);
    // What is named on the command line may be a link to what is meant.
    let packed = if from.is_dir() {
        tar.append_dir_all(name, from)
    } else {
        std::fs::File::open(from).and_then(|mut file| tar.append_file(name, &mut file))
    };
    let ended = packed.and_then(|()| tar.into_inner()).and_then(|mut writer| {
        writer.flush()?;
        if writer.input.send_blocking(&ReachFrame::InputEnd) { Ok(()) } else { Err(gone()) }
    });
    ended.and_then(|()| Sent::of(from)).map_err(unreadable)
}

struct FrameWriter<'a> {
    input: ReachInput,
    gathered: Vec<u8>,
    bar: &'a Progress,
}

impl Write for FrameWriter<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let room = REACH_FRAME_BYTES_MAX - self.gathered.len();
        let taken = from.len().min(room);
        self.gathered.extend_from_slice(&from[..taken]);
        if self.gathered.len() == REACH_FRAME_BYTES_MAX {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.bar.add(self.gathered.len());
        let frame = ReachFrame::Input(Bytes::copy_from_slice(&self.gathered));
        self.gathered.clear();
        if self.input.send_blocking(&frame) { Ok(()) } else { Err(gone()) }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the node takes no more")
}

/// Takes what a copy answers until it has succeeded.
async fn copy(session: &mut ReachSession, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), CliError> {
    let unwritable = |error| CliError::new(Exit::Error, "the temporary file cannot be written").because(error);
    loop {
        match session.next().await? {
            ReachFrame::Stdout(bytes) => take(&bytes).map_err(unwritable)?,
            ReachFrame::Exit(0) => return Ok(()),
            ReachFrame::Exit(code) => return Err(broken_off(&format!("the copy failed with code {code}"))),
            ReachFrame::Error(why) => return Err(broken_off(&why).with_exit(Exit::Error)),
            ReachFrame::Stderr(_) | ReachFrame::Input(_) | ReachFrame::Resize(_) | ReachFrame::InputEnd => {}
        }
    }
}

/// The last part of a path here.
fn name_of(path: &Path) -> Result<std::ffi::OsString, CliError> {
    let whole = match path.file_name() {
        Some(name) => return Ok(name.to_owned()),
        // `.` and `..` have the name of what they are.
        None => path.canonicalize(),
    };
    let unreadable = |error| CliError::new(Exit::Error, format!("{} cannot be read", path.display())).because(error);
    let whole = whole.map_err(unreadable)?;
    let name = whole.file_name().ok_or_else(|| CliError::usage("the root folder has no name to copy it under"))?;
    Ok(name.to_owned())
}

/// How much has passed, where somebody watches.
#[derive(Debug, Clone)]
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        Self(output::stderr_is_terminal().then(ProgressBar::new_spinner))
    }

    fn add(&self, bytes: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes as u64);
            bar.set_message(show_bytes(bar.position()));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_told_without_the_tar_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f1");
        std::fs::write(&file, "abc").unwrap();
        assert_eq!(Sent::of(&file).unwrap().to_string(), "1 file, 3 B");
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/f2"), "defgh").unwrap();
        assert_eq!(Sent::of(folder.path()).unwrap(), Sent { files: 2, bytes: 8 });
    }

    #[test]
    fn a_job_and_its_path_are_told_from_paths_here() {
        assert_eq!(Side::of("night:/work/a"), Side::There { job: "night", path: "/work/a" });
        for here in ["a", "./night:/work", "/x:/y", "C:/x", "night:work", "a.b:/c", "night"] {
            assert_eq!(Side::of(here), Side::Here(Path::new(here)), "{here}");
        }
    }
}
