//! `/v1/runs/stream`

use std::time::Duration;

use e2e::house::{As, House, eventually};
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

/// Event names and data, in order.
async fn stream(house: &House, body: Value) -> Vec<(String, String)> {
    let response = house
        .request(As("acme-key"), Method::POST, "/v1/runs/stream")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
        (200, "text/event-stream")
    );
    events(&response.text().await.unwrap())
}

fn events(text: &str) -> Vec<(String, String)> {
    let field = |block: &str, name: &str| {
        let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
    };
    text.split("\n\n")
        .filter_map(|block| Some((field(block, "event")?, field(block, "data")?)))
        .collect()
}

fn lines(events: &[(String, String)], name: &str) -> Vec<String> {
    events.iter().filter(|(event, _)| event == name).map(|(_, data)| data.clone()).collect()
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let house = House::new().await;
    let code = "echo one; echo two >&2; sleep 0.7; printf '  three'; sleep 0.6; echo ' four'; echo; printf last";
    let events = stream(&house, json!({ "language": "bash", "code": code })).await;
    assert_eq!(events.first().unwrap().0, "started");
    assert_eq!(lines(&events, "stdout"), ["one", "  three four", "", "last"]);
    assert_eq!(lines(&events, "stderr"), ["two"]);
    assert!(!lines(&events, "stats").is_empty());
    let (name, data) = events.last().unwrap();
    let completed: Value = serde_json::from_str(data).unwrap();
    assert_eq!(
        (name.as_str(), &completed["exit_code"], &completed["timed_out"]),
        ("completed", &json!(0), &json!(false))
    );
    for field in [
        "duration_ms",
        "memory_peak_bytes",
        "memory_current_bytes",
        "cpu_usage_usec",
        "pids_current",
    ] {
        assert!(completed[field].is_u64(), "{field}");
    }
    let (_, jails) = house.get(As("acme-key"), "/v1/jails?kind=stream").await;
    assert_eq!(
        (&jails["rows"][0]["stderr"], &jails["rows"][0]["label"]),
        (&json!("two\n"), &json!("bash"))
    );
    assert!(jails["rows"][0]["stdout"].as_str().unwrap().ends_with("last"));
}

#[tokio::test]
async fn a_progress_bar_does_not_end_the_stream() {
    let house = House::new().await;
    let events = stream(
        &house,
        json!({ "language": "bash", "code": "printf '10%%\\r50%%\\r100%%\\r\\n'; echo done" }),
    )
    .await;
    assert_eq!(lines(&events, "stdout"), ["10%", "50%", "100%", "done"]);
}

#[tokio::test]
async fn a_long_line_comes_in_pieces_and_whole() {
    let house = House::new().await;
    let events =
        stream(&house, json!({ "language": "python", "code": "print('é' * 200000)" })).await;
    let pieces = lines(&events, "stdout");
    assert!(pieces.len() > 1 && pieces.concat() == "é".repeat(200_000));
}

#[tokio::test]
async fn errors_before_the_stream_are_ordinary_errors() {
    let house = House::new().await;
    let (status, answer) =
        house.post(As("acme-key"), "/v1/runs/stream", json!({ "code": "", "language": "x" })).await;
    assert_eq!((status, answer["error"].as_str().unwrap().starts_with("bad request")), (400, true));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_run() {
    let house = House::new().await;
    let body = json!({ "language": "bash", "code": "echo up; sleep 51515" });
    let response = house
        .request(As("acme-key"), Method::POST, "/v1/runs/stream")
        .json(&body)
        .send()
        .await
        .unwrap();
    let mut chunks = response.bytes_stream();
    while !String::from_utf8_lossy(&chunks.next().await.unwrap().unwrap()).contains("data: up") {}
    drop(chunks);
    eventually("the jail is gone", async || e2e::leftovers::processes("sleep 51515").is_empty())
        .await;
    eventually("the row is closed", async || {
        house.get(As("acme-key"), "/v1/jails").await.1["rows"][0]["status"] == "error"
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte_and_memory_stays_flat() {
    let house = House::new().await;
    let code = "for n in range(300000): print('line %06d %s' % (n, 'x' * 90))";
    let body = json!({ "language": "python", "code": code, "timeout_secs": 60 });
    let response = house
        .request(As("acme-key"), Method::POST, "/v1/runs/stream")
        .json(&body)
        .send()
        .await
        .unwrap();
    let mut chunks = response.bytes_stream();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let resident = std::fs::read_to_string(format!("/proc/{}/statm", house.pid())).unwrap();
    let pages: u64 = resident.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(pages * 4096 < 200 << 20, "{} MiB while the reader sleeps", (pages * 4096) >> 20);
    let mut text = Vec::new();
    while let Some(chunk) = chunks.next().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let events = events(&String::from_utf8(text).unwrap());
    let got = lines(&events, "stdout");
    assert_eq!(got.len(), 300_000);
    assert!(got[299_999].starts_with("line 299999"));
}
