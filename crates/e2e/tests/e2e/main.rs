//! The real program, from outside: attacked, killed, and asked over its API.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and a table of cases is as long as it is"
)]

mod agent;
mod api;
mod attack;
mod cli;
mod client;
mod crash;
mod egress;
mod engine;
mod faults;
mod images;
mod proxy;
mod secrets;
mod workspaces;
