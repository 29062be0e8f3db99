//! When to look at what a job has written, and when it is too much. Pure: the looking is `runner/disk`.
//!
//! Looking is dear (the engine walks the container's files), asking the file system for its free space is cheap. So one looks
//! soon after space was lost there, and now and then otherwise.
//!
//! Invariants
//! - Two looks are at least [`LOOK_EVERY_MIN`] and twenty times a look's own cost apart, at most [`LOOK_EVERY_MAX`] more.
//! - Where the file system tells nothing (an engine on another machine), one looks at the shortest allowed interval.
//! - What no look can see counts as far as both the kernel's count of its writes and the space that was lost speak against it.

use std::time::Duration;

use crate::clock::Steady;
use crate::runtime::{DiskUse, FreeSpace};
use crate::wire::lease::LimitKind;

/// Shortest time between two looks.
pub(super) const LOOK_EVERY_MIN: Duration = Duration::from_secs(2);
/// Longest time between two looks of a job that seems to write nothing.
pub(super) const LOOK_EVERY_MAX: Duration = Duration::from_secs(15);
/// So many times a look's own cost passes until the next.
const COST_FACTOR: u32 = 20;
/// One file per so many bytes of disk.
const BYTES_PER_FILE: u64 = 4096;
/// Every job may have so many files.
const FILES_MIN: u64 = 10_000;
/// So much of the file system stays free for the owner; less, where there was little to begin with.
const RESERVE_BYTES: u64 = 512 << 20;
/// Of what was free when the watch began, one part in so many at most is the reserve.
const RESERVE_SHARE: u64 = 4;
/// Less than one in so many files left free on the file system is an emergency.
const RESERVE_FILES: u64 = 50;

/// What a job may have on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskLimits {
    /// In bytes.
    pub(super) bytes: u64,
    /// Files and folders.
    pub(super) files: u64,
}

impl DiskLimits {
    /// The limits that follow from the disk a job asked for; `None` when it asked for none and cannot write at all.
    pub(super) fn of(disk_bytes: u64) -> Option<Self> {
        (disk_bytes > 0).then(|| Self { bytes: disk_bytes, files: (disk_bytes / BYTES_PER_FILE).max(FILES_MIN) })
    }
}

/// One kind of look: what the file system had free at the last one, and when the next is due.
#[derive(Debug, Clone, Copy)]
struct Pace {
    free: Option<u64>,
    looked_at: Steady,
    rest: Duration,
}

impl Pace {
    /// Whether to look, when so much is free now and the loss of `alarm` would be too much.
    fn is_due(&self, free: Option<u64>, alarm: u64, now: Steady) -> bool {
        let waited = now.since(self.looked_at);
        let moved = match (self.free, free) {
            (Some(before), Some(now)) => before.saturating_sub(now) >= alarm,
            (None, _) | (_, None) => true,
        };
        waited >= self.rest && (moved || waited >= self.rest + LOOK_EVERY_MAX)
    }

    fn looked(&mut self, free: Option<u64>, cost: Duration, now: Steady) {
        *self = Self { free, looked_at: now, rest: LOOK_EVERY_MIN.max(cost * COST_FACTOR) };
    }
}

/// Free files, where the file system has a number of them.
fn files_free(free: Option<FreeSpace>) -> Option<u64> {
    free.filter(|free| free.files_total > 0).map(|free| free.files_free)
}

/// The watch over one container.
#[derive(Debug, Clone)]
pub(super) struct DiskWatch {
    limits: DiskLimits,
    bytes: Pace,
    files: Pace,
    bytes_left: u64,
    reserve: u64,
    free_first: Option<u64>,
}

impl DiskWatch {
    /// Begins; the first look is due at once.
    pub(super) fn new(limits: DiskLimits, free: Option<FreeSpace>, now: Steady) -> Self {
        let files = Pace { free: files_free(free), looked_at: now, rest: LOOK_EVERY_MIN };
        let bytes = Pace { free: None, looked_at: now, rest: Duration::ZERO };
        let reserve = free.map_or(0, |free| (free.bytes_free / RESERVE_SHARE).min(RESERVE_BYTES));
        let free_first = free.map(|free| free.bytes_free);
        Self { limits, bytes, files, bytes_left: limits.bytes, reserve, free_first }
    }

