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

/// Writes a value as one line of JSON to standard output; for what comes again and again.
///
/// # Errors
/// As [`line()`].
pub fn json_line(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value)
        .map_err(|error| CliError::new(Exit::Error, "the answer cannot be written as JSON").because(error))?;
    line(text)
}

/// Says something about the work on standard error. A closed standard error is nobody's loss.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", for_stderr(&format!("fizz: {}", text.as_ref())));
}

/// Broken between words where a person reads it; one line stays one line for programs.
fn for_stderr(text: &str) -> String {
    match terminal_size::terminal_size_of(io::stderr()) {
        Some((width, _)) => text.lines().map(|line| wrapped(width.0, line)).collect::<Vec<_>>().join("\n"),
        None => text.to_owned(),
    }
}

/// Writes text as it is on standard error.
pub fn aside(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Prints an error and says which code to end with.
#[must_use]
pub fn fail(error: &CliError) -> u8 {
    if !is_reader_gone(error) {
        let name = styled_on(io::stderr().is_terminal(), Style::Bad, "fizz");
        let _ = writeln!(io::stderr().lock(), "{}", for_stderr(&format!("{name}: {error}")));
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

/// A picture of text that is drawn over itself on a terminal, and one below the other where there is none.
#[derive(Debug, Default)]
pub struct Redraw {
    lines: usize,
}

impl Redraw {
    /// Draws `text` in the place of what was drawn before.
    ///
    /// # Errors
    /// As [`line()`].
    pub fn draw(&mut self, text: &str) -> Result<(), CliError> {
        if !stdout_is_terminal() {
            return line(text);
        }
        // What does not fit on the screen cannot be drawn over; its end is left away.
        let rows = terminal_size::terminal_size_of(io::stdout()).map_or(usize::MAX, |(_, rows)| usize::from(rows.0));
        let shown: Vec<&str> = text.lines().take(rows.saturating_sub(1).max(1)).collect();
        let up = if self.lines == 0 { String::new() } else { format!("\x1b[{}A", self.lines) };
        self.lines = shown.len();
        raw(format!("{up}\r\x1b[J{}\n", shown.join("\n")).as_bytes())
    }
}

/// Asks a question that is answered by y or n. Nobody there to answer is an error, not a yes.
///
/// # Errors
/// When standard input is no terminal or cannot be read.
pub fn confirm(question: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::usage("nobody is there to answer").next("give --yes to go on without asking"));
    }
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CliError::new(Exit::Error, "the answer cannot be read").because(error))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// At most `room` characters of `text`: its end, which is what tells images and names apart.
#[must_use]
pub fn shortened(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let tail: String = text.chars().skip(count + 1 - room.max(1)).collect();
    format!("…{tail}")
}

/// Text broken between words so that no line passes `columns`. Accents do not count.
#[must_use]
pub fn wrapped(columns: u16, text: &str) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let width = console_width(word);
        if used > 0 && used + 1 + width > usize::from(columns) {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += width;
    }
    out
}

/// Characters of `word` that take room: what lies between ESC and `m` takes none.
fn console_width(word: &str) -> usize {
    let mut hidden = false;
    let mut width = 0;
    for letter in word.chars() {
        match (hidden, letter) {
            (false, '\x1b') => hidden = true,
            (true, 'm') => hidden = false,
            (true, _) => {}
            (false, _) => width += 1,
        }
    }
    width
}

/// Every line with an accent of its own, so that a pager may cut between them.
#[must_use]
pub fn styled_lines(style: Style, text: &str) -> String {
    text.lines().map(|line| styled(style, line)).collect::<Vec<_>>().join("\n")
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
