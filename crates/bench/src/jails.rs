//! Starting `/bin/true`: bare, in our jail, and in those of others.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jail::{Builder, Engine, Jail, Listener, Local, Network, Pool, Running, Transport};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::table::{Report, Row};

const ROUNDS: usize = 200;
const AT_ONCE: usize = 16;
/// How long the kernel is given to take down what ran before.
const SETTLE: Duration = Duration::from_millis(5);
/// Jails of a burst: as many as the pool holds.
const BURST: usize = 64;
const BURSTS: usize = 6;
/// Jails one after the other, at sixteen in flight, faster than blanks can be made.
const SUSTAINED: usize = 600;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let bundle = Bundle::new().await?;
    one_at_a_time(report, &bundle).await?;
    many_at_a_time(report).await?;
    at_rest(report).await
}

async fn engine(size: usize, spares: u32) -> anyhow::Result<Engine> {
    let mut config = jail::Config::of_this_program()?;
    config.pool = Pool { size: u32::try_from(size)?, spares, reserve_bytes: 0 };
    Ok(Engine::start(config).await?)
}

async fn one_at_a_time(report: &mut Report, bundle: &Bundle) -> anyhow::Result<()> {
    let (warm, open) = (engine(8, 0).await?, engine(8, 0).await?);
    let (cold, off) = (engine(0, 4).await?, engine(0, 0).await?);
    let mut rows: [Vec<Duration>; 7] = Default::default();
    let allowlist = || start().network(allowlist());
    warm.warm(&start().build()).await?;
    open.warm(&allowlist().build()).await?;
    for round in 0..ROUNDS {
        // Each comes after each of the others equally often: it finds the caches as that left them.
        for step in 0..5 {
            let row = (round + step * (1 + round / 5 % 4)) % 5;
            // Blanks are made when nobody waits, so each is measured when all pools are full again; what a
            // blank costs is in "cold".
            ready(&warm, 8).await?;
            ready(&open, 8).await?;
            tokio::time::sleep(SETTLE).await;
            let took = match row {
                0 => timed(bare()).await?,
                1 => timed(in_jail(&warm, start())).await?,
                2 => timed(in_jail(&open, allowlist())).await?,
                3 => timed(in_jail(&cold, start())).await?,
                _ => timed(in_jail(&off, start())).await?,
            };
            rows[row].push(took);
        }
        // The slow ones less often: a quarter is enough for a median.
        if round % 4 == 0 {
            rows[5].extend(optional(bubblewrap()).await);
            rows[6].extend(optional(bundle.runc(round)).await);
        }
    }
    report.section(
        "Starting a command",
        "`/bin/true`, from the request to its reaped end. Ours has everything in force: seven namespaces, cgroup, \
         Landlock, no capabilities, seccomp, its own root, `/proc` and `/tmp`. Warm: a blank jail was ready. Cold: \
         none was, as for the first jail of its shape, or of its tenant; only a spare, which has a process, \
         a network and a cgroup, but no user, no file systems, no walls. Pool off: nothing was.",
    );
    let names = [
        "fork + exec",
        "agentjail, warm",
        "agentjail, warm, allowlist",
        "agentjail, cold",
        "agentjail, cold, pool off",
        "bubblewrap",
        "runc",
    ];
    let rows = names.into_iter().zip(rows);
    let rows: Vec<Row> = rows.map(|(name, times)| Row { name: name.to_owned(), times }).collect();
    report.times(&rows);
    for engine in [cold, off, warm, open] {
        engine.shutdown().await;
    }
    Ok(())
}

