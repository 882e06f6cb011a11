//! `agentjail ws`

use std::num::NonZeroU16;

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::connection::{Connection, part};
use super::show::{Column, Show};

const COLUMNS: [Column; 6] = [
    ("ID", "id"),
    ("LABEL", "label"),
    ("REPOSITORY", "git_repo"),
    ("LAST EXEC", "last_exec_at"),
    ("PAUSED", "paused_at"),
    ("CREATED", "created_at"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Ws {
    /// Make one
    Create(Box<Create>),
    /// List them, newest first
    #[command(visible_alias = "ls")]
    List(Page),
    /// Show one
    Show {
        /// As it is listed
        id: String,
    },
    /// Give one another label
    Rename {
        /// As it is listed
        id: String,
        /// The new one
        label: String,
    },
    /// Make workspaces that begin as this one is now
    Fork {
        /// Of the workspace to begin with
        id: String,
        /// How many, from 1 to 16
        #[arg(short = 'n', long, default_value_t = 1)]
        count: u64,
        /// Of each new one
        #[arg(long)]
        label: Option<String>,
    },
    /// Put one back to one of its snapshots
    Restore {
        /// Of the workspace
        id: String,
        /// Of its snapshot
        snapshot: String,
    },
    /// Remove some, with what runs in them; their snapshots stay
    #[command(visible_alias = "rm")]
    Remove {
        /// As they are listed
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Page {
    /// Found anywhere in the text of a row
    #[arg(short, long)]
    pub(super) q: Option<String>,
    /// How many rows
    #[arg(long, default_value_t = 50)]
    pub(super) limit: u64,
    /// How many to leave out before them
    #[arg(long, default_value_t = 0)]
    pub(super) offset: u64,
    /// For admins: whose
    #[arg(long)]
    pub(super) tenant: Option<String>,
}

impl Page {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query =
            vec![("limit", self.limit.to_string()), ("offset", self.offset.to_string())];
        query.extend(self.q.clone().map(|q| ("q", q)));
        query.extend(self.tenant.clone().map(|tenant| ("tenant", tenant)));
        query
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// A name for people
    #[arg(long)]
    label: Option<String>,
    /// Repository to begin with: `https://HOST/PATH`
    #[arg(long, value_name = "URL")]
    git: Option<String>,
    /// Its branch, tag or commit
    #[arg(long = "ref", value_name = "REF", requires = "git")]
    reference: Option<String>,
    /// Service whose key clones it
    #[arg(long, value_name = "SERVICE", requires = "git")]
    credential: Option<String>,
    /// Runtime to put in; repeatable
    #[arg(long, value_name = "NAME")]
    flavor: Vec<String>,
    /// Root file system, instead of the server's own
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// What its commands may reach; repeatable. Without any: nothing
    #[arg(long, value_name = "DOMAIN")]
    allow: Vec<String>,
    /// Let its commands reach each other over loopback, and previews reach them
    #[arg(long, conflicts_with = "allow")]
    loopback: bool,
    /// Memory of each command [default: 512]
    #[arg(long, value_name = "MB")]
    memory_mb: Option<u64>,
    /// Processor time of each command, 100 for one processor [default: 100]
    #[arg(long, value_name = "PERCENT")]
    cpu_percent: Option<u64>,
    /// Processes and threads of each command [default: 64]
    #[arg(long, value_name = "N")]
    max_pids: Option<u64>,
    /// Time until a command is killed [default: 300]
    #[arg(long, value_name = "SECS")]
    timeout_secs: Option<u64>,
    /// Put it aside after this time without a command
    #[arg(long, value_name = "SECS")]
    idle_timeout_secs: Option<u64>,
    /// Host name that the gateway sends to a port inside: `NAME=PORT`; repeatable
    #[arg(long, value_name = "NAME=PORT")]
    domain: Vec<String>,
}

pub(super) async fn run(connection: &Connection, show: &Show, command: Ws) -> anyhow::Result<()> {
    match command {
        Ws::Create(create) => {
            let made = connection.post("/v1/workspaces", &body(*create)?).await?;
            show.made(&made, made["label"].as_str().unwrap_or_default());
        }
        Ws::List(page) => {
            show.list(&connection.get("/v1/workspaces", &page.query()).await?, &COLUMNS);
        }
        Ws::Show { id } => {
            let path = format!("/v1/workspaces/{}", part(&id)?);
            show.one(&connection.get(&path, &[]).await?);
        }
        Ws::Rename { id, label } => {
            let path = format!("/v1/workspaces/{}", part(&id)?);
            let request = connection.request(Method::PATCH, &path).json(&json!({ "label": label }));
            show.one(&connection.json(request).await?);
        }
        Ws::Fork { id, count, label } => {
            let path = format!("/v1/workspaces/{}/fork", part(&id)?);
            let body = without_nulls(json!({ "count": count, "label": label }));
            let forked = connection.post(&path, &body).await?;
            show.list(&forked["forks"], &COLUMNS[..2]);
        }
        Ws::Restore { id, snapshot } => {
            let path = format!("/v1/workspaces/{}/restore", part(&id)?);
            show.one(&connection.post(&path, &json!({ "snapshot_id": snapshot })).await?);
        }
        Ws::Remove { ids } => {
            for id in ids {
                connection.delete(&format!("/v1/workspaces/{}", part(&id)?)).await?;
            }
        }
    }
    Ok(())
}

fn body(create: Create) -> anyhow::Result<Value> {
    let network = match (create.loopback, create.allow.is_empty()) {
        (true, _) => json!({ "mode": "loopback" }),
        (false, true) => Value::Null,
        (false, false) => json!({ "mode": "allowlist", "domains": create.allow }),
    };
    let git = create.git.map(|repo| {
        without_nulls(
            json!({ "repo": repo, "ref": create.reference, "credential": create.credential }),
        )
    });
    let mut domains = Vec::new();
    for text in create.domain {
        let Some((name, Ok(port))) =
            text.split_once('=').map(|(name, port)| (name, port.parse::<NonZeroU16>()))
        else {
            bail!("--domain {text}: write NAME=PORT, the port from 1 to 65535");
        };
        domains.push(json!({ "domain": name, "vm_port": port }));
    }
    Ok(without_nulls(json!({
        "label": create.label,
        "git": git,
        "flavors": (!create.flavor.is_empty()).then_some(create.flavor),
        "image": create.image,
        "network": network,
        "memory_mb": create.memory_mb,
        "cpu_percent": create.cpu_percent,
        "max_pids": create.max_pids,
        "timeout_secs": create.timeout_secs,
        "idle_timeout_secs": create.idle_timeout_secs,
        "domains": (!domains.is_empty()).then_some(domains),
    })))
}

/// The fields that were said.
pub(super) fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    value
}
