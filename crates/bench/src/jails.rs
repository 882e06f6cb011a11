//! Starting `/bin/true`: bare, in our jail, and in those of others.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jail::{Engine, Jail, Running, Start};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::table::{Report, Row};

const ROUNDS: usize = 200;
const AT_ONCE: usize = 16;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let engine = Engine::start(jail::Config::of_this_program()?).await?;
    let bundle = Bundle::new().await?;
    let mut rows: [Vec<Duration>; 4] = Default::default();
    for round in 0..ROUNDS {
        rows[0].push(timed(bare()).await?);
        rows[1].push(timed(in_jail(&engine)).await?);
        // The slow ones less often: a fifth is enough for a median.
        if round % 5 == 0 {
            rows[2].extend(optional(bubblewrap()).await);
            rows[3].extend(optional(bundle.runc(round)).await);
        }
    }
    let [bare_times, jail_times, bubblewrap_times, runc_times] = rows;
    report.section(
        "Starting a command",
        "`/bin/true`, from the request to its reaped end. Ours is a cold jail with everything in force: seven \
         namespaces, cgroup, Landlock, no capabilities, seccomp, its own root, `/proc` and `/tmp`.",
    );
    report.times(&[
        Row { name: "fork + exec".to_owned(), times: bare_times },
        Row { name: "agentjail, cold".to_owned(), times: jail_times },
        Row { name: "bubblewrap".to_owned(), times: bubblewrap_times },
        Row { name: "runc".to_owned(), times: runc_times },
    ]);
    let mut rows: [Vec<Duration>; 2] = Default::default();
    for _ in 0..12 {
        rows[0].extend(at_once(bare).await?);
        rows[1].extend(at_once(|| in_jail(&engine)).await?);
    }
    let [bare_times, jail_times] = rows;
    report.section("Sixteen at a time", "The same, sixteen started at once; the time of each.");
    report.times(&[
        Row { name: "fork + exec".to_owned(), times: bare_times },
        Row { name: "agentjail, cold".to_owned(), times: jail_times },
    ]);
    engine.shutdown().await;
    Ok(())
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}

async fn optional(work: impl Future<Output = anyhow::Result<()>>) -> Option<Duration> {
    timed(work).await.ok()
}

async fn at_once<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
    work: impl Fn() -> F,
) -> anyhow::Result<Vec<Duration>> {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        all.spawn(timed(work()));
    }
    all.join_all().await.into_iter().collect()
}

async fn bare() -> anyhow::Result<()> {
    run("/bin/true", &[]).await
}

async fn bubblewrap() -> anyhow::Result<()> {
    let flags = [
        "--unshare-all",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "/bin/true",
    ];
    run("bwrap", &flags).await
}

async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().await?;
    anyhow::ensure!(status.success(), "{program}: {status}");
    Ok(())
}

fn in_jail(engine: &Engine) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let engine = engine.clone();
    async move {
        let Running { mut jail, pipes, .. } = engine.spawn(start()).await?;
        let mut pipes = pipes.context("a command has streams")?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let limit = Duration::from_secs(10);
        let (_, _, outcome) = tokio::join!(
            pipes.stdout.read_to_end(&mut out),
            pipes.stderr.read_to_end(&mut err),
            jail.wait(limit)
        );
        anyhow::ensure!(outcome.exit_code() == 0, "{outcome:?} {}", String::from_utf8_lossy(&err));
        Ok(())
    }
}

fn start() -> Start {
    Jail::builder("/bin/true").build()
}

/// A directory that runc can run: the machine's `/usr` in a root of its own.
struct Bundle {
    directory: tempfile::TempDir,
}

impl Bundle {
    async fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let root = directory.path().join("rootfs");
        for name in ["usr", "proc", "dev", "tmp", "sys"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            std::os::unix::fs::symlink(target, root.join(link))?;
        }
        let bundle = directory.path().to_string_lossy().into_owned();
        // Writes config.json; without runc there is none, and its row says so.
        if run("runc", &["spec", "--bundle", &bundle]).await.is_ok() {
            configure(&directory.path().join("config.json"))?;
        }
        Ok(Self { directory })
    }

    async fn runc(&self, round: usize) -> anyhow::Result<()> {
        let bundle = self.directory.path().to_string_lossy().into_owned();
        let name = format!("agentjail-bench-{}-{round}", std::process::id());
        run("runc", &["run", "--bundle", &bundle, &name]).await
    }
}

fn configure(file: &Path) -> anyhow::Result<()> {
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    let mounts = config["mounts"].as_array_mut().context("runc's mounts")?;
    mounts.push(json!({ "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] }));
    // Not every machine lets runc make its cgroups; ours are measured with theirs all the same.
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    Ok(std::fs::write(file, serde_json::to_vec(&config)?)?)
}
