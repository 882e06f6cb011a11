//! A spec in, an isolated process out.
//!
//! [`Engine`] owns the launcher and asks it for jails; a [`Jail`] is one that runs. No process in a
//! jail outlives its [`Jail`] value, and no jail outlives the engine, however the program ends.
//! Nothing here knows who asks, over what, or where it is written down.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! use jail::{Config, Engine, Jail, Preset, Running};
//! use tokio::io::AsyncReadExt as _;
//!
//! fn main() -> ExitCode {
//!     // The launcher is this very program, started under another name. It must find itself here
//!     // before anything has started a thread.
//!     if let Some(role) = jail::Role::from_argv0() {
//!         return jail::run_launcher(&role);
//!     }
//!     match run() {
//!         Ok(()) => ExitCode::SUCCESS,
//!         Err(error) => {
//!             eprintln!("{error}");
//!             ExitCode::FAILURE
//!         }
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn run() -> Result<(), Box<dyn std::error::Error>> {
//!     let engine = Engine::start(Config::of_this_program()?).await?;
//!     let building = Jail::builder("cc").args(["-o", "/output/hello", "hello.c"]).preset(Preset::Build);
//!     let Running { mut jail, pipes, enforced, .. } = building.spawn(&engine).await?;
//!     let mut pipes = pipes.ok_or("a command has pipes")?;
//!     let (mut out, mut err) = (String::new(), String::new());
//!     // All three at once: a command whose output nobody reads waits, and only `wait` has a deadline.
//!     let (_, _, outcome) = tokio::join!(
//!         pipes.stdout.read_to_string(&mut out),
//!         pipes.stderr.read_to_string(&mut err),
//!         jail.wait(Duration::from_secs(60)),
//!     );
//!     println!("{} {out}{err} {:?} {enforced:?}", outcome.exit_code(), outcome.statistics);
//!     engine.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! A jail without a first command ([`Jail::idle`]) takes many: [`Jail::start`], each with pipes or a
//! terminal, [`Jail::connect`] to ports inside, [`Jail::freeze`] and [`Jail::thaw`]. Blank jails are
//! kept ready if [`Config::pool`] says so.
//!
//! # What it protects from, and what not
//!
//! A process in a jail is an ordinary user in namespaces of its own, without capabilities, under an
//! allowlist of system calls and Landlock, within the limits it was given. What was asked for and is not
//! in force is an error ([`SpawnError::Unenforceable`]), unless the caller said
//! [`Enforcement::BestEffort`]; then [`Running::enforced`] says what is. It does not protect from a bug in
//! the kernel, from side channels between processes of one machine, or from what is given in:
//! a writable directory of the host has no quota, and a listener that is served from outside is only as
//! careful as its server. Linux on x86-64, 5.13 or later, with user namespaces; cgroups (v1 or v2) for
//! limits and statistics.

mod ahead;
mod builder;
mod conversation;
mod engine;
mod instance;
mod jail;
mod lingering;
mod link;
mod mapped;
mod pipes;
mod process;
mod program;

pub use builder::{Builder, Preset};
pub use conversation::OrderError;
pub use engine::{
    Config, DEFAULT_HOST_ID, Engine, SpawnError, Start, StartError, Stdin, default_host_id,
    host_ids_from,
};
pub use jail::{Connector, Jail, Outcome, Running};
pub use launch::cgroup::Statistics;
pub use launch::fault::STEPS;
pub use launch::message::{
    Access, Command, Enforcement, Exit, Fault, IMAGE_DIRECTORIES, IMAGE_FILES, Layers, Limits,
    Listener, Local, Network, Offers, Pool, Profile, TerminalSize, Transport, Tree, WORKSPACE,
};
pub use launch::{Role, run as run_launcher};
pub use pipes::Pipes;
pub use process::{Process, Stdio, Streams};
