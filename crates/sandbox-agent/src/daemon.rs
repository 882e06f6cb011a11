//! `sandbox-agent daemon`: a server in the background, one for each host and port.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command as Program, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::server::Access;
use crate::{api, place};

/// How long a server may take to come up, and to end.
const UP: Duration = Duration::from_secs(15);
const DOWN: Duration = Duration::from_secs(10);

/// What the status says when there is no server, as service managers have it.
const NOT_RUNNING: u8 = 3;

/// A server in the background
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start one, and wait until it answers
    Start(StartFlags),
    /// End it, and wait until it has
    Stop(Address),
    /// Tell whether it runs: exit code 0 if it does, 3 if not
    Status(Address),
}

#[derive(Debug, Args)]
pub(crate) struct StartFlags {
    #[command(flatten)]
    address: Address,
    /// Replace one that another version of this program started
    #[arg(long)]
    upgrade: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Address {
    #[arg(short = 'H', long, default_value = "127.0.0.1", value_name = "HOST")]
    host: String,
    #[arg(short, long, default_value_t = 2468, value_name = "PORT")]
    port: u16,
}

impl Address {
    fn url(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        // Reached where it listens, on this machine.
        let host = if host == "0.0.0.0" { "127.0.0.1".to_owned() } else { host };
        format!("http://{host}:{}", self.port)
    }

    fn file(&self, kind: &str) -> PathBuf {
        let name = format!("daemon-{}-{}.{kind}", self.host.replace(['/', ':'], "_"), self.port);
        place::data(&place::environment()).join("daemon").join(name)
    }

    /// The process that was started here, if it still runs.
    fn running(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.file("pid")).ok()?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw)?;
        let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
        // The number may be another program's by now.
        let words: Vec<&str> = line.split('\0').collect();
        let ours = words.contains(&"server") && words.contains(&self.port.to_string().as_str());
        (test_kill_process(pid).is_ok() && ours).then_some(pid)
    }

    /// Two who start or stop at once do so one after the other.
    fn lock(&self) -> anyhow::Result<fs::File> {
        let path = self.file("lock");
        let directory = path.parent().map(ToOwned::to_owned).unwrap_or_default();
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let file = fs::File::options().create(true).append(true).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }
}

pub(crate) fn daemon(access: Access, command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Start(flags) => {
            let _lock = flags.address.lock()?;
            start(access, flags)
        }
        Command::Stop(address) => {
            let _lock = address.lock()?;
            stop(address).map(|()| ExitCode::SUCCESS)
        }
        Command::Status(address) => Ok(status(address)),
    }
}

fn status(address: &Address) -> ExitCode {
    match address.running() {
        Some(pid) => {
            eprintln!("running: {} (pid {})", address.url(), pid.as_raw_nonzero());
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("not running: {}", address.url());
            ExitCode::from(NOT_RUNNING)
        }
    }
}

fn start(access: Access, flags: &StartFlags) -> anyhow::Result<ExitCode> {
    let address = &flags.address;
    if address.running().is_some() {
        let version = fs::read_to_string(address.file("version")).unwrap_or_default();
        if !flags.upgrade || version.trim() == env!("CARGO_PKG_VERSION") {
            return Ok(status(address));
        }
        stop(address)?;
    }
    let log_path = address.file("log");
    let log = fs::File::options().create(true).append(true).mode(0o600).open(&log_path)?;
    let (program, words) = place::itself()?;
    #[expect(clippy::disallowed_methods, reason = "the server in the background is this program")]
    let mut command = Program::new(program);
    command
        .args(words)
        .args(["server", "--host", &address.host, "--port", &address.port.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let token = access.clone().token()?;
    match &token {
        // Not on the command line, where everybody could read it.
        Some(token) => drop(command.env("SANDBOX_AGENT_TOKEN", token.reveal())),
        None if access.no_token => drop(command.arg("--no-token")),
        None => {}
    }
    sys::leave_the_terminal(&mut command);
    let mut child = command.spawn().context("could not start the server")?;
    fs::write(address.file("pid"), format!("{}\n", child.id()))?;
    fs::write(address.file("version"), env!("CARGO_PKG_VERSION"))?;
    let deadline = Instant::now() + UP;
    loop {
        if let Some(status) = child.try_wait()? {
            drop(fs::remove_file(address.file("pid")));
            bail!("the server ended at once ({status}); see {}", log_path.display());
        }
        if place::wait_for(api::answers(&address.url())).is_ok() {
            return Ok(status(address));
        }
        if Instant::now() > deadline {
            drop(child.kill());
            bail!("the server does not answer on {}; see {}", address.url(), log_path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stop(address: &Address) -> anyhow::Result<()> {
    let Some(pid) = address.running() else {
        eprintln!("not running: {}", address.url());
        return Ok(());
    };
    kill_process(pid, Signal::TERM)?;
    let deadline = Instant::now() + DOWN;
    while address.running().is_some() {
        if Instant::now() > deadline {
            kill_process(pid, Signal::KILL)?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(fs::remove_file(address.file("pid")));
    eprintln!("stopped: {}", address.url());
    Ok(())
}
