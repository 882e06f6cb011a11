//! The sandbox agent, over its API, from inside what it starts, and under `kill -9`.

mod access;
mod acp;
mod crash;
mod daemon;
mod files;
mod install;
mod jailed;
mod processes;
mod race;
mod settings;
mod shield;
mod tar;
mod terminal;
