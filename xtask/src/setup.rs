//! Installing what tests and benches need, and saying what is installed.

use std::path::Path;

use anyhow::bail;

use crate::{command, run, say};

/// A program, and the Debian packages that bring it.
type Need = (&'static str, &'static [&'static str]);

const TESTS: [Need; 15] = [
    ("git", &["git"]),
    ("/usr/bin/chromium", &["chromium"]),
    ("openssl", &["openssl"]),
    ("/usr/sbin/mkfs.xfs", &["xfsprogs"]),
    ("/usr/sbin/mkfs.btrfs", &["btrfs-progs"]),
    ("/usr/bin/busybox", &["busybox-static"]),
    ("/usr/share/python-wheels", &["python3-venv"]),
    ("cc", &["gcc", "libc6-dev"]),
    ("g++", &["g++"]),
    ("setpriv", &["util-linux"]),
    ("node", &["nodejs"]),
    ("npm", &["npm"]),
    ("/usr/bin/python3", &["python3"]),
    ("curl", &["curl", "ca-certificates"]),
    ("/usr/bin/node", &["nodejs"]),
];

const DEMO: [Need; 1] = [("pip3", &["python3-pip"])];

const BENCHES: [Need; 6] = [
    ("b3sum", &["b3sum"]),
    ("restic", &["restic"]),
    ("bwrap", &["bubblewrap"]),
    ("runc", &["runc"]),
    ("nginx", &["nginx-light"]),
    ("wrk", &["wrk"]),
];

pub(crate) fn for_tests() -> anyhow::Result<()> {
    install(&TESTS)
}

pub(crate) fn for_demo() -> anyhow::Result<()> {
    install(&TESTS)?;
    install(&DEMO)
}

pub(crate) fn for_benches() -> anyhow::Result<()> {
    install(&BENCHES)
}

fn install(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> =
        missing.iter().flat_map(|(_, packages)| packages.iter().copied()).collect();
    if !is_there("apt-get") || !is_root() {
        bail!("install these first: {} (Debian's names)", packages.join(" "));
    }
    say(&format!("installing {}", packages.join(" ")));
    run(command("apt-get").args(["update", "-qq"]))?;
    let mut apt = command("apt-get");
    apt.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    run(apt.env("DEBIAN_FRONTEND", "noninteractive"))
}

#[expect(clippy::disallowed_methods, reason = "xtask is a program of its own")]
fn is_there(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

fn is_root() -> bool {
    let output = command("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout == b"0\n")
}
