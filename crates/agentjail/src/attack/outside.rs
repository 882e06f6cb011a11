//! The machine around the attempts: jails, lures, and a look at what is left.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use control::network::{self, Mode, Plan, Served};
use egress::{Dialler, HostName, Policy, TrafficLimits};
use jail::{Access, Builder, Engine, Exit, Jail, Network, Outcome, Running, Tree};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::task::TaskTracker;

use super::table::{Kind, LINES, Line};
use super::{Finding, Verdict};

/// How long one attempt may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The sleep of the process that hides: found by its odd length.
const HIDDEN: &str = "86419";

/// Makes every attempt, or those asked for.
pub(super) async fn attack(only: &[String], without: Vec<String>) -> anyhow::Result<Vec<Finding>> {
    let mut config = jail::Config::of_this_program()?;
    let gate = GateWeakness {
        policy: without.iter().any(|name| name == "policy"),
        addresses: without.iter().any(|name| name == "address-check"),
    };
    config.left_out = without;
    let engine = Engine::start(config).await.context("could not start the engine")?;
    let mut findings = Vec::new();
    for line in &LINES {
        if !only.is_empty() && !only.iter().any(|name| name.eq_ignore_ascii_case(line.name)) {
            continue;
        }
        let verdict = match one(&engine, line, gate).await {
            Ok(verdict) => verdict,
            Err(error) => Verdict::NotShown(format!("{error:#}")),
        };
        findings.push(Finding { line: line.name, attack: line.attack, verdict });
    }
    engine.shutdown().await;
    Ok(findings)
}

/// What of the gate is left out, in a build for tests.
#[derive(Debug, Clone, Copy)]
struct GateWeakness {
    policy: bool,
    addresses: bool,
}

async fn one(engine: &Engine, line: &Line, gate: GateWeakness) -> anyhow::Result<Verdict> {
    match line.jail {
        Kind::LauncherDies => launcher_dies(engine).await,
        Kind::HiddenProcesses => hidden(engine, line).await,
        Kind::HostKill => host_kill(engine, line).await,
        Kind::Plain => inside(engine, line, &[], |jail| jail).await,
        Kind::HostileWorkspace => hostile_workspace(engine, line).await,
        Kind::HostSocket => host_socket(engine, line).await,
        Kind::HostPorts => host_ports(engine, line).await,
        Kind::Allowlist => allowlist(engine, line, gate).await,
        Kind::Neighbour => neighbour(engine, line).await,
        Kind::SmallMemory if !engine.offers().memory => Ok(no_controller("memory")),
        Kind::SmallMemory => inside(engine, line, &[], |jail| jail.memory_bytes(64 << 20)).await,
        Kind::FewProcesses if !engine.offers().pids => Ok(no_controller("pids")),
        Kind::FewProcesses => inside(engine, line, &[], |jail| jail.pids(32)).await,
        Kind::SmallTrees => {
            let tree = Tree::Fresh { bytes: 4 << 20, access: Access::ReadWrite };
            inside(engine, line, &[], |jail| jail.output(tree)).await
        }
    }
}

fn no_controller(name: &str) -> Verdict {
    Verdict::NotShown(format!("no cgroup with the {name} controller is delegated here"))
}

/// A jail that makes one attempt with this program, which it has read-only.
fn attempt(line: &Line, arguments: &[String]) -> anyhow::Result<Builder> {
    let program = std::env::current_exe()?;
    let directory: PathBuf = program.parent().context("a directory")?.canonicalize()?;
    let name = program.file_name().context("a name")?.to_string_lossy().into_owned();
    let jail = Jail::builder(format!("/opt/flavors/program/{name}"))
        .args(["attempt", line.name])
        .args(arguments)
        .flavor("program", directory)
        .memory_bytes(512 << 20);
    // What cannot be limited here is said line by line.
    Ok(jail.best_effort())
}

async fn inside(
    engine: &Engine,
    line: &Line,
    arguments: &[String],
    shape: impl FnOnce(Builder) -> Builder,
) -> anyhow::Result<Verdict> {
    let running = shape(attempt(line, arguments)?).spawn(engine).await?;
    let (said, outcome) = finish(running).await?;
    Ok(verdict(line, &said, &outcome))
}

async fn finish(running: Running) -> anyhow::Result<(String, Outcome)> {
    let Running { mut jail, pipes, .. } = running;
    let mut pipes = pipes.context("a command has streams")?;
    let (mut out, mut err) = (String::new(), String::new());
    let (_, _, outcome) = tokio::join!(
        pipes.stdout.read_to_string(&mut out),
        pipes.stderr.read_to_string(&mut err),
        jail.wait(LIMIT)
    );
    Ok((out + &err, outcome))
}

fn verdict(line: &Line, said: &str, outcome: &Outcome) -> Verdict {
    if line.jail == Kind::SmallMemory && outcome.oom_killed && outcome.exit == Exit::Signal(9) {
        return Verdict::Holds("the jail was ended, and nothing else".to_owned());
    }
    let spoken = said.lines().find_map(|line| serde_json::from_str(line).ok());
    spoken.unwrap_or_else(|| {
        let said = said.trim();
        Verdict::NotShown(format!("the attempt ended with {:?}: {said}", outcome.exit))
    })
}

async fn hostile_workspace(engine: &Engine, line: &Line) -> anyhow::Result<Verdict> {
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    for name in ["proc", "tmp", "dev", "output", "home", "etc", "opt", "workspace"] {
        symlink("/", directory.path().join(name))?;
    }
    let path = directory.path().to_owned();
    inside(engine, line, &[], |jail| jail.workspace_directory(path, Access::ReadOnly)).await
}

