//! A no-op through the API.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::proxy::Server;
use crate::table::{Report, Row};

const ROUNDS: usize = 200;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let server = Server::start("http://127.0.0.1:1").await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut bare, mut run, mut health) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(fork_and_exec().await?);
        let began = Instant::now();
        let request = client.post(format!("{}/v1/runs", server.api)).bearer_auth("bench");
        let body = json!({ "code": "", "language": "bash" });
        let response = request.json(&body).send().await?.error_for_status()?;
        drop(response.bytes().await?);
        run.push(began.elapsed());
        let began = Instant::now();
        drop(client.get(format!("{}/healthz", server.api)).send().await?.bytes().await?);
        health.push(began.elapsed());
    }
    report.section(
        "A run through the API",
        "`POST /v1/runs` of an empty shell script, two ledger writes included; over one kept connection.",
    );
    report.times(&[
        Row { name: "fork + exec of `sh`".to_owned(), times: bare },
        Row { name: "`POST /v1/runs`".to_owned(), times: run },
        Row { name: "`GET /healthz`, for the HTTP part".to_owned(), times: health },
    ]);
    Ok(())
}

async fn fork_and_exec() -> anyhow::Result<Duration> {
    let began = Instant::now();
    let status = tokio::process::Command::new("/bin/sh").args(["-c", ":"]).status().await?;
    anyhow::ensure!(status.success(), "sh: {status}");
    Ok(began.elapsed())
}
