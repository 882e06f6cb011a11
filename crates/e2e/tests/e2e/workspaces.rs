//! Workspaces and snapshots, through the API.

mod agents;
mod crash;
mod forks;
mod gateway;
mod git;
mod hostile_agents;
mod life;
mod pause;
mod quotas;
mod rootless;
mod snapshots;
mod trees;
