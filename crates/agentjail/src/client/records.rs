//! `agentjail session`, `cred`, `jails`, `audit`, `keys`, `backup`.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::{Connection, part};
use super::show::{Column, Show};
use super::ws::{Page, without_nulls};

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// Mint phantom tokens for services
    Create {
        /// `openai`, `anthropic`, `github`, `stripe`, or one that the server was given with --provider
        #[arg(required = true)]
        services: Vec<String>,
        /// Time until they stop working [default: they work until the session is closed]
        #[arg(long, value_name = "SECS")]
        ttl_secs: Option<u64>,
        /// Paths that a service's token may reach: `SERVICE=GLOB`; repeatable
        #[arg(long, value_name = "SERVICE=GLOB")]
        scope: Vec<String>,
    },
    /// List them, newest first
    #[command(visible_alias = "ls")]
    List,
    /// Show one, with its environment
    Show {
        /// As it is listed
        id: String,
    },
    /// Close some: their tokens stop working at once
    Close {
        /// As they are listed
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cred {
    /// Keep a real key, read from standard input
    Put {
        /// `openai`, `anthropic`, `github`, `stripe`, or one that the server was given with --provider
        service: String,
    },
    /// List what is kept, by fingerprint
    #[command(visible_alias = "ls")]
    List,
    /// Remove one: its phantom tokens stop working at once
    #[command(visible_alias = "rm")]
    Remove {
        /// As it is listed
        service: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Jails {
    /// List what ran, newest first
    #[command(visible_alias = "ls")]
    List {
        /// `running`, `completed` or `error`
        #[arg(long)]
        status: Option<String>,
        /// `run`, `exec`, `fork`, `stream` or `workspace`
        #[arg(long)]
        kind: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show one row, with the end of its output
    Show {
        /// As it is listed
        id: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Of one session, by its id
    #[arg(long)]
    session: Option<String>,
    /// For one service
    #[arg(long)]
    service: Option<String>,
    /// How many rows, the newest
    #[arg(long, default_value_t = 100)]
    limit: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make one; it is shown once
    Create {
        /// `admin` or `operator`
        #[arg(long, default_value = "operator")]
        role: String,
        /// Whose [default: the asking key's own]
        #[arg(long)]
        tenant: Option<String>,
        /// A name for people
        #[arg(long)]
        label: Option<String>,
        /// Time until it stops working [default: it works until it is revoked]
        #[arg(long, value_name = "SECS")]
        ttl_secs: Option<u64>,
    },
    /// List them, newest first
    #[command(visible_alias = "ls")]
    List,
    /// End some, from the next request on
    Revoke {
        /// As they are listed
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// A directory that is not there yet, on the server's machine
    #[arg(long, value_name = "DIR")]
    to: String,
}

const SESSIONS: [Column; 4] =
    [("ID", "id"), ("SERVICES", "services"), ("EXPIRES", "expires_at"), ("CREATED", "created_at")];
const CREDENTIALS: [Column; 4] = [
    ("TENANT", "tenant_id"),
    ("SERVICE", "service"),
    ("FINGERPRINT", "fingerprint"),
    ("UPDATED", "updated_at"),
];
const JAILS: [Column; 7] = [
    ("ID", "id"),
    ("KIND", "kind"),
    ("STATUS", "status"),
    ("EXIT", "exit_code"),
    ("MS", "duration_ms"),
    ("STARTED", "started_at"),
    ("LABEL", "label"),
];
const AUDIT: [Column; 7] = [
    ("AT", "at"),
    ("SESSION", "session_id"),
    ("SERVICE", "service"),
    ("METHOD", "method"),
    ("STATUS", "status"),
    ("REFUSED", "reject_reason"),
    ("PATH", "path"),
];
const KEYS: [Column; 6] = [
    ("ID", "id"),
    ("TENANT", "tenant"),
    ("ROLE", "role"),
    ("LABEL", "label"),
    ("LAST USED", "last_used_at"),
    ("REVOKED", "revoked_at"),
];

pub(super) async fn session(
    connection: &Connection,
    show: &Show,
    command: Session,
) -> anyhow::Result<()> {
    match command {
        Session::Create { services, ttl_secs, scope } => {
            let mut scopes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for entry in &scope {
                let (service, glob) = entry
                    .split_once('=')
                    .with_context(|| format!("--scope {entry}: write SERVICE=GLOB"))?;
                scopes.entry(service).or_default().push(glob);
            }
            let body = json!({ "services": services, "ttl_secs": ttl_secs, "scopes": scopes });
            show.one(&connection.post("/v1/sessions", &without_nulls(body)).await?);
        }
        Session::List => show.list(&connection.get("/v1/sessions", &[]).await?, &SESSIONS),
        Session::Show { id } => {
            show.one(&connection.get(&format!("/v1/sessions/{}", part(&id)?), &[]).await?);
        }
        Session::Close { ids } => {
            for id in ids {
                connection.delete(&format!("/v1/sessions/{}", part(&id)?)).await?;
            }
        }
    }
    Ok(())
}

pub(super) async fn cred(
    connection: &Connection,
    show: &Show,
    command: Cred,
) -> anyhow::Result<()> {
    match command {
        Cred::Put { service } => {
            if std::io::stdin().is_terminal() {
                eprintln!("the key, then Ctrl-D:");
            }
            let mut secret = String::new();
            std::io::stdin().take(64 * 1024).read_to_string(&mut secret)?;
            let secret = secret.trim_end_matches(['\r', '\n']);
            if secret.is_empty() {
                bail!("no key came on standard input");
            }
            let body = json!({ "service": service, "secret": secret });
            show.one(&connection.post("/v1/credentials", &body).await?);
        }
        Cred::List => show.list(&connection.get("/v1/credentials", &[]).await?, &CREDENTIALS),
        Cred::Remove { service } => {
            connection.delete(&format!("/v1/credentials/{}", part(&service)?)).await?;
        }
    }
    Ok(())
}

pub(super) async fn jails(
    connection: &Connection,
    show: &Show,
    command: Jails,
) -> anyhow::Result<()> {
    match command {
        Jails::List { status, kind, page } => {
            let mut query = page.query();
            query.extend(status.map(|status| ("status", status)));
            query.extend(kind.map(|kind| ("kind", kind)));
            show.list(&connection.get("/v1/jails", &query).await?, &JAILS);
        }
        Jails::Show { id } => show.one(&connection.get(&format!("/v1/jails/{id}"), &[]).await?),
    }
    Ok(())
}

pub(super) async fn audit(
    connection: &Connection,
    show: &Show,
    flags: Audit,
) -> anyhow::Result<()> {
    let mut query = vec![("limit", flags.limit.to_string())];
    query.extend(flags.session.map(|session| ("session_id", session)));
    query.extend(flags.service.map(|service| ("service", service)));
    show.list(&connection.get("/v1/audit", &query).await?, &AUDIT);
    Ok(())
}

pub(super) async fn keys(
    connection: &Connection,
    show: &Show,
    command: Keys,
) -> anyhow::Result<()> {
    match command {
        Keys::Create { role, tenant, label, ttl_secs } => {
            let body =
                json!({ "role": role, "tenant": tenant, "label": label, "ttl_secs": ttl_secs });
            show.one(&connection.post("/v1/keys", &without_nulls(body)).await?);
        }
        Keys::List => show.list(&connection.get("/v1/keys", &[]).await?, &KEYS),
        Keys::Revoke { ids } => {
            for id in ids {
                connection.delete(&format!("/v1/keys/{}", part(&id)?)).await?;
            }
        }
    }
    Ok(())
}

pub(super) async fn backup(
    connection: &Connection,
    show: &Show,
    flags: Backup,
) -> anyhow::Result<()> {
    let bar = indicatif::ProgressBar::new_spinner().with_message("copying");
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let done = connection.post("/v1/backup", &json!({ "directory": flags.to })).await;
    bar.finish_and_clear();
    show.one(&done?);
    Ok(())
}
