//! A server in the background.

use std::path::Path;
use std::process::Command;

use e2e::sandbox::{TOKEN, free_port, program};

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
#[test]
fn a_daemon_is_started_once_seen_and_ended() {
    let home = tempfile::tempdir().unwrap();
    let port = free_port();
    let code = |words: &[&str]| daemon(home.path(), words, port).status().unwrap().code();
    assert_eq!(code(&["status"]), Some(3));
    let mut starts: Vec<_> =
        (0..3).map(|_| daemon(home.path(), &["start"], port).spawn().unwrap()).collect();
    let codes: Vec<_> = starts.iter_mut().map(|start| start.wait().unwrap().code()).collect();
    let running = code(&["status"]);
    let answers = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let stopped = code(&["stop"]);
    assert_eq!((codes, running, answers), (vec![Some(0); 3], Some(0), true));
    assert_eq!((stopped, code(&["status"])), (Some(0), Some(3)));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}
