//! One input from its address to a file, over a connection that may break, from a server that may lie.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use url::Url;

use super::{InputFailure, shown};
use crate::http::public::{self, Answer, PublicError, PublicHttp};
use crate::job::backoff::Backoff;
use crate::wire::job::InputSpec;
use crate::wire::lease::FailureKind;

/// Longest that one input may take.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);
/// So often in a row nothing may come before it is given up.
const FRUITLESS_MAX: u32 = 5;
const BUFFER_BYTES: usize = 64 << 10;

/// How a try ended that did not bring all of it.
enum Broken {
    /// Another try may do better; whether this one brought anything.
    Again { why: String, progressed: bool },
    /// Every other try would end the same way.
    Final(InputFailure),
}

/// What has been stored so far.
struct Part {
    file: File,
    hash: Sha256,
    bytes: u64,
}

/// Fetches one input to `file`, unless it is there; answers its size.
pub(super) async fn one(
    http: &PublicHttp,
    input: &InputSpec,
    file: &Path,
    bytes_max: u64,
) -> Result<u64, InputFailure> {
    if let Ok(found) = tokio::fs::metadata(file).await {
        return Ok(found.len());
    }
    let late = || unavailable(input, &format!("it did not come within {} minutes", DEADLINE.as_secs() / 60));
    tokio::time::timeout(DEADLINE, tries(http, input, file, bytes_max)).await.map_err(|_| late())?
}

async fn tries(http: &PublicHttp, input: &InputSpec, file: &Path, bytes_max: u64) -> Result<u64, InputFailure> {
    let url = Url::parse(&input.url).map_err(|_| unavailable(input, "its address is none"))?;
    let mut part_path = file.as_os_str().to_owned();
    part_path.push(".part");
    let part_path = PathBuf::from(part_path);
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
    loop {
        match once(http, input, &url, &part_path, bytes_max).await {
            Ok(bytes) => {
                tokio::fs::rename(&part_path, file).await.map_err(|error| not_stored(&error))?;
                return Ok(bytes);
            }
            Err(Broken::Final(failure)) => {
                crate::job::output::discard(&part_path).await;
                return Err(failure);
            }
            Err(Broken::Again { why, progressed }) => {
                if progressed {
                    backoff.reset();
                } else if backoff.attempts() >= FRUITLESS_MAX {
                    return Err(unavailable(input, &why));
                }
                tracing::debug!(why, "an input is tried again");
                backoff.wait().await;
            }
        }
    }
}

/// One connection: the whole of it, or what is missing.
async fn once(
    http: &PublicHttp,
    input: &InputSpec,
    url: &Url,
    part_path: &Path,
    bytes_max: u64,
) -> Result<u64, Broken> {
    let mut part = open(part_path).await?;
    let had = part.bytes;
    let mut headers = HeaderMap::new();
    if let (true, Ok(range)) = (had > 0, HeaderValue::try_from(format!("bytes={had}-"))) {
        headers.insert(RANGE, range);
    }
    let answer = http.follow(Method::GET, url, headers).await.map_err(|error| of_http(input, error, false))?;
    if !continues(input, &answer, had)? {
        part.restart().await?;
    }
    if answer.bytes_announced().is_some_and(|more| part.bytes.saturating_add(more) > bytes_max) {
        return Err(too_large(input, bytes_max));
    }
    let resumed = part.bytes > 0;
    store(input, answer, &mut part, bytes_max).await?;
    let (bytes, found) = part.finish().await?;
    if found.eq_ignore_ascii_case(&input.sha256) {
        return Ok(bytes);
    }
    if resumed {
        // Its first half may be of another version; once more, from the start.
        crate::job::output::discard(part_path).await;
        return Err(Broken::Again { why: mismatch(input, &found).detail, progressed: false });
    }
    Err(Broken::Final(mismatch(input, &found)))
}

