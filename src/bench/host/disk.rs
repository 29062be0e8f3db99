//! What the disk does under a folder: in a row, and 4 KiB here and there one at a time, past the system's cache.
//!
//! Invariants
//! - The file never has a name where the system allows that (Linux), and loses it at once elsewhere; so nothing is left behind,
//!   whenever the program ends.
//! - Bounded in bytes and in time; what does not fit is an error before anything is written.
//! - What is read is compared with what was written.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use crate::clock::Clock;
use crate::os;
use crate::wire::bench::HostFigures;

/// Bytes of a write or read in a row.
const LARGE_BYTES: usize = 4 << 20;
/// Bytes of one here and there; also what direct IO wants everything to be a multiple of.
const SMALL_BYTES: usize = 4 << 10;

/// How much to use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of the file.
    bytes_max: u64,
    /// Of each of the four measurements.
    time_max: Duration,
}

impl Bounds {
    /// A full run.
    pub(super) const FULL: Self = Self { bytes_max: 256 << 20, time_max: Duration::from_millis(1500) };
}

/// Why a disk was not measured.
#[derive(Debug, Error)]
pub(super) enum DiskError {
    #[error("{step}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("there is too little room: {free} bytes are free")]
    Full { free: u64 },
    #[error("block {block} does not hold what was written")]
    Wrong { block: u64 },
}

/// Measures under `folder`.
pub(super) fn measure(
    folder: &Path,
    bounds: Bounds,
    clock: &Clock,
    figures: &mut HostFigures,
) -> Result<(), DiskError> {
    let io = |step: &'static str| move |source: io::Error| DiskError::Io { step, source };
    let free = os::disk_bytes_free(folder).map_err(io("its free space cannot be read"))?;
    let bytes = bounds.bytes_max.min(free / 20);
    if bytes < 4 * LARGE_BYTES as u64 {
        return Err(DiskError::Full { free });
    }
    let file = tempfile::tempfile_in(folder).map_err(io("no file can be made there"))?;
    os::past_the_cache(&file).map_err(io("its file system cannot be used past the cache"))?;
    let mut bench = Bench { file, clock, time_max: bounds.time_max, large: Aligned::new(LARGE_BYTES) };

    let (written, rate) = bench.write_in_a_row(bytes).map_err(io("it cannot be written"))?;
    figures.disk_write_bytes_per_second = rate;
    figures.disk_read_bytes_per_second = bench.read_in_a_row(written)?;
    let slots = written / SMALL_BYTES as u64;
    figures.disk_reads_per_second = bench.here_and_there(slots, false)?;
    figures.disk_writes_per_second = bench.here_and_there(slots, true)?;
    Ok(())
}

struct Bench<'a> {
    file: File,
    clock: &'a Clock,
    time_max: Duration,
    large: Aligned,
}

impl Bench<'_> {
    /// Writes up to `bytes` and waits until they are on the disk: how many were written, and bytes per second.
    fn write_in_a_row(&mut self, bytes: u64) -> io::Result<(u64, Option<f64>)> {
        let before = self.clock.steady();
        let mut written = 0;
        while written < bytes && self.clock.steady().since(before) < self.time_max {
            let block = self.large.bytes();
            fill(block, written / SMALL_BYTES as u64);
            self.file.write_all(block)?;
            written += LARGE_BYTES as u64;
        }
        self.file.sync_data()?;
        Ok((written, rate(written, self.clock.steady().since(before))))
    }

    fn read_in_a_row(&mut self, bytes: u64) -> Result<Option<f64>, DiskError> {
        let failed = |source| DiskError::Io { step: "it cannot be read", source };
        self.file.rewind().map_err(failed)?;
        let before = self.clock.steady();
        let mut read = 0;
        while read < bytes && self.clock.steady().since(before) < self.time_max {
            let block = self.large.bytes();
            self.file.read_exact(block).map_err(failed)?;
            check(block, read / SMALL_BYTES as u64)?;
            read += LARGE_BYTES as u64;
        }
        Ok(rate(read, self.clock.steady().since(before)))
    }

    /// Reads or writes of 4 KiB per second, one at a time, each waited for.
    fn here_and_there(&mut self, slots: u64, write: bool) -> Result<Option<f64>, DiskError> {
        let failed = |source| DiskError::Io { step: "it cannot be used here and there", source };
        let mut small = Aligned::new(SMALL_BYTES);
        let before = self.clock.steady();
        let (mut count, mut at) = (0u64, 1u64);
        while count < 20_000 && self.clock.steady().since(before) < self.time_max {
            // A generator with a period of 2^64 (Knuth's MMIX); its upper bits are the random ones.
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let slot = (at >> 33) % slots;
            self.file.seek(SeekFrom::Start(slot * SMALL_BYTES as u64)).map_err(failed)?;
            let block = small.bytes();
            if write {
                fill(block, slot);
                self.file.write_all(block).map_err(failed)?;
            } else {
                self.file.read_exact(block).map_err(failed)?;
                check(block, slot)?;
            }
            count += 1;
        }
        if write {
            self.file.sync_data().map_err(failed)?;
        }
        Ok(rate(count, self.clock.steady().since(before)))
    }
}

