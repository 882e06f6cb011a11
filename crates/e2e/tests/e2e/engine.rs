//! The library `jail`, without a server: many commands, terminals, sockets, limits, the warm pool.

mod commands;
mod limits;
mod pool;
mod v2;

use jail::{Builder, Config, Engine, Jail, Pipes, Running};
use tokio::io::AsyncReadExt as _;

/// An engine whose launcher is the built program.
async fn engine(pool: jail::Pool) -> Engine {
    let config = Config { hosts: Vec::new(), program: e2e::program(), pool, left_out: Vec::new() };
    Engine::start(config).await.expect("an engine")
}

/// A jail that runs a script.
fn sh(script: &str) -> Builder {
    Jail::builder("/bin/sh").args(["-c", script])
}

/// Runs a jail to its end; gives its output and how it ended.
async fn run(engine: &Engine, jail: Builder) -> (String, jail::Outcome) {
    finish(&mut jail.spawn(engine).await.expect("a jail")).await
}

/// The same for one that has begun.
async fn finish(Running { jail, pipes, .. }: &mut Running) -> (String, jail::Outcome) {
    let Pipes { mut stdout, mut stderr, .. } = pipes.take().expect("streams");
    let (mut out, mut err) = (String::new(), String::new());
    // Emulated, everything takes many times as long.
    let limit = std::time::Duration::from_secs(120);
    let (_, _, outcome) = tokio::join!(
        stdout.read_to_string(&mut out),
        stderr.read_to_string(&mut err),
        jail.wait(limit)
    );
    (out + &err, outcome)
}
