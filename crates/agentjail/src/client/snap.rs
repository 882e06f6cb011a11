//! `agentjail snap`

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};

use super::connection::{Connection, part};
use super::show::{Column, Show, print};
use super::ws::{Page, without_nulls};
use crate::terminal::sanitised;

const COLUMNS: [Column; 6] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("WORKSPACE", "workspace_id"),
    ("FILES", "files"),
    ("BYTES", "size_bytes"),
    ("CREATED", "created_at"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Snap {
    /// Take one, of a running command too
    Create {
        /// Id of the workspace
        workspace: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
    },
    /// List them, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Of one workspace
        #[arg(long)]
        workspace: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show one
    Show {
        /// As it is listed
        id: String,
    },
    /// List what is in one, with hashes
    Files {
        /// Of the snapshot
        id: String,
    },
    /// Tell what changed from one to another
    Diff {
        /// Id of the snapshot to begin with
        old: String,
        /// Id of the one to compare with it
        new: String,
    },
    /// Download one as a tar archive
    Tar {
        /// Of the snapshot
        id: String,
        /// Instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read all of one, and compare it with its hashes
    Verify {
        /// Of the snapshot
        id: String,
    },
    /// Make a workspace of one
    Restore {
        /// Of the snapshot
        id: String,
        /// Of the new workspace
        #[arg(long)]
        label: Option<String>,
    },
    /// Remove some
    #[command(visible_alias = "rm")]
    Remove {
        /// As they are listed
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

pub(super) async fn run(connection: &Connection, show: &Show, command: Snap) -> anyhow::Result<()> {
    match command {
        Snap::Create { workspace, name } => {
            let path = format!("/v1/workspaces/{}/snapshot", part(&workspace)?);
            let taken = connection.post(&path, &without_nulls(json!({ "name": name }))).await?;
            let word = format!("{} files, {} bytes", taken["files"], taken["size_bytes"]);
            show.made(&taken, &word);
        }
        Snap::List { workspace, page } => {
            let mut query = page.query();
            query.extend(workspace.map(|workspace| ("workspace_id", workspace)));
            show.list(&connection.get("/v1/snapshots", &query).await?, &COLUMNS);
        }
        Snap::Show { id } => show.one(&connection.get(&path(&id, "")?, &[]).await?),
        Snap::Files { id } => {
            let manifest = connection.get(&path(&id, "/manifest")?, &[]).await?;
            let columns = [
                ("ROOT", "root"),
                ("TYPE", "type"),
                ("BYTES", "size"),
                ("BLAKE3", "hash"),
                ("PATH", "path"),
            ];
            let both = ["entries", "output"].iter().filter_map(|field| manifest[field].as_array());
            let all: Vec<Value> = both.flatten().cloned().collect();
            show.list(&Value::Array(all), &columns);
        }
        Snap::Diff { old, new } => diff(connection, show, &old, &new).await?,
        Snap::Tar { id, output } => tar(connection, &id, output).await?,
        Snap::Verify { id } => {
            let told = connection.post(&path(&id, "/verify")?, &Value::Null).await?;
            show.one(&told);
            if told["intact"] != true {
                bail!("{id} is not what it was");
            }
        }
        Snap::Restore { id, label } => {
            let snapshot = connection.get(&path(&id, "")?, &[]).await?;
            let parent = snapshot["workspace_id"].as_str().context("it is of no workspace")?;
            let body = json!({ "snapshot_id": id, "parent_workspace_id": parent, "label": label });
            let made =
                connection.post("/v1/workspaces/from-snapshot", &without_nulls(body)).await?;
            show.made(&made, made["label"].as_str().unwrap_or_default());
        }
        Snap::Remove { ids } => {
            for id in ids {
                connection.delete(&path(&id, "")?).await?;
            }
        }
    }
    Ok(())
}

fn path(id: &str, tail: &str) -> anyhow::Result<String> {
    Ok(format!("/v1/snapshots/{}{tail}", part(id)?))
}

async fn diff(connection: &Connection, show: &Show, old: &str, new: &str) -> anyhow::Result<()> {
    let query = [("against", old.to_owned()), ("limit", "10000".to_owned())];
    let diff = connection.get(&path(new, "/diff")?, &query).await?;
    if show.is_json() {
        show.one(&diff);
        return Ok(());
    }
    let line = |sign: char, entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        print(&format!("{sign} {}/{}", text("root"), sanitised(&text("path"))));
    };
    for (sign, field, of) in [('-', "removed", ""), ('~', "changed", "after"), ('+', "added", "")] {
        for entry in diff[field].as_array().into_iter().flatten() {
            line(sign, if of.is_empty() { entry } else { &entry[of] });
        }
    }
    let totals = &diff["totals"];
    print(&format!(
        "{} added, {} changed, {} removed",
        totals["added"], totals["changed"], totals["removed"]
    ));
    Ok(())
}

async fn tar(connection: &Connection, id: &str, output: Option<PathBuf>) -> anyhow::Result<()> {
    if output.is_none() && std::io::stdout().is_terminal() {
        bail!("an archive is no text for a terminal: name a file with --output, or redirect");
    }
    let size = connection.get(&path(id, "")?, &[]).await?["size_bytes"].as_u64();
    let response = connection.send(connection.request(Method::GET, &path(id, "/tar")?)).await?;
    let bar = match output {
        // Hidden where nobody looks.
        Some(_) => ProgressBar::new(size.unwrap_or_default()),
        None => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {bytes} of about {total_bytes} {bytes_per_sec}",
    )?);
    // Beside its place until it is whole: half an archive must not look like one.
    let (mut to, fresh): (Box<dyn std::io::Write>, _) = match &output {
        None => (Box::new(std::io::stdout().lock()), None),
        Some(path) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(std::path::Path::new("."));
            let (file, fresh) = tempfile::NamedTempFile::new_in(directory)?.into_parts();
            (Box::new(file), Some(fresh))
        }
    };
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.context("the archive broke off: see `snap verify`")?;
        to.write_all(&piece)?;
        bar.inc(piece.len() as u64);
    }
    to.flush()?;
    bar.finish_and_clear();
    if let (Some(path), Some(fresh)) = (output, fresh) {
        fresh.persist(path)?;
    }
    Ok(())
}
