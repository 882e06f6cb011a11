//! The sandbox agent beside the original's published program, each figure of both in turn.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::peer::{Peer, Running};
use crate::table::{Report, Row};

const STARTS: usize = 15;
const ROUND_TRIPS: usize = 1000;
const SMALL_FILES: usize = 500;
const LISTINGS: usize = 7;
const ENTRIES: usize = 50_000;
const GIBIBYTE: usize = 1 << 30;
const LINES: u64 = 1_000_000;
const MESSAGES: u64 = 20_000;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "The sandbox agent",
        "Beside the original's program (`@sandbox-agent/cli-linux-x64` 0.4.2 from npm) in the same run, in turns. Memory is what \
         belongs to the server's processes, what they share counted once; peaks are of the largest of them.",
    );
    let peers = match Peer::original().await {
        Ok(original) => [original, Peer::ours()?],
        Err(error) => {
            report.add(&format!("\nThe original could not be had ({error}): not measured.\n"));
            return Ok(());
        }
    };
    starts(report, &peers).await?;
    let running = [peers[0].start().await?.0, peers[1].start().await?.0];
    idle(report, &peers, &running).await?;
    rates(report, &peers, &running).await?;
    small_files(report, &peers, &running).await?;
    large_files(report, &peers, &running).await?;
    listing(report, &peers, &running).await?;
    logs(report, &peers, &running).await?;
    round_trips(report, &peers, &running).await?;
    slow_reader(report, &peers, &running).await
}

async fn starts(report: &mut Report, peers: &[Peer; 2]) -> anyhow::Result<()> {
    let mut rows = rows(peers);
    for _ in 0..STARTS {
        for (row, peer) in rows.iter_mut().zip(peers) {
            row.times.push(peer.start().await?.1);
        }
    }
    report.add("\nFrom its start until it is healthy:\n");
    report.times(&rows);
    Ok(())
}

fn rows(peers: &[Peer; 2]) -> Vec<Row> {
    peers.iter().map(|peer| Row { name: peer.name.to_owned(), times: Vec::new() }).collect()
}

async fn idle(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    report.add("\n| idle | memory |\n| --- | ---: |\n");
    for (peer, server) in peers.iter().zip(running) {
        report.add(&format!("| {} | {:.1} MiB |\n", peer.name, server.memory().0));
    }
    Ok(())
}

async fn rates(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    let script = tempfile::NamedTempFile::new()?;
    let lua = "wrk.method='POST'\nwrk.headers['content-type']='application/json'\nwrk.body='{\"command\":\"/bin/true\"}'\n";
    std::fs::write(script.path(), lua)?;
    let script = script.path().display().to_string();
    report.add("\nRequests a second, wrk with one thread on the same two cores:\n");
    report.add("\n| | the original | ours | ratio |\n| --- | ---: | ---: | ---: |\n");
    let cases = [
        ("`GET /v1/health`, 1 connection", "/v1/health", 1, false),
        ("`GET /v1/health`, 16 connections", "/v1/health", 16, false),
        ("`POST /v1/processes/run` of `/bin/true`, 1 in flight", "/v1/processes/run", 1, true),
        ("`POST /v1/processes/run` of `/bin/true`, 16 in flight", "/v1/processes/run", 16, true),
    ];
    for (name, path, connections, post) in cases {
        // In turns, twice each, the better of the two.
        let mut best = [0.0_f64; 2];
        for _ in 0..2 {
            for (best, server) in best.iter_mut().zip(running) {
                let url = format!("{}{path}", server.url);
                *best = best.max(wrk(&url, connections, post.then_some(&script)).await?);
            }
        }
        let [original, ours] = best;
        report.add(&format!("| {name} | {original:.0} | {ours:.0} | {:.2} |\n", ours / original));
    }
    let _ = peers;
    Ok(())
}

async fn wrk(url: &str, connections: u32, script: Option<&String>) -> anyhow::Result<f64> {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{connections}"), "-d4s"]);
    if let Some(script) = script {
        command.args(["-s", script]);
    }
    let output = command.arg(url).output().await.context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(!text.contains("Non-2xx"), "{text}");
    let line =
        text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context(text.clone())?;
    Ok(line.trim().parse()?)
}