async fn host_socket(engine: &Engine, line: &Line) -> anyhow::Result<Verdict> {
    let name = format!("agentjail-attack-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(name.as_bytes())?;
    let _listener = UnixListener::bind_addr(&address)?;
    inside(engine, line, &[name], |jail| jail).await
}

/// Answers whoever comes, until it is dropped.
struct Lure {
    tcp: u16,
    udp: u16,
    _tasks: tokio::task::JoinSet<()>,
}

impl Lure {
    async fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("[::]:0").await;
        let listener = match listener {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind("0.0.0.0:0").await?,
        };
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        let (tcp, udp) = (listener.local_addr()?.port(), socket.local_addr()?.port());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(stream.write_all(b"reached").await);
            }
        });
        tasks.spawn(async move {
            let mut datagram = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut datagram).await {
                drop(socket.send_to(b"reached", from).await);
            }
        });
        Ok(Self { tcp, udp, _tasks: tasks })
    }
}

async fn host_ports(engine: &Engine, line: &Line) -> anyhow::Result<Verdict> {
    let lure = Lure::new().await?;
    let ports = [lure.tcp.to_string(), lure.udp.to_string()];
    // Both ways to have no network: with and without a loopback interface.
    let network = Network { loopback: true, ..Network::default() };
    match inside(engine, line, &ports, |jail| jail.network(network)).await? {
        Verdict::Holds(_) => inside(engine, line, &ports, |jail| jail).await,
        other => Ok(other),
    }
}

async fn allowlist(engine: &Engine, line: &Line, gate: GateWeakness) -> anyhow::Result<Verdict> {
    let lure = Lure::new().await?;
    let rule = format!("allowed.test:{}", lure.tcp).parse()?;
    let mut rules = vec![rule, "allowed.test".parse()?];
    if gate.policy {
        rules.extend(["evil.test".parse()?, format!("evil.test:{}", lure.tcp).parse()?]);
    }
    let policy = Policy::new(rules);
    let plan = Plan::new(Mode::Allowlist(policy, TrafficLimits::default()), None)?;
    let running = attempt(line, &[lure.tcp.to_string()])?
        .network(plan.network().clone())
        .spawn(engine)
        .await?;
    let name = HostName::parse("allowed.test")?;
    let mut dialler =
        Dialler { resolve: [(name, vec![[127, 0, 0, 1].into()])].into(), ..Dialler::default() };
    if gate.addresses {
        dialler.allow_private.push("127.0.0.0/8".parse()?);
    }
    let (running, _served) = serve(running, plan, &dialler)?;
    let (said, outcome) = finish(running).await?;
    Ok(verdict(line, &said, &outcome))
}

fn serve(mut running: Running, plan: Plan, dialler: &Dialler) -> anyhow::Result<(Running, Served)> {
    let listeners = std::mem::take(&mut running.listeners);
    let served = network::serve(plan, listeners, dialler, None, &TaskTracker::new())?;
    Ok((running, served))
}

async fn neighbour(engine: &Engine, line: &Line) -> anyhow::Result<Verdict> {
    let network = || Network { loopback: true, ..Network::default() };
    let other = Jail::idle().network(network()).best_effort().spawn(engine).await?;
    let listener =
        jail::Listener { transport: jail::Transport::Tcp, address: ([0, 0, 0, 0], 18_080).into() };
    let socket = TcpListener::from_std(other.jail.listen(listener).await?.into())?;
    let mut answering = tokio::task::JoinSet::new();
    answering.spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            drop(stream.write_all(b"reached").await);
        }
    });
    inside(engine, line, &["18080".to_owned()], |jail| jail.network(network())).await
}

async fn host_kill(engine: &Engine, line: &Line) -> anyhow::Result<Verdict> {
    let mut bystander =
        tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn()?;
    let verdict = inside(engine, line, &[], |jail| jail).await?;
    match bystander.try_wait()? {
        Some(status) => Ok(Verdict::Broken(format!("a process of the machine ended: {status}"))),
        None => Ok(verdict),
    }
}

async fn hidden(engine: &Engine, line: &Line) -> anyhow::Result<Verdict> {
    let found = inside(engine, line, &[], |jail| jail).await?;
    let Verdict::Holds(_) = found else { return Ok(found) };
    for _ in 0..100 {
        if !runs(HIDDEN) {
            return Ok(Verdict::Holds("the jail's end is the end of all that is in it".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Verdict::Broken(format!("`sleep {HIDDEN}` still runs")))
}

/// Whether a process of the machine has a word on its command line.
fn runs(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|found| found == word.as_bytes()))
}

async fn launcher_dies(engine: &Engine) -> anyhow::Result<Verdict> {
    let running = Jail::idle().best_effort().spawn(engine).await?;
    let init = running.jail.pid();
    let launcher = engine.launcher_pid().await.context("a launcher")?;
    let launcher = rustix::process::Pid::from_raw(launcher.cast_signed()).context("a pid")?;
    rustix::process::kill_process(launcher, rustix::process::Signal::KILL)?;
    let gone = tokio::time::timeout(Duration::from_secs(3), running.jail.gone()).await;
    Ok(match gone {
        Ok(()) => Verdict::Holds("the kernel ends it with its launcher".to_owned()),
        Err(_) => Verdict::Broken(format!("init ({init}) outlived its launcher")),
    })
}
