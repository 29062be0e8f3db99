//! Versions of upstream releases and of distributions' packages, and which of two is newer.

use std::cmp::Ordering;

/// An upstream release: `1.2.8`, `v1.4.0-rc.3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    numbers: [u64; 3],
    /// Number of the release candidate; a release has none.
    candidate: Option<u64>,
}

impl Upstream {
    /// Reads the release at the beginning of `text`; what a distribution adds behind it is left out.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (release, rest) = text.split_at(end);
        let mut numbers = [0; 3];
        let mut parts = release.trim_end_matches('.').split('.');
        *numbers.first_mut()? = parts.next()?.parse().ok()?;
        for (place, part) in numbers.iter_mut().skip(1).zip(parts) {
            *place = part.parse().ok()?;
        }
        let candidate = rest.trim_start_matches(['-', '~', '.', '+']).strip_prefix("rc");
        let candidate = candidate.map(|rest| {
            let digits: String = rest.trim_start_matches(['.', '-']).chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        Some(Self { numbers, candidate })
    }

    fn line(&self) -> (u64, u64) {
        let [major, minor, _] = self.numbers;
        (major, minor)
    }

    fn key(&self) -> ([u64; 3], u64) {
        (self.numbers, self.candidate.unwrap_or(u64::MAX))
    }

    /// Whether it is at or past the first fixed release of its own line, or of a line newer than all that are named.
    pub(super) fn is_fixed_by(&self, fixed: &[Self]) -> bool {
        match fixed.iter().find(|first| first.line() == self.line()) {
            Some(first) => self.key() >= first.key(),
            None => fixed.iter().all(|first| self.line() > first.line()),
        }
    }
}

/// Whether a version is of a distribution's package: it carries a packager's revision behind the upstream number.
pub(super) fn is_package(version: &str) -> bool {
    let marks = ["deb", "ubuntu", "+ds", "~ds", "+dfsg", ".el", ".fc", ".amzn", "+b"];
    marks.iter().any(|mark| version.contains(mark))
}

/// Compares two versions of packages as dpkg does: runs of other characters by letters first, `~` before the end, and runs of
/// digits by number; the epoch counts most.
pub(super) fn compare_packages(a: &str, b: &str) -> Ordering {
    let (a_epoch, a) = epoch(a);
    let (b_epoch, b) = epoch(b);
    a_epoch.cmp(&b_epoch).then_with(|| compare_text(a, b))
}

fn epoch(version: &str) -> (u64, &str) {
    version.split_once(':').and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest))).unwrap_or((0, version))
}

fn compare_text(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (a_words, a_rest) = split(a, |c| !c.is_ascii_digit());
        let (b_words, b_rest) = split(b, |c| !c.is_ascii_digit());
        let weights = |words: &str| words.chars().map(weight).chain([0]).collect::<Vec<_>>();
        let by_words = weights(a_words).cmp(&weights(b_words));
        if by_words.is_ne() {
            return by_words;
        }
        let (a_digits, a_next) = split(a_rest, |c| c.is_ascii_digit());
        let (b_digits, b_next) = split(b_rest, |c| c.is_ascii_digit());
        let number = |digits: &str| digits.parse::<u128>().unwrap_or(if digits.is_empty() { 0 } else { u128::MAX });
        let by_number = number(a_digits).cmp(&number(b_digits));
        if by_number.is_ne() {
            return by_number;
        }
        (a, b) = (a_next, b_next);
    }
    Ordering::Equal
}

fn split(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

/// `~` sorts before the end, letters before everything else.
fn weight(c: char) -> i64 {
    match c {
        '~' => -1,
        letter if letter.is_ascii_alphabetic() => i64::from(u32::from(letter)),
        other => i64::from(u32::from(other)) + 0x1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_fixed_by_its_own_line_or_by_being_newer_than_all() {
        let fixed: Vec<_> = ["1.2.8", "1.3.3", "1.4.0-rc.3"].iter().filter_map(|text| Upstream::read(text)).collect();
        let is_fixed = |text: &str| Upstream::read(text).unwrap().is_fixed_by(&fixed);
        for good in ["1.2.8", "1.2.9", "v1.3.3", "1.4.0-rc.3", "1.4.0", "1.5.0-rc.1", "2.0.0"] {
            assert!(is_fixed(good), "{good}");
        }
        for bad in ["1.2.7", "1.3.2", "1.4.0-rc.2", "1.1.15", "1.0.0-rc93", "1.3.3-rc.1"] {
            assert!(!is_fixed(bad), "{bad}");
        }
        assert_eq!(Upstream::read("unknown"), None);
        assert_eq!(Upstream::read(""), None);
    }

    #[test]
    fn packages_are_ordered_as_dpkg_orders_them() {
        for (older, newer) in [
            ("1.1.5+ds1-1", "1.1.5+ds1-1+deb12u1"),
            ("1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1+deb12u2"),
            ("1.1.5+ds1-1+deb12u2", "1.1.5+ds1-1+deb12u10"),
            ("1.0.0~rc93+ds1-5", "1.0.0-1"),
            ("1.1.7-0ubuntu1~22.04.1", "1.1.7-0ubuntu1~22.04.2"),
            ("9", "1:0.1"),
        ] {
            assert_eq!(compare_packages(older, newer), Ordering::Less, "{older} < {newer}");
            assert_eq!(compare_packages(newer, older), Ordering::Greater, "{newer} > {older}");
            assert_eq!(compare_packages(newer, newer), Ordering::Equal);
        }
    }

    #[test]
    fn a_packagers_revision_is_told_from_an_upstream_number() {
        for package in ["1.1.5+ds1-1+deb12u1", "1.1.7-0ubuntu1~22.04.2", "20.10.24+dfsg1", "1.1.12-3.el9"] {
            assert!(is_package(package), "{package}");
        }
        for upstream in ["1.1.12", "1.4.0-rc.3", "v1.1.12-0-g51d5e94", "28.2.2"] {
            assert!(!is_package(upstream), "{upstream}");
        }
    }
}
