//! The keeper: the server's parent, which does nothing but see to it that nothing outlives the server.
//!
//! ```text
//!   keeper (subreaper) ── server ── what it starts ── …
//! ```
//!
//! Whatever is orphaned below the server comes to the keeper. When the server ends, however it ends, the
//! keeper kills all that is left below itself. When the keeper is killed, the kernel tells the server, which
//! then ends in order. Signals to the keeper are passed on.

use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, getpid, getppid, kill_process, set_child_subreaper,
    set_dumpable_behavior, set_parent_process_death_signal, setpgid, wait,
};
use sys::{Forked, Waiting};

/// Which of the two this process is.
#[derive(Debug)]
pub(crate) enum Side {
    /// To go on as the server, with the keeper's process id.
    Server(u32),
    /// The server has ended, and everything with it.
    Ended(ExitCode),
}

/// Splits this process in two, and lives as the keeper in one.
pub(crate) fn split() -> anyhow::Result<Side> {
    let keeper = getpid();
    // Neither is to be read or traced by what runs beside it as the same user: their memory holds the token.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_child_subreaper(Some(keeper))?;
    let signals = Waiting::for_ends()?;
    match sys::fork()? {
        Forked::Child => {
            signals.unblock()?;
            // Whoever kills the keeper's group must not meet both at once.
            setpgid(None, None)?;
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if getppid() != Some(keeper) {
                // Killed before the kernel knew that we want to hear of it.
                std::process::exit(1);
            }
            Ok(Side::Server(keeper.as_raw_nonzero().get().cast_unsigned()))
        }
        Forked::Parent { pid } => {
            let server = Pid::from_raw(pid.cast_signed());
            let server = server.ok_or_else(|| anyhow::anyhow!("fork gave no process id"))?;
            let code = keep(server, &signals)?;
            end_the_rest();
            Ok(Side::Ended(code))
        }
    }
}

/// Passes signals on and reaps, until the server has ended.
fn keep(server: Pid, signals: &Waiting) -> anyhow::Result<ExitCode> {
    loop {
        match Signal::from_named_raw(signals.next()?) {
            Some(Signal::CHILD) | None => {}
            Some(signal) => drop(kill_process(server, signal)),
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == server {
                let code = status
                    .exit_status()
                    .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or_default());
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
        }
    }
}

/// Kills whatever is left below this process, until nothing is.
fn end_the_rest() {
    loop {
        for process in agent::descendants(getpid()) {
            let _ = kill_process(process, Signal::KILL);
        }
        // Children of those that died come to us, and are found in the next round.
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(_) => return,
        }
    }
}
