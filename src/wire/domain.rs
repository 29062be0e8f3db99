//! Which names of the internet a job may reach, as owners and jobs write it. Pure.
//!
//! Invariants
//! - `example.com` is that name and no other; `*.example.com` is every name below it, however deep, and not `example.com`.
//! - A pattern is kept as name servers see it: ASCII, lower case, no dot at the end. Other scripts are written in IDNA's form.
//! - What a job names is within what the owner names, or it is refused; nothing is ever both.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Host;

/// Most patterns of one list.
pub const DOMAINS_MAX: usize = 64;
/// Longest name, as name servers take it.
const NAME_BYTES_MAX: usize = 253;

/// A name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainPattern {
    name: String,
    below: bool,
}

impl DomainPattern {
    /// Whether it means `name`, which is in lower case and has no dot at its end.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.below { is_below(name, &self.name) } else { name == self.name }
    }

    /// Whether it means every name that `other` means.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let same = self.below == other.below && self.name == other.name;
        same || (self.below && is_below(&other.name, &self.name))
    }
}

fn is_below(name: &str, above: &str) -> bool {
    name.strip_suffix(above).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
}

/// What a job with the list `asked` may reach where the owner's list is `lent`; an empty list is everything.
///
/// # Errors
/// The first of the job's patterns that the owner's list does not cover.
pub fn within(asked: &[DomainPattern], lent: &[DomainPattern]) -> Result<Vec<DomainPattern>, DomainPattern> {
    if asked.is_empty() {
        return Ok(lent.to_vec());
    }
    let is_lent = |pattern: &DomainPattern| lent.is_empty() || lent.iter().any(|lent| lent.covers(pattern));
    asked.iter().find(|pattern| !is_lent(pattern)).map_or_else(|| Ok(asked.to_vec()), |pattern| Err(pattern.clone()))
}

/// A list in words: `a.example, *.b.example`.
#[must_use]
pub fn in_words(list: &[DomainPattern]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl FromStr for DomainPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("'{}' is no domain; write example.com, or *.example.com for what is below it", text.escape_debug())
        };
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let rest = rest.strip_suffix('.').unwrap_or(rest);
        // The parser of addresses would undo percent signs.
        if rest.contains('%') {
            return Err(wrong());
        }
        match Host::parse(rest) {
            Ok(Host::Domain(name)) if is_host_name(&name) => Ok(Self { name, below }),
            Ok(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)) | Err(_) => Err(wrong()),
        }
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// As a name server takes it, without a dot at its end.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain(text: &str) -> DomainPattern {
        text.parse().unwrap()
    }

    fn list(texts: &[&str]) -> Vec<DomainPattern> {
        texts.iter().map(|text| domain(text)).collect()
    }

    #[test]
    fn a_name_is_that_name_and_a_star_is_what_is_below() {
        let exact = domain("Example.COM.");
        assert!(exact.matches("example.com"));
        for other in ["www.example.com", "xexample.com", "example.com.evil.org", "com", ""] {
            assert!(!exact.matches(other), "{other}");
        }
        let below = domain("*.example.com");
        assert!(below.matches("www.example.com") && below.matches("a.b.example.com"));
        for other in ["example.com", ".example.com", "xexample.com", "wwwexample.com", "example.com.org"] {
            assert!(!below.matches(other), "{other}");
        }
    }

    #[test]
    fn names_are_kept_as_name_servers_see_them_and_others_are_refused() {
        assert_eq!(domain("*.Bücher.example").to_string(), "*.xn--bcher-kva.example");
        let long = format!("{}.example", ["a"; 130].join("."));
        for wrong in [
            "",
            "*",
            "*.",
            "a..b",
            "*.*.a",
            "a.*.b",
            "10.0.0.1",
            "*.1.2.3.4",
            "[::1]",
            "a b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "https://a.b",
            "a.b/c",
            "a:80",
            "%61.b",
            "%",
            &long,
            "a.b..",
        ] {
            assert!(wrong.parse::<DomainPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_job_gets_what_it_names_within_what_the_owner_names() {
        let owner = list(&["*.example.com", "pypi.org"]);
        assert_eq!(within(&[], &owner).unwrap(), owner, "who names none gets the owner's");
        assert_eq!(within(&[], &[]).unwrap(), []);
        let asked = list(&["a.example.com", "*.b.example.com", "*.example.com", "pypi.org"]);
        assert_eq!(within(&asked, &owner).unwrap(), asked);
        assert_eq!(within(&asked, &[]).unwrap(), asked);
        for beyond in ["example.com", "*.pypi.org", "*.com", "example.org"] {
            assert_eq!(within(&list(&["pypi.org", beyond]), &owner).unwrap_err(), domain(beyond));
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_is_matched(
            a in "(\\*\\.)?[a-c](\\.[a-c]){0,3}", b in "(\\*\\.)?[a-c](\\.[a-c]){0,3}", name in "[a-c](\\.[a-c]){0,4}",
        ) {
            let (a, b) = (domain(&a), domain(&b));
            if a.covers(&b) && b.matches(&name) {
                prop_assert!(a.matches(&name), "{a} covers {b}, which means {name}");
            }
        }

        #[test]
        fn any_text_is_read_as_it_is_written_or_refused(text in "\\PC{0,80}") {
            if let Ok(pattern) = text.parse::<DomainPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<DomainPattern>().unwrap(), pattern);
            }
        }
    }
}
