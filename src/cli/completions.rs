//! Completion scripts and manual pages, made from the command line's own description.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::errors::{CliError, EXIT_CODES, Exit};
use super::{description, output};

/// Arguments of `fizz completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
bash:  fizz completions bash > ~/.local/share/bash-completion/completions/fizz
zsh:   fizz completions zsh > ~/.zfunc/_fizz
fish:  fizz completions fish > ~/.config/fish/completions/fizz.fish")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of `fizz man`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Read it:     fizz man | man -l -
Install it:  fizz man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for every command into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints a completion script.
///
/// # Errors
/// When it cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut description(), "fizz", &mut script);
    output::raw(&script)?;
    Ok(0)
}

/// Prints the manual page, or writes all pages into a folder.
///
/// # Errors
/// When they cannot be written.
pub fn man(args: &ManArgs) -> Result<u8, CliError> {
    let main = description().after_long_help(EXIT_CODES);
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(main)
            .render(&mut page)
            .map_err(|error| CliError::new(Exit::Error, "the manual page cannot be made").because(error))?;
        output::raw(&page)?;
        return Ok(0);
    };
    std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(main, folder)).map_err(|error| {
        CliError::new(Exit::Error, format!("the manual pages cannot be written to {}", folder.display()))
            .because(error)
            .next("give a folder that you may write to")
    })?;
    output::note(format!("manual pages written to {}", folder.display()));
    Ok(0)
}
