//! A renter reaches into a running job: one session is one command or one copy, and each direction of it one stream of frames.
//!
//! A frame is one byte of kind, four bytes of length (big endian), then the bytes. The renter writes [`ReachKind::Input`],
//! [`ReachKind::Resize`] and [`ReachKind::InputEnd`]; the node answers with [`ReachKind::Stdout`], [`ReachKind::Stderr`] and ends
//! with [`ReachKind::Exit`] or [`ReachKind::Error`]. A copied folder travels as a tar in the same frames: out of the job in
//! `Stdout`, into it in `Input`. Nothing of it is stored anywhere.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::ids::{LeaseId, ReachId};
use super::keys::Secret;

/// Bytes of a frame's header.
pub const REACH_HEADER_BYTES: usize = 5;

/// Most bytes one frame may carry.
pub const REACH_FRAME_BYTES_MAX: usize = 32 << 10;

/// `POST /v1/jobs/{id}/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewReach {
    /// In which of the job's containers; the main one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What to do there.
    pub what: ReachWish,
}

/// What a renter wants to do in a running job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReachWish {
    /// Run a command as the job's own user.
    Exec {
        /// Program and arguments, at least one.
        command: Vec<String>,
        /// A terminal of this size; separate pipes when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tty: Option<TerminalSize>,
        /// Variables on top of the container's own.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, Secret>,
        /// Working directory; the container's own when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workdir: Option<String>,
    },
    /// Read a file or folder as a tar.
    CopyOut {
        /// Absolute path in the container.
        path: String,
    },
    /// Write a tar to where the job itself may write: below its work directory or its output folder.
    CopyIn {
        /// Absolute path in the container: a folder that is there, or the name that the tar's one top entry gets.
        path: String,
    },
    /// A wish this build does not know; a node refuses it.
    #[serde(other)]
    Unknown,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Answer to [`NewReach`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReachOpened {
    /// The session. Both of its streams must be opened within half a minute.
    pub session_id: ReachId,
}

/// A session that waits for its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingReach {
    /// The session.
    pub session_id: ReachId,
    /// Into which lease's containers.
    pub lease_id: LeaseId,
    /// In which of them; the main one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What to do there.
    pub what: ReachWish,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReachKind {
    /// Bytes for the command's standard input, or of a tar that is copied in.
    Input,
    /// Bytes of its standard output or terminal, or of a tar that is copied out.
    Stdout,
    /// Bytes of its standard error.
    Stderr,
    /// The terminal's new size: columns and rows, two bytes each (big endian).
    Resize,
    /// No more input follows.
    InputEnd,
    /// The last frame: the command's exit code in four bytes (big endian); 0 for a copy that succeeded.
    Exit,
    /// The last frame: a sentence on why the session ended before its time.
    Error,
}

impl ReachKind {
    /// The byte that stands for the kind.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Input => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Resize => 3,
            Self::InputEnd => 4,
            Self::Exit => 5,
            Self::Error => 6,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Input),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Resize),
            4 => Some(Self::InputEnd),
            5 => Some(Self::Exit),
            6 => Some(Self::Error),
            _ => None,
        }
    }
}

/// One frame, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReachFrame {
    /// See [`ReachKind::Input`].
    Input(Bytes),
    /// See [`ReachKind::Stdout`].
    Stdout(Bytes),
    /// See [`ReachKind::Stderr`].
    Stderr(Bytes),
    /// See [`ReachKind::Resize`].
    Resize(TerminalSize),
    /// See [`ReachKind::InputEnd`].
    InputEnd,
    /// See [`ReachKind::Exit`].
    Exit(i32),
    /// See [`ReachKind::Error`].
    Error(String),
}

/// The bytes are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReachFrameError {
    /// A kind of frame that is not known.
    #[error("session frame of unknown kind {0}")]
    UnknownKind(u8),
    /// A length past the limit.
    #[error("session frame of {0} bytes; the most is {REACH_FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// A size or an exit code of the wrong length.
    #[error("session frame of kind {kind} with {length} bytes")]
    Malformed {
        /// The kind's byte.
        kind: u8,
        /// How many bytes it carries.
        length: usize,
    },
}

/// Appends `bytes` to `out` as one or more frames; nothing for no bytes.
pub fn encode(kind: ReachKind, mut bytes: &[u8], out: &mut BytesMut) {
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(bytes.len().min(REACH_FRAME_BYTES_MAX));
        header(kind, piece.len(), out);
        out.put_slice(piece);
        bytes = rest;
    }
}

/// Appends one whole frame.
pub fn encode_frame(frame: &ReachFrame, out: &mut BytesMut) {
    match frame {
        ReachFrame::Input(bytes) => encode(ReachKind::Input, bytes, out),
        ReachFrame::Stdout(bytes) => encode(ReachKind::Stdout, bytes, out),
        ReachFrame::Stderr(bytes) => encode(ReachKind::Stderr, bytes, out),
        ReachFrame::Resize(size) => {
            header(ReachKind::Resize, 4, out);
            out.put_u16(size.columns);
            out.put_u16(size.rows);
        }
        ReachFrame::InputEnd => header(ReachKind::InputEnd, 0, out),
        ReachFrame::Exit(code) => {
            header(ReachKind::Exit, 4, out);
            out.put_i32(*code);
        }
        ReachFrame::Error(sentence) => {
            let bytes = sentence.as_bytes();
            let piece = bytes.get(..REACH_FRAME_BYTES_MAX).unwrap_or(bytes);
            header(ReachKind::Error, piece.len(), out);
            out.put_slice(piece);
        }
    }
}

