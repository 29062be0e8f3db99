//! The only place that prints.
//!
//! Invariants
//! - Results go to standard output, everything said about them to standard error; so `fizz … | jq` always works.
//! - A reader that went away ([`CliError`] with [`Printed::Closed`]) ends the program quietly, never with a panic.
//! - No line of a table is wider than the terminal, nor wider than 80 columns where there is none.
//! - Colour and motion only on a terminal, and none with `NO_COLOR`.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::errors::{CliError, Exit};

/// Width of everything that is not on a terminal.
pub const COLUMNS_DEFAULT: u16 = 80;

/// The reader of standard output went away; there is nothing left to do and nothing to complain about.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub struct ReaderGone;

/// Writes text and a line's end to standard output.
///
/// # Errors
/// [`ReaderGone`] inside when the pipe was closed; another sentence when the disk is full.
pub fn line(text: impl AsRef<str>) -> Result<(), CliError> {
    raw(format!("{}\n", text.as_ref()).as_bytes())
}

/// Writes bytes as they are to standard output.
///
/// # Errors
/// As [`line()`].
pub fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| write_error(&error))
}

/// What a failed write to standard output means.
#[must_use]
pub fn write_error(error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        CliError::new(Exit::Job(EXIT_PIPE), "nobody reads the output any more").because(ReaderGone)
    } else {
        CliError::new(Exit::Error, format!("the output cannot be written: {error}"))
    }
}

/// What a shell reports for a program that a closed pipe ended (128 + SIGPIPE).
const EXIT_PIPE: u8 = 141;

/// Whether an error is only that the reader went away.
#[must_use]
pub fn is_reader_gone(error: &CliError) -> bool {
    use std::error::Error as _;
    error.source().is_some_and(|source| source.is::<ReaderGone>())
}

/// Writes a value as indented JSON to standard output.
///
/// # Errors
/// As [`line()`].
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::new(Exit::Error, "the answer cannot be written as JSON").because(error))?;
    line(text)
}

/// Says something about the work on standard error. A closed standard error is nobody's loss.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "fizz: {}", text.as_ref());
}

/// Writes text as it is on standard error.
pub fn aside(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Prints an error and says which code to end with.
#[must_use]
pub fn fail(error: &CliError) -> u8 {
    if !is_reader_gone(error) {
        let _ = writeln!(io::stderr().lock(), "{}: {error}", styled_on(io::stderr().is_terminal(), Style::Bad, "fizz"));
    }
    error.exit().code()
}

/// Prints what clap has to say, help or complaint, and says which code to end with.
#[must_use]
pub fn parse_error(error: &clap::Error) -> u8 {
    let _ = error.print();
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// Whether a person watches standard error.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether a person watches standard output.
#[must_use]
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns of the terminal behind standard output; [`COLUMNS_DEFAULT`] where there is none.
#[must_use]
pub fn columns() -> u16 {
    if stdout_is_terminal() { console_columns().unwrap_or(COLUMNS_DEFAULT).max(40) } else { COLUMNS_DEFAULT }
}

fn console_columns() -> Option<u16> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0)
}

/// The few accents there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Headings and what matters.
    Strong,
    /// What can be skipped.
    Faint,
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// It failed.
    Bad,
}

/// `text` with an accent, when standard output is a terminal that wants colour.
#[must_use]
pub fn styled(style: Style, text: &str) -> String {
    styled_on(stdout_is_terminal(), style, text)
}

fn styled_on(terminal: bool, style: Style, text: &str) -> String {
    if !terminal || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) {
        return text.to_owned();
    }
    let code = match style {
        Style::Strong => "1",
        Style::Faint => "2",
        Style::Good => "32",
        Style::Warn => "33",
        Style::Bad => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table without borders, wrapped to `columns`; the heading in capitals as `docker ps` has it.
#[must_use]
pub fn table(columns: u16, heads: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    table.force_no_tty();
    table.set_header(heads.iter().map(|(head, _)| Cell::new(head.to_uppercase())));
    for row in rows {
        table.add_row(row.iter().map(|cell| Cell::new(printable(cell))));
    }
    let last = heads.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
        if heads.get(index).is_some_and(|(_, align)| *align == Align::Right) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Pairs of a name and a value below each other, the values wrapped beside their names.
#[must_use]
pub fn pairs(columns: u16, pairs: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    table.force_no_tty();
    for (name, value) in pairs {
        table.add_row([Cell::new(name), Cell::new(printable(value))]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == 0 { 2 } else { 0 }));
    }
    table.trim_fmt()
}

/// Text from elsewhere without the control characters that could paint over the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_table_passes_its_width() {
        let heads = [("id", Align::Left), ("image", Align::Left), ("cost", Align::Right)];
        let row = vec!["0198c0de-7a1b-7000-8000-0123456789ab".to_owned(), "x/".repeat(90), "$0.0012".to_owned()];
        let text = table(80, &heads, &[row.clone(), row]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("ID "), "{text}");
        let text = pairs(80, &[("why", "long words ".repeat(30))]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn control_characters_of_others_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\nc");
    }
}
