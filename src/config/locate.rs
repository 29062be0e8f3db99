//! Finds the line and column of a mistake in the configuration, and the key that was probably meant.

use std::ops::Range;

use figment::error::Kind;
use toml_edit::{Document, Item, Value};

use super::ConfigError;

/// A configuration text that is valid TOML, with the places of its keys.
pub(super) struct Located<'a> {
    document: Document<&'a str>,
    name: &'a str,
}

impl<'a> Located<'a> {
    /// Reads the text; a syntax error is told with its place.
    pub(super) fn parse(text: &'a str, name: &'a str) -> Result<Self, ConfigError> {
        let document = Document::parse(text).map_err(|error| ConfigError::Syntax {
            at: place(name, text, error.span().map_or(0, |s| s.start)),
            why: error.message().replace('\n', ", "),
        })?;
        Ok(Self { document, name })
    }

    /// An error of reading the values, with its place.
    pub(super) fn explain(&self, error: &figment::Error) -> ConfigError {
        let (path, unknown) = whole_path(error);
        let start = find(self.document.as_item(), &path, unknown).map_or(0, |span| span.start);
        describe(place(self.name, self.document.raw(), start), &path, error)
    }
}

/// An error that a variable brought in.
pub(super) fn explain_variable(variable: &str, error: &figment::Error) -> ConfigError {
    describe(variable.to_owned(), &whole_path(error).0, error)
}

/// The path to what is wrong, and whether it is an unknown key.
fn whole_path(error: &figment::Error) -> (Vec<String>, bool) {
    if let Kind::UnknownField(field, _) = &error.kind {
        (with_leaf(&error.path, field), true)
    } else {
        (error.path.clone(), false)
    }
}

fn with_leaf(path: &[String], field: &str) -> Vec<String> {
    let mut path = path.to_vec();
    // Some versions of the reader name the field in the path already.
    if path.last().is_none_or(|last| last != field) {
        path.push(field.to_owned());
    }
    path
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the reader's other errors have words of their own")]
fn describe(at: String, path: &[String], error: &figment::Error) -> ConfigError {
    // Places in a list are told by line and column; their numbers would only confuse.
    let key = path.iter().filter(|p| p.parse::<usize>().is_err()).cloned().collect::<Vec<_>>().join(".");
    match &error.kind {
        Kind::UnknownField(field, known) => ConfigError::UnknownKey { at, key, hint: hint(field, known) },
        Kind::MissingField(field) => {
            ConfigError::BadValue { at, what: format!("'{key}' "), why: format!("needs a '{field}'") }
        }
        Kind::Message(why) => ConfigError::BadValue { at, what: format!("'{key}': "), why: why.clone() },
        other => ConfigError::BadValue { at, what: format!("'{key}': "), why: other.to_string() },
    }
}

/// What was probably meant, or what there is; follows a sentence.
pub(crate) fn hint(field: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (if k.starts_with(field) { 0 } else { distance(field, k) }, k)).min();
    match nearest.filter(|(far, _)| *far <= 2.min(field.len() / 2) || far * 2 < field.len()) {
        Some((_, key)) => format!("; did you mean '{key}'?"),
        None => format!("; the keys here are {}", known.join(", ")),
    }
}

/// Edits (insert, delete, replace) between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The bytes of a key (`of_key`) or of its value. Falls back to the deepest level that exists.
fn find(root: &Item, path: &[String], of_key: bool) -> Option<Range<usize>> {
    let mut item = Level::Item(root);
    let mut span = None;
    for (depth, part) in path.iter().enumerate() {
        let Some((key_span, next)) = item.step(part) else { break };
        let last = depth + 1 == path.len();
        span = if last && of_key { key_span.or_else(|| next.span()) } else { next.span() }.or(span);
        item = next;
    }
    span
}

#[derive(Clone, Copy)]
enum Level<'a> {
    Item(&'a Item),
    Table(&'a toml_edit::Table),
    Value(&'a Value),
}

impl<'a> Level<'a> {
    fn span(self) -> Option<Range<usize>> {
        match self {
            Self::Item(item) => item.span(),
            Self::Table(table) => table.span(),
            Self::Value(value) => value.span(),
        }
    }

    /// One part deeper: the key's own bytes, where there are any, and what it holds.
    fn step(self, part: &str) -> Option<(Option<Range<usize>>, Level<'a>)> {
        let table = match self {
            Self::Table(table) => Some(table),
            Self::Item(item) => item.as_table(),
            Self::Value(_) => None,
        };
        if let Some(table) = table {
            return table.get_key_value(part).map(|(key, item)| (key.span(), Level::Item(item)));
        }
        let index = part.parse::<usize>().ok();
        if let (Self::Item(Item::ArrayOfTables(tables)), Some(index)) = (self, index) {
            return tables.get(index).map(|table| (None, Level::Table(table)));
        }
        let value = match self {
            Self::Item(item) => item.as_value()?,
            Self::Value(value) => value,
            Self::Table(_) => return None,
        };
        if let (Some(array), Some(index)) = (value.as_array(), index) {
            return array.get(index).map(|value| (None, Level::Value(value)));
        }
        let (key, item) = value.as_inline_table()?.get_key_value(part)?;
        Some((key.span(), Level::Item(item)))
    }
}

/// `name:line:column`, both from 1; the column counts characters.
fn place(name: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("{name}:{line}:{column}")
}
