//! Writing decisions down without making the request wait.
//!
//! One task owns the audit table. Rows reach it through a bounded queue, in order, and are written
//! many at a time. A row is queued before the client sees the response, and a reader flushes first,
//! so what a client has seen is always found. When the queue is full, requests wait: an exchange
//! that cannot be written down does not happen.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use store::{NewAuditRow, Store, StoreError, Transfer};
use tokio::sync::{mpsc, oneshot};

/// Rows that may wait to be written.
const QUEUE: usize = 8192;

/// Rows written in one transaction.
const BATCH: usize = 512;

/// How long to wait before trying again when the database fails.
const RETRY: Duration = Duration::from_millis(250);

/// How often a batch is tried before it is given up and logged instead.
const TRIES: u32 = 20;

enum Note {
    Decision { number: u64, row: NewAuditRow, goes_on: bool },
    Ended { number: u64, transfer: Transfer },
    Flush(oneshot::Sender<()>),
}

/// The way to the audit table.
#[derive(Debug)]
pub struct Journal {
    notes: mpsc::Sender<Note>,
    next: AtomicU64,
}

/// A decision whose exchange goes on.
#[derive(Debug)]
pub(crate) struct Entry {
    number: u64,
    notes: mpsc::WeakSender<Note>,
}

impl Journal {
    /// Starts the writer.
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer ends with the journal, which holds the only way to it; flush waits for it"
    )]
    pub fn open(store: Store) -> Self {
        let (notes, queue) = mpsc::channel(QUEUE);
        drop(tokio::spawn(Writer { store, open: HashMap::new() }.run(queue)));
        Self { notes, next: AtomicU64::new(0) }
    }

    /// Writes down a decision that ends its exchange.
    pub(crate) async fn refuse(&self, row: NewAuditRow) {
        self.note(row, false).await;
    }

    /// Writes down a decision whose exchange goes on.
    pub(crate) async fn begin(&self, row: NewAuditRow) -> Entry {
        let number = self.note(row, true).await;
        Entry { number, notes: self.notes.downgrade() }
    }

    /// Waits until everything queued so far is in the table.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.notes.send(Note::Flush(done)).await.is_ok() {
            drop(wait.await);
        }
    }

    async fn note(&self, row: NewAuditRow, goes_on: bool) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.notes.send(Note::Decision { number, row, goes_on }).await.is_err() {
            tracing::error!("an audit row was noted after the journal was closed");
        }
        number
    }
}

impl Entry {
    /// Notes what the exchange carried. Called where nothing can wait: if the queue is full, the
    /// figures are lost, the decision is not.
    pub(crate) fn end(&self, transfer: Transfer) {
        let note = Note::Ended { number: self.number, transfer };
        if let Some(notes) = self.notes.upgrade()
            && notes.try_send(note).is_err()
        {
            tracing::warn!("the figures of one audited exchange were lost: the queue is full");
        }
    }
}

struct Writer {
    store: Store,
    /// Row ids of exchanges that go on, by number. As many as there are open streams.
    open: HashMap<u64, i64>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Note>) {
        let mut notes = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut notes, BATCH).await > 0 {
            self.write(std::mem::take(&mut notes)).await;
        }
    }

    async fn write(&mut self, notes: Vec<Note>) {
        let (mut rows, mut begun, mut ended, mut flushes) = (vec![], vec![], vec![], vec![]);
        for note in notes {
            match note {
                Note::Decision { number, row, goes_on } => {
                    begun.push(goes_on.then_some(number));
                    rows.push(row);
                }
                Note::Ended { number, transfer } => ended.push((number, transfer)),
                Note::Flush(done) => flushes.push(done),
            }
        }
        if !rows.is_empty() {
            let ids = persist("audit rows", || self.store.append_audit(&rows)).await;
            let ids = ids.unwrap_or_default();
            self.open
                .extend(begun.into_iter().zip(ids).filter_map(|(number, id)| Some((number?, id))));
        }
        let ended: Vec<(i64, Transfer)> = ended
            .into_iter()
            .filter_map(|(number, transfer)| Some((self.open.remove(&number)?, transfer)))
            .collect();
        if !ended.is_empty() {
            persist("audit figures", || self.store.end_transfers(&ended)).await;
        }
        for done in flushes {
            // A reader that went away does not wait.
            let _ = done.send(());
        }
    }
}

/// Tries until it works: a database that is away for a moment loses no row.
async fn persist<T, F>(what: &str, attempt: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    for _ in 0..TRIES {
        match attempt().await {
            Ok(done) => return Some(done),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "could not write {what}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    None
}
