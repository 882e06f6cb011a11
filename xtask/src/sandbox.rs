//! A sandbox agent to test against, with a home of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::{command, target};

pub(crate) struct Sandbox {
    child: Child,
    address: String,
    home: PathBuf,
}

impl Sandbox {
    pub(crate) const TOKEN: &str = "sandbox-token";

    /// Starts one with more flags.
    pub(crate) fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let home = target().join(format!("sandbox-{port}"));
        std::fs::create_dir_all(&home)?;
        let child = command(Self::program())
            .args(["server", "--port", &port.to_string(), "--log", "warn"])
            .args(flags)
            .env_clear()
            .env("HOME", &home)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("SANDBOX_AGENT_TOKEN", Self::TOKEN)
            .spawn()
            .context("could not start the sandbox agent")?;
        let sandbox = Self { child, address: format!("127.0.0.1:{port}"), home };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(&sandbox.address).is_err() {
            if Instant::now() > deadline {
                bail!("the sandbox agent does not answer on {}", sandbox.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(sandbox)
    }

    pub(crate) fn program() -> PathBuf {
        target().join("debug/sandbox-agent")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It kills what it started when it is killed; one that has ended already is what we want.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.home));
    }
}