fn header(kind: ReachKind, length: usize, out: &mut BytesMut) {
    out.put_u8(kind.as_byte());
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Takes the next whole frame off `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// When the bytes cannot be the start of a frame.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<ReachFrame>, ReachFrameError> {
    let Some((kind, length)) = read_header(buffer)? else { return Ok(None) };
    if buffer.len() < REACH_HEADER_BYTES + length {
        return Ok(None);
    }
    buffer.advance(REACH_HEADER_BYTES);
    let mut bytes = buffer.split_to(length).freeze();
    let malformed = ReachFrameError::Malformed { kind: kind.as_byte(), length };
    Ok(Some(match (kind, length) {
        (ReachKind::Input, _) => ReachFrame::Input(bytes),
        (ReachKind::Stdout, _) => ReachFrame::Stdout(bytes),
        (ReachKind::Stderr, _) => ReachFrame::Stderr(bytes),
        (ReachKind::Resize, 4) => ReachFrame::Resize(TerminalSize { columns: bytes.get_u16(), rows: bytes.get_u16() }),
        (ReachKind::InputEnd, 0) => ReachFrame::InputEnd,
        (ReachKind::Exit, 4) => ReachFrame::Exit(bytes.get_i32()),
        (ReachKind::Error, _) => ReachFrame::Error(String::from_utf8_lossy(&bytes).into_owned()),
        (ReachKind::Resize | ReachKind::InputEnd | ReachKind::Exit, _) => return Err(malformed),
    }))
}

/// Takes as many whole frames off `buffer` as fit into one frame's greatest length, unread; `None` when more bytes are needed.
///
/// # Errors
/// When the bytes cannot be the start of a frame.
pub fn take_whole(buffer: &mut BytesMut) -> Result<Option<Bytes>, ReachFrameError> {
    let mut whole = 0;
    while let Some((_, length)) = read_header(buffer.get(whole..).unwrap_or_default())? {
        let next = whole + REACH_HEADER_BYTES + length;
        if next > buffer.len() || (whole > 0 && next > REACH_HEADER_BYTES + REACH_FRAME_BYTES_MAX) {
            break;
        }
        whole = next;
    }
    Ok((whole > 0).then(|| buffer.split_to(whole).freeze()))
}

fn read_header(bytes: &[u8]) -> Result<Option<(ReachKind, usize)>, ReachFrameError> {
    let Some(header) = bytes.get(..REACH_HEADER_BYTES) else { return Ok(None) };
    let kind = ReachKind::from_byte(header[0]).ok_or(ReachFrameError::UnknownKind(header[0]))?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > REACH_FRAME_BYTES_MAX { Err(ReachFrameError::TooLong(length)) } else { Ok(Some((kind, length))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_that_cannot_be_is_refused_before_it_is_waited_for() {
        let refused = |bytes: &[u8]| {
            let mut buffer = BytesMut::from(bytes);
            (decode(&mut buffer.clone()).unwrap_err(), take_whole(&mut buffer).unwrap_err())
        };
        let long = ReachFrameError::TooLong(0xffff_ffff);
        assert_eq!(refused(&[0, 0xff, 0xff, 0xff, 0xff]), (long, long));
        let unknown = ReachFrameError::UnknownKind(9);
        assert_eq!(refused(&[9, 0, 0, 0, 0]), (unknown, unknown));
        let mut short = BytesMut::from(&[5, 0, 0, 0, 1, 7][..]);
        assert_eq!(decode(&mut short), Err(ReachFrameError::Malformed { kind: 5, length: 1 }));
    }

    fn frame() -> impl Strategy<Value = ReachFrame> {
        let bytes = || prop::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from);
        prop_oneof![
            bytes().prop_map(ReachFrame::Input),
            bytes().prop_map(ReachFrame::Stdout),
            bytes().prop_map(ReachFrame::Stderr),
            any::<(u16, u16)>().prop_map(|(columns, rows)| ReachFrame::Resize(TerminalSize { columns, rows })),
            Just(ReachFrame::InputEnd),
            any::<i32>().prop_map(ReachFrame::Exit),
            "[a-z ]{0,40}".prop_map(ReachFrame::Error),
        ]
    }

    proptest! {
        #[test]
        fn what_is_framed_comes_back_through_a_relay_whatever_the_cuts(
            frames in prop::collection::vec(frame(), 0..20), cut in 1usize..50,
        ) {
            let mut sent = BytesMut::new();
            frames.iter().for_each(|frame| encode_frame(frame, &mut sent));
            let (mut relay, mut reader, mut back) = (BytesMut::new(), BytesMut::new(), Vec::new());
            for chunk in sent.chunks(cut) {
                relay.extend_from_slice(chunk);
                while let Some(whole) = take_whole(&mut relay).unwrap() {
                    reader.extend_from_slice(&whole);
                    while let Some(frame) = decode(&mut reader).unwrap() {
                        back.push(frame);
                    }
                    prop_assert!(reader.is_empty(), "a relay hands on whole frames only");
                }
            }
            prop_assert_eq!(back, frames);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_whole(&mut buffer) {}
        }
    }
}
