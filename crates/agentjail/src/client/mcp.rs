//! `agentjail mcp`: the platform as tools of the Model Context Protocol, for any client of it.
//!
//! On standard streams it speaks with this program's key. Over HTTP it has none: each client sends its own.

mod files;
mod http;
mod tools;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use rmcp::ServiceExt as _;

use super::connection::Connection;
use tools::Tools;

#[derive(Debug, Args)]
pub(crate) struct Mcp {
    /// Serve streamable HTTP at `/mcp` of this address, instead of standard streams; clients send their own API key as
    /// `Authorization: Bearer`
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// A name of this server, beside addresses and localhost; repeatable
    #[arg(long, value_name = "HOST", requires = "http")]
    allow_host: Vec<String>,
}

pub(super) async fn mcp(connection: Connection, flags: Mcp) -> anyhow::Result<ExitCode> {
    match flags.http {
        Some(address) => http::serve(connection.without_key(), address, flags.allow_host).await?,
        None => {
            let tools = Tools::new(connection);
            let served = tools.serve(rmcp::transport::stdio()).await;
            served.context("the client did not begin as one")?.waiting().await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
