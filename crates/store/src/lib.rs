//! Rows: what the program remembers. One file a table, SQL in plain sight.
//!
//! The SQL is written for SQLite and PostgreSQL alike (`$1` placeholders, `ON CONFLICT`, text keys,
//! whole numbers for times), so that the second backend needs no second set of queries. Today the
//! backend is SQLite, embedded, in one file.
//!
//! Every query takes whose rows it may see as its first argument. Nothing here opens what is sealed.

mod agents;
mod audit;
mod credentials;
mod database;
mod host_ids;
mod jails;
mod keys;
mod layers;
mod sessions;
mod snapshots;
mod time;
mod usage;
mod workspaces;

pub use agents::AgentRow;
pub use audit::{AuditFilter, AuditRow, NewAuditRow, Transfer};
pub use credentials::Credential;
pub use database::{Store, StoreError};
pub use jails::{JailEnd, JailFilter, JailKind, JailRow, JailStatistics, JailStatus, NewJail};
pub use keys::{ApiKeyRow, NewApiKey};
pub use layers::{Layer, LayerTotals};
pub use sessions::{Session, Token};
pub use snapshots::{Snapshot, SnapshotFilter, SnapshotRow, SnapshotTotals};
pub use time::now;
pub use usage::Usage;
pub use workspaces::{Change, Domain, NewLayer, Target, Workspace};

use ids::TenantId;

/// Whose rows a query may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    Of(&'a TenantId),
    /// An admin's view.
    Everyone,
}

impl<'a> Whose<'a> {
    /// As a query parameter: null means everyone's.
    fn parameter(self) -> Option<&'a str> {
        match self {
            Self::Of(tenant) => Some(tenant.as_str()),
            Self::Everyone => None,
        }
    }
}

/// Part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    pub offset: u64,
}

/// Rows of one page, and how many there are on all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    pub rows: Vec<T>,
    pub total: u64,
}

/// A pattern for `LIKE … ESCAPE '\'` that finds `text` anywhere.
fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.extend(character.to_lowercase());
    }
    pattern.push('%');
    pattern
}

/// SQL has no unsigned numbers; ours stay far below the limit.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