    /// Whether so little is left that nothing of a stranger's may go on writing. A look does not see everything a job can fill a
    /// disk with: an open file that was deleted and is on its way from one process to another is in nobody's list.
    pub(super) fn is_nearly_full(&self, free: Option<FreeSpace>) -> bool {
        free.is_some_and(|free| free.bytes_free < self.reserve)
    }

    /// Whether to see how many bytes it has written.
    pub(super) fn wants_bytes(&self, free: Option<FreeSpace>, now: Steady) -> bool {
        // A job far from its limit is looked at less: only what could bring it over counts.
        self.bytes.is_due(free.map(|free| free.bytes_free), (self.bytes_left / 4).max(1), now)
    }

    /// This was seen of it; what follows from it.
    pub(super) fn saw_bytes(
        &mut self,
        seen: &DiskUse,
        free: Option<FreeSpace>,
        cost: Duration,
        now: Steady,
    ) -> Option<LimitKind> {
        let bytes = self.taken(seen, free);
        self.bytes_left = self.limits.bytes.saturating_sub(bytes);
        self.bytes.looked(free.map(|free| free.bytes_free), cost, now);
        (bytes > self.limits.bytes).then_some(LimitKind::DiskBytes)
    }

    /// How many bytes it takes. What was not seen can be no more than it ever wrote, and no more than is gone from the disk since the
    /// watch began: a job that writes the same place again and again, or an owner who fills the disk, is not enough.
    fn taken(&self, seen: &DiskUse, free: Option<FreeSpace>) -> u64 {
        let lost = self.free_first.zip(free).map(|(first, now)| first.saturating_sub(now.bytes_free));
        let unseen = seen.written_max.zip(lost).map_or(0, |(written, lost)| written.min(lost));
        seen.bytes.max(unseen)
    }

    /// Whether to count its files. Counting is dearer still, and pointless while the file system lost none.
    pub(super) fn wants_files(&self, free: Option<FreeSpace>, now: Steady) -> bool {
        let few = free.is_some_and(|free| free.files_free < free.files_total / RESERVE_FILES);
        let alarm = if few { 1 } else { self.limits.files / 4 };
        self.files.is_due(files_free(free), alarm, now)
    }

    /// It has so many; what follows from it.
    pub(super) fn saw_files(
        &mut self,
        files: u64,
        free: Option<FreeSpace>,
        cost: Duration,
        now: Steady,
    ) -> Option<LimitKind> {
        let known = files_free(free);
        self.files.looked(known, cost, now);
        if known.is_none() {
            self.files.rest = self.files.rest.max(LOOK_EVERY_MAX);
        }
        (files > self.limits.files).then_some(LimitKind::DiskFiles)
    }

    /// The limit of a kind, in its unit.
    pub(super) fn value(&self, limit: LimitKind) -> u64 {
        match limit {
            LimitKind::DiskBytes => self.limits.bytes,
            LimitKind::DiskFiles => self.limits.files,
            LimitKind::Unknown => 0,
        }
    }

