//! `agentjail doctor`: what this machine can enforce, found out by doing it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jail::{Engine, Jail, Offers, Running};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Attack jails on this machine from inside, and tell what holds
    #[arg(long)]
    attack: bool,
    /// Only this line of the attack; repeatable
    #[arg(long, requires = "attack", value_name = "LINE")]
    only: Vec<String>,
    /// Leave a protection out, to see an attack succeed; repeatable
    #[cfg(feature = "mutations")]
    #[arg(long, requires = "attack", value_name = "NAME")]
    without: Vec<String>,
}

/// One thing that holds here, or does not.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    holds: bool,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl Check {
    fn new(
        name: &'static str,
        holds: bool,
        found: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self { name, holds, found: found.into(), remedy: (!holds).then_some(remedy) }
    }
}

const DELEGATE: &str = "run as root, or `systemd-run --user --scope -p Delegate=yes agentjail …`; \
    without it, --best-effort runs without the limit and says so";

pub(crate) fn doctor(flags: &Flags) -> anyhow::Result<ExitCode> {
    if flags.attack {
        #[cfg(feature = "mutations")]
        let without = flags.without.clone();
        #[cfg(not(feature = "mutations"))]
        let without = Vec::new();
        return crate::attack::run(&flags.only, without, flags.json);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checks = runtime.block_on(examine())?;
    let fit = checks.iter().all(|check| check.holds);
    let mut out = std::io::stdout();
    if flags.json {
        writeln!(out, "{}", serde_json::json!({ "fit": fit, "checks": checks }))?;
    } else {
        for check in &checks {
            let mark = if check.holds { "ok     " } else { "MISSING" };
            writeln!(out, "{mark}  {:<22} {}", check.name, check.found)?;
            if let Some(remedy) = check.remedy {
                writeln!(out, "         {:<22} -> {remedy}", "")?;
            }
        }
    }
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn examine() -> anyhow::Result<Vec<Check>> {
    let config = jail::Config::of_this_program()?;
    let engine = match Engine::start(config).await {
        Ok(engine) => engine,
        Err(error) => {
            let remedy = "jails need user and mount namespaces: check \
                /proc/sys/user/max_user_namespaces, kernel.unprivileged_userns_clone and, on Ubuntu, \
                kernel.apparmor_restrict_unprivileged_userns; in a container, allow them or run as root";
            return Ok(vec![Check::new("namespaces", false, error.to_string(), remedy)]);
        }
    };
    let mut checks = offered(engine.offers());
    checks.push(probe(&engine).await);
    engine.shutdown().await;
    Ok(checks)
}

fn offered(offers: &Offers) -> Vec<Check> {
    let cgroups = match &offers.cgroups {
        Ok(version) => Check::new("cgroups", true, version.clone(), DELEGATE),
        Err(why) => Check::new("cgroups", false, why.clone(), DELEGATE),
    };
    let limit = |name, present: bool| {
        Check::new(
            name,
            present,
            if present { "can be limited" } else { "no controller" },
            DELEGATE,
        )
    };
    let landlock = offers.landlock_abi;
    let found = landlock.map_or("none".to_owned(), |abi| format!("ABI {abi}"));
    let remedy = "needs Linux 5.13 or newer with `landlock` in the `lsm=` boot parameter";
    let user =
        if offers.root { "root: jails run as another host user" } else { "an ordinary user" };
    vec![
        Check::new("user", true, user, ""),
        cgroups,
        limit("memory limit", offers.memory),
        limit("cpu limit", offers.cpu),
        limit("process limit", offers.pids),
        Check::new("landlock", landlock.is_some(), found, remedy),
    ]
}

/// Starts a jail and asks it, from inside, what holds.
async fn probe(engine: &Engine) -> Check {
    const REMEDY: &str =
        "the message names the step; as root in a container it usually lacks a capability";
    match inside(engine).await {
        Ok(found) => Check::new("a jail, from inside", true, found, REMEDY),
        Err(error) => Check::new("a jail, from inside", false, format!("{error:#}"), REMEDY),
    }
}

async fn inside(engine: &Engine) -> anyhow::Result<String> {
    let script = "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";
    let running = Jail::builder("/bin/sh").args(["-c", script]).best_effort().spawn(engine).await?;
    let Running { mut jail, pipes, .. } = running;
    let mut pipes = pipes.context("a command has streams")?;
    let mut said = String::new();
    let limit = Duration::from_secs(10);
    let (read, outcome) = tokio::join!(pipes.stdout.read_to_string(&mut said), jail.wait(limit));
    read.context("could not read the jail's output")?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let expected = ["1000", "CapBnd:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"];
    anyhow::ensure!(
        outcome.exit_code() == 0 && expected.iter().all(|word| words.contains(word)),
        "exit {}, said {said:?}",
        outcome.exit_code()
    );
    Ok(format!(
        "uid 1000, no capabilities, filtered; started in {:.1} ms",
        outcome.duration.as_secs_f64() * 1e3
    ))
}
