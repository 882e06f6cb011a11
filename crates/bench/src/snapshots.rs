//! Snapshots, forks and restores through the API, beside what people use instead.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::proxy::Server;
use crate::table::{Report, Row, ms};

/// Files of 4 KiB, 100 a directory.
const SIZES: [u32; 3] = [1_000, 20_000, 200_000];
/// The size that aims are for.
const USUAL: u32 = 20_000;
const ROUNDS: usize = 21;

const FILL: &str = "import os, sys
for n in range(int(sys.argv[1])):
    if n % 100 == 0: os.makedirs('tree/%d' % (n // 100), exist_ok=True)
    open('tree/%d/%d' % (n // 100, n), 'wb').write(os.urandom(16) * 256)";

/// One file in a hundred.
const CHANGE: &str = "import os, sys
for n in range(0, int(sys.argv[1]), 100): open('tree/%d/%d' % (n // 100, n), 'wb').write(os.urandom(16) * 256)";

struct Client {
    http: reqwest::Client,
    server: Server,
}

impl Client {
    /// Sends a request; gives its answer and how long it took.
    async fn post(&self, path: &str, body: Value) -> anyhow::Result<(Value, Duration)> {
        let began = Instant::now();
        let request = self.http.post(format!("{}{path}", self.server.api)).bearer_auth("bench");
        let response = request.json(&body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        anyhow::ensure!(status.is_success(), "{path}: {status} {text}");
        Ok((serde_json::from_str(&text)?, began.elapsed()))
    }

    async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let request = self.http.delete(format!("{}{path}", self.server.api)).bearer_auth("bench");
        drop(request.send().await?.error_for_status()?);
        Ok(())
    }

    async fn python(&self, workspace: &str, script: &str, argument: u32) -> anyhow::Result<()> {
        let body = json!({ "cmd": "python3", "args": ["-c", script, argument.to_string()] });
        let (result, _) = self.post(&format!("/v1/workspaces/{workspace}/exec"), body).await?;
        anyhow::ensure!(result["exit_code"] == 0, "{result}");
        Ok(())
    }
}

fn id(of: &Value) -> anyhow::Result<String> {
    Ok(of["id"].as_str().context("an id")?.to_owned())
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let server = Server::start("http://127.0.0.1:1").await?;
    let client = Client { http: reqwest::Client::builder().no_proxy().build()?, server };
    report.section(
        "Snapshots, forks and restores",
        "Through the API, on files of 4 KiB. *First* hashes everything; *1 % changed* and *unchanged* are of an idle \
         workspace. Fork and restore are the time until the new workspace can be used.",
    );
    report.add(
        "\n| files | first | unchanged | 1 % changed | fork | fork \u{d7} 16 | restore | first command after |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for files in SIZES {
        report.add(&size(&client, files).await?);
    }
    report.add("\nMedians.\n");
    running(&client, report).await?;
    peers(&client, report).await?;
    hashing(report).await
}

async fn size(client: &Client, files: u32) -> anyhow::Result<String> {
    let body = json!({ "memory_mb": 4096, "timeout_secs": 600 });
    let workspace = id(&client.post("/v1/workspaces", body).await?.0)?;
    client.python(&workspace, FILL, files).await?;
    let take = format!("/v1/workspaces/{workspace}/snapshot");
    let (base, first) = client.post(&take, json!({})).await?;
    let rounds = if files > USUAL { 5 } else { ROUNDS };
    let (mut unchanged, mut changed, mut fork, mut forks, mut restore, mut after) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        unchanged.push(client.post(&take, json!({})).await?.1);
    }
    for _ in 0..rounds.min(7) {
        client.python(&workspace, CHANGE, files).await?;
        changed.push(client.post(&take, json!({})).await?.1);
    }
    for _ in 0..rounds {
        let path = format!("/v1/workspaces/{workspace}/fork");
        for (count, times) in [(1, &mut fork), (16, &mut forks)] {
            let (forked, took) = client.post(&path, json!({ "count": count })).await?;
            times.push(took);
            for fork in forked["forks"].as_array().context("forks")? {
                client.delete(&format!("/v1/workspaces/{}", id(fork)?)).await?;
            }
        }
        let body = json!({ "snapshot_id": base["id"], "parent_workspace_id": workspace });
        let (made, took) = client.post("/v1/workspaces/from-snapshot", body).await?;
        restore.push(took);
        let made = format!("/v1/workspaces/{}", id(&made)?);
        let (_, took) = client.post(&format!("{made}/exec"), json!({ "cmd": "true" })).await?;
        after.push(took);
        client.delete(&made).await?;
    }
    client.delete(&format!("/v1/workspaces/{workspace}")).await?;
    let cells = [vec![first], unchanged, changed, fork, forks, restore, after];
    let cells: Vec<String> = cells.into_iter().map(|times| ms(median(times))).collect();
    Ok(format!("| {files} | {} |\n", cells.join(" | ")))
}

/// How long a command stands still while it is snapshotted.
async fn running(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let body = json!({ "memory_mb": 4096, "timeout_secs": 600 });
    let workspace = id(&client.post("/v1/workspaces", body).await?.0)?;
    client.python(&workspace, FILL, USUAL).await?;
    let take = format!("/v1/workspaces/{workspace}/snapshot");
    client.post(&take, json!({})).await?;
    let script = "import time\nwhile True:\n  open('log', 'a').write('x'); time.sleep(0.01)";
    let path = format!("/v1/workspaces/{workspace}/exec");
    let body = json!({ "cmd": "python3", "args": ["-c", script] });
    let mut frozen = Vec::new();
    let work = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..51 {
            let (taken, _) = client.post(&take, json!({})).await?;
            frozen.push(Duration::from_secs_f64(taken["freeze_ms"].as_f64().context("ms")? / 1e3));
        }
        client.delete(&format!("/v1/workspaces/{workspace}")).await
    };
    let (ended, worked) = tokio::join!(client.post(&path, body), work);
    worked?;
    drop(ended);
    report.add(&format!(
        "\nA command that writes to a log, in a workspace of {USUAL} files, stands still for {} (p50) while it is \
         snapshotted, {} at most of {}.\n",
        ms(median(frozen.clone())),
        ms(frozen.iter().max().copied().unwrap_or_default()),
        frozen.len()
    ));
    Ok(())
}

async fn peers(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let tree = directory.path().join("from");
    std::fs::create_dir(&tree)?;
    let filled = Command::new("python3")
        .args(["-c", FILL, &USUAL.to_string()])
        .current_dir(&tree)
        .status()
        .await?;
    anyhow::ensure!(filled.success());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let from = at("from");
    let secret =
        [("RESTIC_PASSWORD", "x"), ("HOME", "/nonexistent"), ("XDG_CACHE_HOME", "/nonexistent")];
    let repository = at("restic");
    let restic = |words: &[&str]| {
        let mut all = vec!["restic", "--no-cache", "-q", "-r", &repository];
        all.extend_from_slice(words);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    timed(&restic(&["init"]), &secret).await?;
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut rows = vec![
        ("`cp -a`", words(&format!("cp -a {from} TO")), Vec::new()),
        ("`cp -a --reflink=auto`", words(&format!("cp -a --reflink=auto {from} TO")), Vec::new()),
        ("`tar` to a file", words(&format!("tar cf TO -C {from} .")), Vec::new()),
        ("`restic backup`, nothing changed", restic(&["backup", &from]), Vec::new()),
    ];
    timed(&restic(&["backup", &from]), &secret).await?;
    let body = json!({ "memory_mb": 4096, "timeout_secs": 600 });
    let workspace = id(&client.post("/v1/workspaces", body).await?.0)?;
    client.python(&workspace, FILL, USUAL).await?;
    let fork = format!("/v1/workspaces/{workspace}/fork");
    let mut forks = Vec::new();
    // What earlier sections removed is written down first, and nothing is removed in between: a file system
    // takes long to give out again what it has just been given back.
    timed(&words("sync"), &[]).await?;
    for round in 0..5 {
        for (n, (_, command, times)) in rows.iter_mut().enumerate() {
            let to = at(&format!("to-{round}-{n}"));
            let command: Vec<String> = command
                .iter()
                .map(|word| if word == "TO" { to.clone() } else { word.clone() })
                .collect();
            times.extend(timed(&command, &secret).await?);
        }
        forks.push(client.post(&fork, json!({ "count": 1 })).await?.1);
    }
    let mut all: Vec<Row> =
        rows.into_iter().map(|(name, _, times)| Row { name: name.to_owned(), times }).collect();
    all.push(Row { name: "agentjail, fork".to_owned(), times: forks });
    report.add(&format!("\nBeside what copies: {USUAL} files, warm.\n"));
    report.times(&all);
    Ok(())
}

/// The first hash of one large file, by as many threads as b3sum takes.
async fn hashing(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let files = directory.path().join("files");
    std::fs::create_dir(&files)?;
    let big = files.join("big");
    let made = Command::new("sh")
        .args(["-c", "head -c 1073741824 /dev/urandom > \"$0\""])
        .arg(&big)
        .status()
        .await?;
    anyhow::ensure!(made.success());
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        theirs.extend(timed(&["b3sum".to_owned(), big.display().to_string()], &[]).await?);
        let (files, manifest) = (files.clone(), directory.path().join("manifest"));
        let pool = snapshot::Pool::new(directory.path().join("pool"));
        let began = Instant::now();
        tokio::task::spawn_blocking(move || snapshot::index(&files, &manifest, &pool)).await??;
        ours.push(began.elapsed());
    }
    report.add("\nThe first hash of 1 GiB, in the page cache.\n");
    report.times(&[
        Row { name: "`b3sum`".to_owned(), times: theirs },
        Row { name: "agentjail, manifest of a tree with one file".to_owned(), times: ours },
    ]);
    Ok(())
}

/// How long a program takes; nothing if it is not installed.
async fn timed(command: &[String], variables: &[(&str, &str)]) -> anyhow::Result<Option<Duration>> {
    let (program, arguments) = command.split_first().context("a program")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    match command.status().await {
        Ok(status) => {
            anyhow::ensure!(status.success(), "{program}: {status}");
            Ok(Some(began.elapsed()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
