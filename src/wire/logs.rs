//! Logs travel as frames: one byte of stream, four bytes of length (big endian), then the bytes as the job wrote them.
//!
//! An offset counts bytes of the framed stream, headers included, so that one number resumes both streams in order. A log that
//! was cut at its limit ends with a frame of stream [`LogStream::Notice`].

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 5;

/// Most bytes one frame may carry.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output of the job.
    Stdout,
    /// Standard error of the job.
    Stderr,
    /// A sentence of Fizz's own, such as "the log was cut at 16 MiB".
    Notice,
}

impl LogStream {
    /// The byte that stands for the stream.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Notice => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Notice),
            _ => None,
        }
    }
}

/// One piece of a log. Bytes need not be UTF-8 and need not end a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFrame {
    /// Where the job wrote it.
    pub stream: LogStream,
    /// What the job wrote, at most [`FRAME_BYTES_MAX`].
    pub bytes: Bytes,
}

/// The bytes are no frames.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A stream byte other than 1, 2 or 3.
    #[error("log frame of unknown stream {0}")]
    UnknownStream(u8),
    /// A length past the limit.
    #[error("log frame of {0} bytes; the most is {FRAME_BYTES_MAX}")]
    TooLong(usize),
}

/// Appends `bytes` to `out` as one or more frames.
pub fn encode(stream: LogStream, mut bytes: &[u8], out: &mut BytesMut) {
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(bytes.len().min(FRAME_BYTES_MAX));
        out.put_u8(stream.as_byte());
        out.put_u32(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        out.put_slice(piece);
        bytes = rest;
    }
}

/// Takes the next whole frame off `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// When the bytes cannot be the start of a frame.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<LogFrame>, FrameError> {
    let Some(header) = buffer.get(..FRAME_HEADER_BYTES) else { return Ok(None) };
    let stream = LogStream::from_byte(header[0]).ok_or(FrameError::UnknownStream(header[0]))?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() < FRAME_HEADER_BYTES + length {
        return Ok(None);
    }
    buffer.advance(FRAME_HEADER_BYTES);
    Ok(Some(LogFrame { stream, bytes: buffer.split_to(length).freeze() }))
}

/// Length of the longest prefix of `bytes` that consists of whole frames.
///
/// # Errors
/// When the bytes are no frames.
pub fn whole_frames(bytes: &[u8]) -> Result<usize, FrameError> {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + FRAME_HEADER_BYTES) {
        LogStream::from_byte(header[0]).ok_or(FrameError::UnknownStream(header[0]))?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        if bytes.len() < at + FRAME_HEADER_BYTES + length {
            break;
        }
        at += FRAME_HEADER_BYTES + length;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_past_the_limit_is_refused_before_it_is_waited_for() {
        let mut buffer = BytesMut::from(&[1, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(decode(&mut buffer), Err(FrameError::TooLong(0xffff_ffff)));
        assert_eq!(whole_frames(&[9, 0, 0, 0, 0]), Err(FrameError::UnknownStream(9)));
    }

    proptest! {
        #[test]
        fn what_is_framed_comes_back_whatever_the_cuts(pieces in prop::collection::vec((0u8..3, prop::collection::vec(any::<u8>(), 0..200)), 0..20), cut in 1usize..50) {
            let streams = [LogStream::Stdout, LogStream::Stderr, LogStream::Notice];
            let mut framed = BytesMut::new();
            for (stream, bytes) in &pieces {
                encode(streams[usize::from(*stream)], bytes, &mut framed);
            }
            prop_assert_eq!(whole_frames(&framed).unwrap(), framed.len());
            let mut buffer = BytesMut::new();
            let mut back = Vec::new();
            for chunk in framed.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    back.push(frame);
                }
            }
            prop_assert!(buffer.is_empty());
            let expected: Vec<_> = pieces.iter().filter(|(_, b)| !b.is_empty()).map(|(s, b)| LogFrame { stream: streams[usize::from(*s)], bytes: Bytes::copy_from_slice(b) }).collect();
            prop_assert_eq!(back, expected);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = whole_frames(&bytes);
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }
}
