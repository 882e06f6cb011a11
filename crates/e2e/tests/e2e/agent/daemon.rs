//! A server in the background.

use std::path::Path;

use e2e::sandbox::{TOKEN, free_port, program};
use tokio::process::Command;

fn daemon(home: &Path, words: &[&str], port: u16) -> Command {
    let mut command = Command::new(program());
    command
        .arg("daemon")
        .args(words)
        .args(["--port", &port.to_string()])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .env("SANDBOX_AGENT_TOKEN", TOKEN);
    command
}

/// Two who start it at once start one, which both see and either can end.
#[tokio::test]
async fn a_daemon_is_started_once_seen_and_ended() {
    let home = tempfile::tempdir().unwrap();
    let port = free_port();
    let code =
        async |words: &[&str]| daemon(home.path(), words, port).status().await.unwrap().code();
    assert_eq!(code(&["status"]).await, Some(3));
    let starts = (0..3).map(|_| code(&["start"]));
    let codes = futures_util::future::join_all(starts).await;
    let running = code(&["status"]).await;
    let answers = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let stopped = code(&["stop"]).await;
    assert_eq!((codes, running, answers), (vec![Some(0); 3], Some(0), true));
    assert_eq!((stopped, code(&["status"]).await), (Some(0), Some(3)));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}
