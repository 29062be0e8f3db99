//! Where secrets come from: a file, the environment or a prompt without echo. Never the command line, which every process
//! on the machine can read.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use super::errors::{CliError, Exit};
use crate::wire::Secret;

/// Longest secret that is read; a larger file is the wrong file.
const BYTES_MAX: u64 = 4096;

/// Takes the secret from `file`, else from the variable `name`, else from the file named by the variable `<name>_FILE`.
///
/// # Errors
/// When a file was named and cannot be used.
pub fn find(file: Option<&Path>, name: &str) -> Result<Option<Secret>, CliError> {
    if let Some(path) = file {
        return from_file(path).map(Some);
    }
    if let Some(value) = std::env::var(name).ok().filter(|value| !value.trim().is_empty()) {
        return Ok(Some(Secret::new(value.trim())));
    }
    match std::env::var_os(format!("{name}_FILE")).filter(|value| !value.is_empty()) {
        Some(path) => from_file(&PathBuf::from(path)).map(Some),
        None => Ok(None),
    }
}

/// Reads a secret from a file; `-` is standard input.
///
/// # Errors
/// When it cannot be read, is empty or is no text.
pub fn from_file(path: &Path) -> Result<Secret, CliError> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| {
        CliError::new(Exit::Config, format!("the file {} cannot be read", path.display()))
            .because(error)
            .next("check its path and that you may read it")
    };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    }
    let secret = text.trim();
    if secret.is_empty() || secret.contains(char::is_whitespace) {
        return Err(CliError::new(
            Exit::Config,
            format!("the file {} must hold one secret and nothing else", path.display()),
        ));
    }
    Ok(Secret::new(secret))
}

/// Asks for a secret on the terminal without showing it; `None` when nobody is there or nothing was typed.
///
/// # Errors
/// When the terminal cannot be read.
pub fn ask(question: &str) -> Result<Option<Secret>, CliError> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let typed = rpassword::prompt_password(format!("{question}: "))
        .map_err(|error| CliError::new(Exit::Error, "the terminal cannot be read").because(error))?;
    Ok(Some(typed.trim()).filter(|text| !text.is_empty()).map(Secret::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_holds_one_word_and_its_errors_name_the_file_not_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "fzk_abc\n").unwrap();
        assert_eq!(from_file(&path).unwrap().expose(), "fzk_abc");
        std::fs::write(&path, "two words").unwrap();
        let error = from_file(&path).unwrap_err().to_string();
        assert!(error.contains("key") && !error.contains("two words"), "{error}");
        std::fs::write(&path, "").unwrap();
        assert!(from_file(&path).is_err());
        assert!(from_file(&folder.path().join("absent")).is_err());
    }
}
