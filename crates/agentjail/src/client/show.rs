//! Showing what a server says: tables for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::terminal::sanitised;

/// How to show things.
#[derive(Debug)]
pub(super) struct Show {
    json: bool,
}

/// A column: its head, and what of a row it shows.
pub(super) type Column = (&'static str, &'static str);

impl Show {
    pub(super) fn new(json: bool) -> Self {
        Self { json: json || !std::io::stdout().is_terminal() }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Many: the `rows` of an answer, or the answer itself.
    pub(super) fn list(&self, answer: &Value, columns: &[Column]) {
        if self.json {
            return print(&pretty(answer));
        }
        let none = Vec::new();
        let rows = answer.get("rows").unwrap_or(answer).as_array().unwrap_or(&none);
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(columns.iter().map(|(head, _)| *head));
        for row in rows {
            table.add_row(columns.iter().map(|(_, field)| sanitised(&text(&row[*field]))));
        }
        print(&table.to_string());
        let total = answer["total"].as_u64().unwrap_or_default();
        if total > rows.len() as u64 {
            print(&format!("{} of {total}; see --limit and --offset", rows.len()));
        }
    }

    /// One: its fields, a line each; on no terminal, JSON.
    pub(super) fn one(&self, of: &Value) {
        let Some(fields) = of.as_object().filter(|_| !self.json) else {
            return print(&pretty(of));
        };
        let width = fields.keys().map(String::len).max().unwrap_or_default();
        for (name, value) in fields {
            let value = sanitised(&text(value));
            print(&format!("{name:width$}  {value}"));
        }
    }

    /// What a script wants: the id alone, on a terminal too, with a word for people beside it.
    pub(super) fn made(&self, of: &Value, word: &str) {
        if self.json {
            return print(&pretty(of));
        }
        let id = text(&of["id"]);
        print(&format!("{id}  {}", sanitised(word)));
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A reader that closes early (`| head`) is no error of ours.
pub(super) fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
