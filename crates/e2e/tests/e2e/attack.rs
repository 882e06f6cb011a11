//! Exploit attempts, made from inside a jail. Each test names the lines of the checklist in
//! `docs/security/checklist.md` that it covers.

mod devices;
mod files;
mod golden;
mod network;
mod processes;
mod proxies;
mod suite;
mod syscalls;
mod tls;
mod user;