async fn small_files(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    let (mut writes, mut reads) = (rows(peers), rows(peers));
    for number in 0..SMALL_FILES {
        for (at, server) in running.iter().enumerate() {
            let path = format!("/v1/fs/file?path=small{}", number % 10);
            let began = Instant::now();
            let put = server.client.put(format!("{}{path}", server.url)).body(vec![b'x'; 1024]);
            drop(put.send().await?.error_for_status()?.bytes().await?);
            writes[at].times.push(began.elapsed());
            let began = Instant::now();
            drop(server.get(&path).send().await?.error_for_status()?.bytes().await?);
            reads[at].times.push(began.elapsed());
        }
    }
    report.add("\nA file of 1 KiB written (ours in one step, the original's in place):\n");
    report.times(&writes);
    report.add("\nand read:\n");
    report.times(&reads);
    Ok(())
}

async fn large_files(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    report.add("\n1 GiB:\n\n| | written in | peak | read in | peak | kept after |\n| --- | ---: | ---: | ---: | ---: | ---: |\n");
    for (peer, server) in peers.iter().zip(running) {
        server.forget_the_most();
        let began = Instant::now();
        let pieces =
            (0..GIBIBYTE / (1 << 20)).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1 << 20]));
        let stream = body_of(pieces);
        let put = server
            .client
            .put(format!("{}/v1/fs/file?path=large", server.url))
            .body(stream)
            .send()
            .await;
        let written = match put {
            Ok(answer) if answer.status().is_success() => {
                format!("{:.2} s | {:.0} MiB", began.elapsed().as_secs_f64(), server.memory().1)
            }
            // It takes two mebibytes and no more.
            _ => {
                let file = std::fs::File::create(peer.home().join("large"))?;
                std::io::copy(
                    &mut std::io::Read::take(std::io::repeat(b'x'), GIBIBYTE as u64),
                    &mut &file,
                )?;
                "refused | ".to_owned()
            }
        };
        server.forget_the_most();
        let began = Instant::now();
        let mut answer = server.get("/v1/fs/file?path=large").send().await?.error_for_status()?;
        let mut read = 0;
        while let Some(chunk) = answer.chunk().await? {
            read += chunk.len();
        }
        anyhow::ensure!(read == GIBIBYTE, "{read} bytes");
        let took = began.elapsed().as_secs_f64();
        let (now, most) = server.memory();
        let name = peer.name;
        report
            .add(&format!("| {name} | {written} | {took:.2} s | {most:.0} MiB | {now:.1} MiB |\n"));
        std::fs::remove_file(peer.home().join("large"))?;
    }
    Ok(())
}