async fn many_at_a_time(report: &mut Report) -> anyhow::Result<()> {
    let warm = engine(BURST, 0).await?;
    warm.warm(&start().build()).await?;
    let mut seconds = [0.0; 3];
    for _ in 0..BURSTS {
        ready(&warm, BURST).await?;
        seconds[0] += in_flight(BURST, bare).await?;
        seconds[1] += in_flight(BURST, || in_jail(&warm, start())).await?;
        seconds[2] += in_flight(BURST, bubblewrap).await.unwrap_or(f64::NAN);
    }
    let jails = f64::from(u32::try_from(BURST * BURSTS)?);
    let burst = seconds.map(|seconds| jails / seconds);
    let mut sustained = [0.0; 2];
    sustained[0] = in_flight(SUSTAINED, bare).await?;
    sustained[1] = in_flight(SUSTAINED, || in_jail(&warm, start())).await?;
    let sustained =
        sustained.map(|seconds| f64::from(u32::try_from(SUSTAINED).unwrap_or(0)) / seconds);
    warm.shutdown().await;
    report.section(
        "Sixteen in flight",
        "A burst of 64 that the pool can serve, six times; then 600 without a pause, which it cannot: those are \
         mostly cold.",
    );
    report.add("\n| | starts/s | × fork + exec |\n| --- | ---: | ---: |\n");
    let rows = [
        ("fork + exec", burst[0], burst[0]),
        ("agentjail, burst", burst[1], burst[0]),
        ("bubblewrap", burst[2], burst[0]),
        ("fork + exec, sustained", sustained[0], sustained[0]),
        ("agentjail, sustained", sustained[1], sustained[0]),
    ];
    for (name, rate, bare) in rows {
        report.add(&format!("| {name} | {rate:.0} | {:.2} |\n", rate / bare));
    }
    Ok(())
}

/// What jails hold that do nothing.
async fn at_rest(report: &mut Report) -> anyhow::Result<()> {
    const JAILS: usize = 32;
    let engine = engine(0, 0).await?;
    let mut jails = Vec::new();
    for _ in 0..JAILS {
        jails.push(Jail::idle().spawn(&engine).await?);
    }
    let (mut proportional, mut counted) = (0, 0);
    for running in &jails {
        proportional += kibibytes(running.jail.pid(), "Pss:")?;
        counted += running.jail.statistics().memory_current_bytes / 1024;
    }
    engine.shutdown().await;
    let each = |sum: u64| sum / JAILS as u64;
    report.section(
        "An idle jail",
        "32 jails that wait for a command: their resident memory (the share of pages they have in common counted \
         once), and what their cgroups are charged for, the kernel's included.",
    );
    report.add("\n| | KiB a jail |\n| --- | ---: |\n");
    report.add(&format!(
        "| resident | {} |\n| charged | {} |\n",
        each(proportional),
        each(counted)
    ));
    Ok(())
}

fn kibibytes(pid: u32, field: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context("a field")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Waits until a pool is full.
async fn ready(engine: &Engine, size: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while engine.blanks().await != Some(size) {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(20), "the pool does not fill");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Sixteen at a time until all are done; gives the seconds it took.
async fn in_flight<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
    count: usize,
    work: impl Fn() -> F,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..count {
        if running.len() == AT_ONCE
            && let Some(done) = running.join_next().await
        {
            done??;
        }
        running.spawn(work());
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(began.elapsed().as_secs_f64())
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}

async fn optional(work: impl Future<Output = anyhow::Result<()>>) -> Option<Duration> {
    timed(work).await.ok()
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

fn in_jail(
    engine: &Engine,
    jail: Builder,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let engine = engine.clone();
    async move {
        let Running { mut jail, pipes, .. } = jail.spawn(&engine).await?;
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

fn start() -> Builder {
    Jail::builder("/bin/true")
}

/// As the control plane asks for an allowlist: every address local, DNS, the HTTP proxy, 80 and 443.
fn allowlist() -> Network {
    let listen = |transport, address: &str| -> Listener {
        Listener { transport, address: address.parse().unwrap_or(([0, 0, 0, 0], 0).into()) }
    };
    Network {
        loopback: true,
        isolated: false,
        local: Local::Everything,
        listeners: vec![
            listen(Transport::Udp, "127.0.0.1:53"),
            listen(Transport::Tcp, "127.0.0.1:53"),
            listen(Transport::Tcp, "127.0.0.1:3128"),
            listen(Transport::Tcp, "[::]:80"),
            listen(Transport::Tcp, "[::]:443"),
        ],
    }
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
