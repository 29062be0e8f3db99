//! Changing fizz.toml by program: only what has to change, comments and order kept. Pure.

use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TomlError, Value, value};

/// The text of a configuration file with a coordinator before all others; `None` when it lists that address already.
///
/// # Errors
/// When the text is no TOML.
pub fn with_coordinator(text: &str, url: &str, ca_file: Option<&Path>) -> Result<Option<String>, TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let ca_file = ca_file.map(|path| path.display().to_string());
    match document.get_mut("coordinators") {
        Some(Item::ArrayOfTables(tables)) => {
            if tables.iter().any(|table| table.get("url").and_then(Item::as_str).is_some_and(|u| same(u, url))) {
                return Ok(None);
            }
            *tables = before(new_table(url, ca_file), tables);
        }
        Some(Item::Value(Value::Array(array))) => {
            let listed = |entry: &Value| {
                entry.as_inline_table().and_then(|t| t.get("url")).and_then(Value::as_str).is_some_and(|u| same(u, url))
            };
            if array.iter().any(listed) {
                return Ok(None);
            }
            let mut entry = InlineTable::new();
            entry.insert("url", url.into());
            if let Some(file) = ca_file {
                entry.insert("ca_file", file.into());
            }
            array.insert(0, entry);
        }
        Some(_) | None => {
            let mut tables = ArrayOfTables::new();
            tables.push(new_table(url, ca_file));
            document.insert("coordinators", Item::ArrayOfTables(tables));
        }
    }
    Ok(Some(document.to_string()))
}

fn new_table(url: &str, ca_file: Option<String>) -> Table {
    let mut table = Table::new();
    table.insert("url", value(url));
    if let Some(file) = ca_file {
        table.insert("ca_file", value(file));
    }
    table
}

/// Tables are written in the order of their positions, those of one position as they are listed.
fn before(mut first: Table, others: &ArrayOfTables) -> ArrayOfTables {
    first.set_position(others.iter().next().and_then(Table::position));
    let mut tables = ArrayOfTables::new();
    tables.push(first);
    for table in others {
        tables.push(table.clone());
    }
    tables
}

fn same(listed: &str, url: &str) -> bool {
    listed.trim_end_matches('/').eq_ignore_ascii_case(url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn urls(text: &str) -> Vec<String> {
        let config = Config::parse(text, "fizz.toml", |_| None).unwrap();
        config.coordinators.iter().map(|c| c.url.as_str().to_owned()).collect()
    }

    #[test]
    fn an_empty_file_gets_a_coordinator_and_its_authority() {
        let text = with_coordinator("", "https://a:1", Some(Path::new("/ca.pem"))).unwrap().unwrap();
        let config = Config::parse(&text, "fizz.toml", |_| None).unwrap();
        assert_eq!(config.coordinators[0].url.as_str(), "https://a:1");
        assert_eq!(config.coordinators[0].ca_file.as_deref(), Some(Path::new("/ca.pem")));
    }

    #[test]
    fn comments_and_everything_else_stay() {
        let before = "# mine\nname = \"attic\" # top\n\n[offer] # lend\ncpus = 2\n";
        let after = with_coordinator(before, "https://a:1", None).unwrap().unwrap();
        for part in ["# mine", "name = \"attic\" # top", "[offer] # lend", "cpus = 2"] {
            assert!(after.contains(part), "{after}");
        }
        assert_eq!(urls(&after), ["https://a:1"]);
    }

    #[test]
    fn the_new_one_goes_before_the_others_in_both_ways_of_writing_them() {
        let tables =
            "[[coordinators]]\nurl = \"https://b:1\"\n\n[offer]\ncpus = 1\n\n[[coordinators]]\nurl = \"https://c:1\"\n";
        let inline = "coordinators = [{ url = \"https://b:1\" }, { url = \"https://c:1\" }]\n";
        for text in [tables, inline] {
            let after = with_coordinator(text, "https://a:1", None).unwrap().unwrap();
            assert_eq!(urls(&after), ["https://a:1", "https://b:1", "https://c:1"], "{after}");
        }
    }

    #[test]
    fn an_address_that_is_listed_changes_nothing() {
        for text in ["[[coordinators]]\nurl = \"https://a:1/\"\n", "coordinators = [{ url = \"https://A:1\" }]\n"] {
            assert_eq!(with_coordinator(text, "https://a:1", None).unwrap(), None);
        }
        assert!(with_coordinator("= broken", "https://a:1", None).is_err());
    }
}
