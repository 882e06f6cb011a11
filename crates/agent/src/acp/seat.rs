//! Which process a session is with. One that was begun with variables of its own has a process of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::envelope::Envelope;
use crate::problem::Problem;

/// Bytes of names and values: what a program can be given, with room for the rest.
const LONGEST: usize = 128 * 1024;

/// Sessions of a server that have variables of their own; one more, and another goes on without.
const MOST: usize = 1000;

/// The process of an agent, or of one session.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    agent: String,
    key: String,
    env: Env,
}

impl Seat {
    /// The process of all sessions with this agent.
    pub(super) fn shared(agent: &str) -> Self {
        Self { agent: agent.to_owned(), key: agent.to_owned(), env: Env::default() }
    }

    /// A process for one session, told from others by a number.
    pub(super) fn own(agent: &str, env: Env, number: u64) -> Self {
        Self { agent: agent.to_owned(), key: format!("{agent}#{number}"), env }
    }

    pub(super) fn agent(&self) -> &str {
        &self.agent
    }

    /// Names the process among those of a server.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn env(&self) -> &BTreeMap<String, String> {
        &self.env.0
    }

    pub(super) fn is_own(&self) -> bool {
        self.key != self.agent
    }
}

/// Variables of a session. They may be secrets: they print themselves nowhere, and are in no journal.
#[derive(Clone, Default)]
pub(super) struct Env(BTreeMap<String, String>);

impl std::fmt::Debug for Env {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "[{} variables]", self.0.len())
    }
}

impl Env {
    fn read(value: Value, place: &str) -> Result<Self, Problem> {
        let wrong = |text: &str| Problem::invalid(format!("params{place}/env {text}"));
        let env: BTreeMap<String, String> =
            serde_json::from_value(value).map_err(|_| wrong("must be an object of strings"))?;
        let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        if bytes > LONGEST {
            return Err(wrong(&format!("is longer than {LONGEST} bytes")));
        }
        for (name, value) in &env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(wrong(
                    "has a variable that cannot be: no `=` in a name, no NUL anywhere",
                ));
            }
        }
        Ok(Self(env))
    }
}

/// The sessions of a server that have a seat of their own. Kept in memory alone.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<HashMap<String, Seat>>,
}

impl Seats {
    pub(super) fn of(&self, session: Option<&str>) -> Option<Seat> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.get(session?).cloned()
    }

    /// A session was begun.
    pub(super) fn take(&self, session: Option<&str>, seat: Seat) {
        let Some(session) = session.filter(|_| seat.is_own()) else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= MOST {
            let another = taken.keys().next().cloned();
            drop(another.and_then(|another| taken.remove(&another)));
        }
        drop(taken.insert(session.to_owned(), seat));
    }
}

/// Takes a session's environment out of the message that begins it: `_meta.env`, or the Python client's
/// `sessionInit.env`.
pub(super) fn without_env(envelope: Envelope) -> Result<(Envelope, Option<Env>), Problem> {
    if !matches!(envelope.method().as_deref(), Some("session/new" | "session/create"))
        || !envelope.mentions("\"env\"")
    {
        return Ok((envelope, None));
    }
    let mut params = envelope.params();
    let mut found = None;
    for place in ["/_meta", "/sessionInit", "/sessionInit/_meta"] {
        let Some(Value::Object(members)) = params.pointer_mut(place) else { continue };
        if let Some(env) = members.remove("env") {
            found = Some(Env::read(env, place)?);
        }
    }
    Ok((envelope.with("params", &params), found))
}
