//! The real program, from outside: attacked, killed, and asked over its API.

mod api;
mod attack;
mod cli;
mod crash;
mod proxy;
mod secrets;