/// A body that is made as it is sent.
fn body_of(
    pieces: impl Iterator<Item = std::io::Result<Vec<u8>>> + Send + 'static,
) -> reqwest::Body {
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

async fn listing(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    let mut rows = rows(peers);
    for peer in peers {
        let directory = peer.home().join("many");
        std::fs::create_dir(&directory)?;
        for number in 0..ENTRIES {
            std::fs::File::create(directory.join(format!("{number:06}")))?;
        }
    }
    for _ in 0..LISTINGS {
        for (row, server) in rows.iter_mut().zip(running) {
            let began = Instant::now();
            let body = server
                .get("/v1/fs/entries?path=many")
                .send()
                .await?
                .error_for_status()?
                .bytes()
                .await?;
            row.times.push(began.elapsed());
            anyhow::ensure!(body.len() > ENTRIES * 50);
        }
    }
    report.add("\nA directory of 50,000 files listed:\n");
    report.times(&rows);
    Ok(())
}

/// What a stream gave: events, lines or messages in them, and the time until the last.
#[derive(Debug, Default)]
struct Heard {
    events: u64,
    lines: u64,
    took: Duration,
}

/// Reads a stream until it ends, or is silent for so long.
async fn hear(
    mut answer: reqwest::Response,
    silence: Duration,
    began: Instant,
    count: impl Fn(&str) -> u64,
) -> anyhow::Result<Heard> {
    let (mut heard, mut rest) = (Heard::default(), Vec::new());
    while let Ok(Ok(Some(bytes))) = tokio::time::timeout(silence, answer.chunk()).await {
        rest.extend_from_slice(&bytes);
        let Some(end) = rest.windows(2).rposition(|two| two == b"\n\n") else { continue };
        let whole: Vec<u8> = rest.drain(..end + 2).collect();
        for line in String::from_utf8_lossy(&whole).lines() {
            if let Some(data) = line.strip_prefix("data:") {
                heard.events += 1;
                heard.lines += count(data);
            }
        }
        heard.took = began.elapsed();
    }
    Ok(heard)
}

async fn logs(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    report.add("\n1,000,000 lines of a process followed:\n\n| | took | lines lost | peak |\n| --- | ---: | ---: | ---: |\n");
    for (peer, server) in peers.iter().zip(running) {
        let most = json!({ "maxConcurrentProcesses": 64, "defaultRunTimeoutMs": 30000, "maxRunTimeoutMs": 300_000,
            "maxOutputBytes": 1 << 20, "maxLogBytesPerProcess": 32 << 20, "maxInputBytesPerRequest": 65536 });
        server.post("/v1/processes/config", &most).send().await?.error_for_status()?;
        server.forget_the_most();
        let began = Instant::now();
        let body = json!({ "command": "seq", "args": ["1", LINES.to_string()] });
        let info: Value =
            server.post("/v1/processes", &body).send().await?.error_for_status()?.json().await?;
        let path =
            format!("/v1/processes/{}/logs?follow=true", info["id"].as_str().unwrap_or_default());
        let answer = server.get(&path).send().await?.error_for_status()?;
        let lines = |data: &str| {
            let entry: Value = serde_json::from_str(data).unwrap_or_default();
            newlines_in_base64(entry["data"].as_str().unwrap_or_default())
        };
        let heard = hear(answer, Duration::from_secs(2), began, lines).await?;
        let lost = LINES.saturating_sub(heard.lines);
        report.add(&format!(
            "| {} | {:.2} s | {lost} | {:.0} MiB |\n",
            peer.name,
            heard.took.as_secs_f64(),
            server.memory().1
        ));
    }
    Ok(())
}

/// Line ends in what some base64 stands for.
fn newlines_in_base64(text: &str) -> u64 {
    let bytes = STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&bytes).matches('\n').count() as u64
}

async fn round_trips(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    let mut rows = rows(peers);
    for server in running {
        drop(server.post("/v1/agents/mock/install", &json!({})).send().await?.error_for_status()?);
        let open = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": { "protocolVersion": 1 } });
        drop(
            server
                .post("/v1/acp/trip?agent=mock", &open)
                .send()
                .await?
                .error_for_status()?
                .bytes()
                .await?,
        );
    }
    for number in 1..=ROUND_TRIPS {
        for (row, server) in rows.iter_mut().zip(running) {
            let message = json!({ "jsonrpc": "2.0", "id": number, "method": "x/echo", "params": { "n": number } });
            let began = Instant::now();
            drop(
                server
                    .post("/v1/acp/trip", &message)
                    .send()
                    .await?
                    .error_for_status()?
                    .bytes()
                    .await?,
            );
            row.times.push(began.elapsed());
        }
    }
    report.add("\nA request to the built-in agent and its answer (ours keeps both in its journal first):\n");
    report.times(&rows);
    Ok(())
}

async fn slow_reader(
    report: &mut Report,
    peers: &[Peer; 2],
    running: &[Running; 2],
) -> anyhow::Result<()> {
    report.add("\n20,000 messages of an agent to a reader who begins to read when all are said:\n\n| | said in | messages lost | peak |\n| --- | ---: | ---: | ---: |\n");
    for (peer, server) in peers.iter().zip(running) {
        let message = |id: u32, method: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": {} });
        let open = server.post("/v1/acp/flood?agent=claude", &message(0, "initialize"));
        drop(open.send().await?.error_for_status()?.bytes().await?);
        let stream =
            server.get("/v1/acp/flood").header("accept", "text/event-stream").send().await?;
        server.forget_the_most();
        let began = Instant::now();
        drop(
            server
                .post("/v1/acp/flood", &message(1, "flood"))
                .send()
                .await?
                .error_for_status()?
                .bytes()
                .await?,
        );
        let took = began.elapsed();
        let updates = |data: &str| u64::from(data.contains("session/update"));
        let heard = hear(stream, Duration::from_secs(2), began, updates).await?;
        let lost = MESSAGES.saturating_sub(heard.lines);
        report.add(&format!(
            "| {} | {:.2} s | {lost} | {:.0} MiB |\n",
            peer.name,
            took.as_secs_f64(),
            server.memory().1
        ));
    }
    Ok(())
}
