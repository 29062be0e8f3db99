//! The short code that a person carries from the machine's terminal to the approval page.
//!
//! Eight letters of an alphabet without vowels, so that no word can come of it: 20^8 codes, twenty tries a minute, 15 minutes.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use thiserror::Error;

const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LETTERS: usize = 8;

/// A code, kept without its dash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserCode([u8; LETTERS]);

/// The text is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a code has eight letters, like BCDF-GHJK; look at the machine's terminal")]
pub(crate) struct NoUserCode;

impl UserCode {
    /// A random code.
    pub(crate) fn generate() -> Self {
        let mut rng = rand::rng();
        Self(std::array::from_fn(|_| ALPHABET[rng.random_range(0..ALPHABET.len())]))
    }

    /// The eight letters.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }
}

/// `BCDF-GHJK`.
impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.as_str().split_at(LETTERS / 2);
        write!(f, "{first}-{second}")
    }
}

/// As people type it: any case, dashes and spaces anywhere.
impl FromStr for UserCode {
    type Err = NoUserCode;

    fn from_str(text: &str) -> Result<Self, NoUserCode> {
        let typed = text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '–' | '—' | '_' | '.'));
        let letters: Vec<u8> = typed
            .take(LETTERS + 1)
            .map(|c| u8::try_from(c.to_ascii_uppercase()).ok().filter(|byte| ALPHABET.contains(byte)).ok_or(NoUserCode))
            .collect::<Result<_, _>>()?;
        letters.try_into().map(Self).map_err(|_| NoUserCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code: UserCode = "BCDFGHJK".parse().unwrap();
        for typed in ["bcdf-ghjk", " BCDF GHJK ", "Bcdf–Ghjk", "b-c-d-f-g-h-j-k"] {
            assert_eq!(typed.parse(), Ok(code), "{typed}");
        }
        assert_eq!(code.to_string(), "BCDF-GHJK");
        for typed in ["", "BCDF-GHJ", "BCDF-GHJKL", "ACDF-GHJK", "BCDF-GHJ1", "ééééÉÉÉÉ"] {
            assert_eq!(typed.parse::<UserCode>(), Err(NoUserCode), "{typed}");
        }
    }

    #[test]
    fn a_random_code_reads_back_as_itself() {
        for _ in 0..100 {
            let code = UserCode::generate();
            assert_eq!(code.to_string().parse(), Ok(code));
        }
    }
}