async fn store(input: &InputSpec, mut answer: Answer, part: &mut Part, bytes_max: u64) -> Result<(), Broken> {
    let began = part.bytes;
    loop {
        let piece = match answer.piece().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(()),
            Err(error) => {
                part.file.flush().await.map_err(stored)?;
                return Err(of_http(input, error, part.bytes > began));
            }
        };
        if part.bytes + piece.len() as u64 > bytes_max {
            return Err(too_large(input, bytes_max));
        }
        part.add(&piece).await?;
    }
}

/// Whether the answer goes on where the last one broke off; otherwise it begins at the beginning.
fn continues(input: &InputSpec, answer: &Answer, had: u64) -> Result<bool, Broken> {
    let status = answer.status();
    let again = |why: String| Err(Broken::Again { why, progressed: false });
    match status.as_u16() {
        200 => Ok(false),
        206 => {
            let range = answer.header(&CONTENT_RANGE).unwrap_or_default();
            match range.strip_prefix(&format!("bytes {had}-")) {
                Some(_) => Ok(true),
                None => Err(Broken::Final(unavailable(input, "its server sends another part than was asked for"))),
            }
        }
        // More is here than there: another version, or nothing is missing. The end is told by the checksum.
        416 if had > 0 => Err(Broken::Final(unavailable(input, "its server has less than it sent before"))),
        408 | 425 | 429 | 500..=599 => again(format!("its server answers {status}")),
        _ => Err(Broken::Final(unavailable(input, &format!("its server answers {status}")))),
    }
}

/// What a try before this one has left, hashed.
async fn open(path: &Path) -> Result<Part, Broken> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path).await.map_err(stored)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER_BYTES]);
    loop {
        let read = file.read(&mut buffer).await.map_err(stored)?;
        if read == 0 {
            return Ok(Part { file, hash, bytes });
        }
        bytes += read as u64;
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

impl Part {
    async fn restart(&mut self) -> Result<(), Broken> {
        self.file.set_len(0).await.map_err(stored)?;
        self.file.rewind().await.map_err(stored)?;
        (self.hash, self.bytes) = (Sha256::new(), 0);
        Ok(())
    }

    async fn add(&mut self, piece: &[u8]) -> Result<(), Broken> {
        self.file.write_all(piece).await.map_err(stored)?;
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        Ok(())
    }

    async fn finish(mut self) -> Result<(u64, String), Broken> {
        self.file.flush().await.map_err(stored)?;
        Ok((self.bytes, hex::encode(self.hash.finalize())))
    }
}

fn of_http(input: &InputSpec, error: PublicError, progressed: bool) -> Broken {
    let why = error.to_string();
    match error {
        PublicError::Unreachable { .. } => Broken::Again { why, progressed },
        // Nowhere would it be fetched.
        PublicError::NotPublic { .. } if public::names_private_address(&input.url) => {
            Broken::Final(InputFailure { why: FailureKind::InvalidSpec, ..unavailable(input, &why) })
        }
        PublicError::BadUrl { .. }
        | PublicError::NotPublic { .. }
        | PublicError::TooManyRedirects { .. }
        | PublicError::TooLarge { .. }
        | PublicError::Setup(_) => Broken::Final(unavailable(input, &why)),
    }
}

fn unavailable(input: &InputSpec, why: &str) -> InputFailure {
    InputFailure::new(FailureKind::InputUnavailable, format!("input {} cannot be fetched: {why}", shown(input)))
}

fn mismatch(input: &InputSpec, found: &str) -> InputFailure {
    let detail = format!("input {} has the SHA-256 {found}, not {}", shown(input), input.sha256);
    InputFailure::new(FailureKind::InputMismatch, detail)
}

fn too_large(input: &InputSpec, bytes_max: u64) -> Broken {
    let detail = format!("input {} is larger than the {bytes_max} bytes there are for it", shown(input));
    Broken::Final(InputFailure::new(FailureKind::InputMismatch, detail))
}

fn stored(error: std::io::Error) -> Broken {
    Broken::Final(not_stored(&error))
}

fn not_stored(error: &std::io::Error) -> InputFailure {
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let why = if full { FailureKind::NoSpace } else { FailureKind::InputUnavailable };
    InputFailure::new(why, format!("the node could not store an input ({error})"))
}