    /// How many files are worth counting.
    pub(super) fn files_max(&self) -> u64 {
        self.limits.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ContainerStatus;

    const GIB: u64 = 1 << 30;
    const QUICK: Duration = Duration::from_millis(5);

    fn at(seconds: u64) -> Steady {
        Steady::from_start(Duration::from_secs(seconds))
    }

    fn free(bytes_free: u64, files_free: u64) -> Option<FreeSpace> {
        Some(FreeSpace { bytes_free, files_free, files_total: 1_000_000 })
    }

    fn seen(bytes: u64) -> DiskUse {
        DiskUse { bytes, written_max: None, status: ContainerStatus::Created }
    }

    fn watch(free: Option<FreeSpace>) -> DiskWatch {
        DiskWatch::new(DiskLimits::of(GIB).unwrap(), free, at(0))
    }

    #[test]
    fn a_job_without_disk_is_not_watched_and_every_other_may_have_some_files() {
        assert_eq!(DiskLimits::of(0), None);
        assert_eq!(DiskLimits::of(1).unwrap().files, FILES_MIN);
        assert_eq!(DiskLimits::of(GIB).unwrap().files, 262_144);
    }

    #[test]
    fn one_looks_when_space_was_lost_and_seldom_otherwise() {
        let mut watch = watch(free(100 * GIB, 900_000));
        assert!(watch.wants_bytes(free(100 * GIB, 0), at(0)), "at once");
        assert_eq!(watch.saw_bytes(&seen(0), free(100 * GIB, 0), QUICK, at(0)), None);
        assert!(!watch.wants_bytes(free(99 * GIB, 0), at(1)), "not twice within two seconds");
        assert!(!watch.wants_bytes(free(100 * GIB, 0), at(4)), "nothing was written anywhere");
        assert!(!watch.wants_bytes(free(100 * GIB - GIB / 5, 0), at(4)), "not enough to bring it over");
        assert!(watch.wants_bytes(free(100 * GIB - GIB / 4, 0), at(4)));
        assert!(watch.wants_bytes(free(100 * GIB, 0), at(17)), "now and then in any case");
        assert_eq!(watch.saw_bytes(&seen(GIB), None, QUICK, at(20)), None, "all of it is still its own");
        assert_eq!(watch.saw_bytes(&seen(GIB + 1), None, QUICK, at(22)), Some(LimitKind::DiskBytes));
    }

    #[test]
    fn what_no_look_can_see_counts_where_both_its_writes_and_the_lost_space_speak_against_it() {
        let unseen = |written, lost: u64| {
            let mut watch = watch(free(100 * GIB, 0));
            let seen = DiskUse { written_max: written, ..seen(GIB / 2) };
            watch.saw_bytes(&seen, free(100 * GIB - lost, 0), QUICK, at(9))
        };
        assert_eq!(unseen(Some(3 * GIB), 2 * GIB), Some(LimitKind::DiskBytes));
        assert_eq!(unseen(Some(3 * GIB), GIB), None, "it wrote the same place again and again");
        assert_eq!(unseen(Some(GIB), 9 * GIB), None, "somebody else fills the disk");
        assert_eq!(unseen(None, 9 * GIB), None, "everything was seen, or nobody counts");
    }

    #[test]
    fn a_dear_look_is_not_repeated_before_it_has_paid() {
        let mut watch = watch(None);
        let _ = watch.saw_bytes(&seen(0), None, Duration::from_secs(1), at(0));
        assert!(!watch.wants_bytes(None, at(19)));
        assert!(watch.wants_bytes(None, at(20)), "where nothing is known of the file system");
    }

    #[test]
    fn files_are_counted_when_many_were_made_or_few_are_left() {
        let mut watch = watch(free(GIB, 900_000));
        assert!(!watch.wants_files(free(GIB, 899_000), at(5)));
        assert!(watch.wants_files(free(GIB, 800_000), at(5)));
        assert_eq!(watch.saw_files(100_000, free(GIB, 800_000), QUICK, at(5)), None);
        assert!(!watch.wants_files(free(GIB, 799_000), at(9)));
        assert_eq!(watch.saw_files(262_145, free(GIB, 799_000), QUICK, at(9)), Some(LimitKind::DiskFiles));
        let _ = watch.saw_files(10, free(GIB, 19_000), QUICK, at(20));
        assert!(watch.wants_files(free(GIB, 18_999), at(25)), "the file system has hardly any left");
    }

    #[test]
    fn where_files_have_no_number_they_are_counted_now_and_then() {
        let none = Some(FreeSpace { bytes_free: GIB, files_free: 0, files_total: 0 });
        let mut watch = watch(none);
        let _ = watch.saw_files(0, none, QUICK, at(0));
        assert!(!watch.wants_files(none, at(10)));
        assert!(watch.wants_files(none, at(15)));
    }

    #[test]
    fn the_last_of_a_disk_is_the_owners_whoever_fills_it() {
        let roomy = watch(free(100 * GIB, 1000));
        assert!(!roomy.is_nearly_full(free(GIB, 1000)));
        assert!(roomy.is_nearly_full(free(RESERVE_BYTES - 1, 1000)));
        let small = watch(free(RESERVE_BYTES, 1000));
        assert!(!small.is_nearly_full(free(RESERVE_BYTES / 4, 1000)));
        assert!(small.is_nearly_full(free(RESERVE_BYTES / 4 - 1, 1000)));
        assert!(!watch(None).is_nearly_full(None));
    }
}