/// Words of slots of 4 KiB: each is made from its slot and its place, so that no two are alike.
fn word(slot: u64, place: u64) -> u64 {
    (slot << 32 | place).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fill(block: &mut [u8], first_slot: u64) {
    for (slot, bytes) in (first_slot..).zip(block.chunks_exact_mut(SMALL_BYTES)) {
        for (place, word_bytes) in (0..).zip(bytes.chunks_exact_mut(8)) {
            word_bytes.copy_from_slice(&word(slot, place).to_le_bytes());
        }
    }
}

/// Looks at the first and the last word of every slot: comparing all would be measured too.
fn check(block: &[u8], first_slot: u64) -> Result<(), DiskError> {
    for (slot, bytes) in (first_slot..).zip(block.chunks_exact(SMALL_BYTES)) {
        let last = SMALL_BYTES - 8;
        if bytes[..8] != word(slot, 0).to_le_bytes() || bytes[last..] != word(slot, last as u64 / 8).to_le_bytes() {
            return Err(DiskError::Wrong { block: slot });
        }
    }
    Ok(())
}

fn rate(amount: u64, took: Duration) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let amount = amount as f64;
    Some(amount / took.as_secs_f64()).filter(|rate| rate.is_finite() && *rate > 0.0)
}

/// Bytes that start where direct IO wants them to.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + SMALL_BYTES];
        let start = bytes.as_ptr().align_offset(SMALL_BYTES).min(SMALL_BYTES);
        Self { bytes, start, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Bounds = Bounds { bytes_max: 32 << 20, time_max: Duration::from_millis(100) };

    #[test]
    fn a_block_in_the_wrong_place_and_a_changed_one_are_noticed() {
        let mut block = vec![0; 2 * SMALL_BYTES];
        fill(&mut block, 7);
        check(&block, 7).unwrap();
        assert!(matches!(check(&block, 8), Err(DiskError::Wrong { block: 8 })));
        block[2 * SMALL_BYTES - 1] ^= 1;
        assert!(matches!(check(&block, 7), Err(DiskError::Wrong { block: 8 })));
    }

    #[test]
    fn buffers_start_where_direct_io_wants_them() {
        for length in [SMALL_BYTES, LARGE_BYTES] {
            let mut aligned = Aligned::new(length);
            assert_eq!(aligned.bytes().len(), length);
            assert_eq!(aligned.bytes().as_ptr().align_offset(SMALL_BYTES), 0);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_measured_disk_has_no_file_left_and_never_had_a_name() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut figures = HostFigures::default();
        measure(folder.path(), SHORT, &Clock::system(), &mut figures).unwrap();
        assert_eq!(figures.figures().count(), 4, "{figures:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // What a program that dies in the middle leaves behind is what can be seen while the file is open.
        let open = tempfile::tempfile_in(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(open);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_and_no_figure() {
        let mut figures = HostFigures::default();
        measure(Path::new("/nowhere/at/all"), SHORT, &Clock::system(), &mut figures).unwrap_err();
        assert_eq!(figures, HostFigures::default());
    }
}
