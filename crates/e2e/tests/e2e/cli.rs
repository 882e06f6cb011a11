//! `agentjail run`, `doctor` and `serve` as a person uses them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::cli::{Run, open_to_all};
use e2e::house::KEYS;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn files_are_moved_and_linked_from_one_directory_to_another() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--workspace", &directory.path().display().to_string(), "--rw"];
    let script = "import os\nfor at in ('/workspace', '/output', '/tmp', '/home/agent'):\n\
        \x20 os.makedirs(at + '/b/c'); open(at + '/b/x', 'w').close()\n\
        \x20 os.rename(at + '/b/x', at + '/b/c/y'); os.link(at + '/b/c/y', at + '/z')\n\
        \x20 os.rename(at + '/b/c', at + '/d')\n\
        print(sorted(os.listdir('/workspace')))";
    let said = Run::new(&flags).python(script).await;
    assert_eq!(said.stdout, "['b', 'd', 'z']\n", "{said:?}");
}

#[tokio::test]
async fn a_command_runs_as_if_run_directly() {
    let said = Run::new(&[]).input(b"from outside").sh("cat; echo to stderr >&2; exit 7").await;
    assert_eq!((said.code, said.stdout.as_str()), (7, "from outside"));
    assert_eq!(said.stderr, "to stderr\n");
}

#[tokio::test]
async fn exit_codes_are_a_shells() {
    assert_eq!(Run::new(&[]).command(&["no-such-command"]).await.code, 127);
    assert_eq!(Run::new(&[]).command(&["/etc/passwd"]).await.code, 126);
    assert_eq!(Run::new(&[]).sh("kill -SEGV $$").await.code, 139);
    assert_eq!(Run::new(&["--timeout", "1"]).command(&["sleep", "30"]).await.code, 124);
}

#[tokio::test]
async fn a_missing_command_says_so() {
    let said = Run::new(&[]).command(&["no-such-command"]).await;
    assert!(said.stderr.contains("no-such-command: command not found"), "{}", said.stderr);
}

#[tokio::test]
async fn a_workspace_is_read_only_unless_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    open_to_all(directory.path());
    std::fs::write(directory.path().join("given"), "given").unwrap();
    let path = directory.path().to_str().unwrap();
    let said = Run::new(&["--workspace", path])
        .sh("cat given; touch made 2>/dev/null || echo refused")
        .await;
    assert_eq!(said.stdout, "givenrefused\n");
    let said = Run::new(&["--workspace", path, "--rw"]).sh("pwd; echo made > made").await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "/workspace\n"), "{}", said.stderr);
    let made = directory.path().join("made");
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "made\n");
    // What the jail's user made belongs to the directory's owner.
    let owner =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap());
    assert_eq!(owner(&made), owner(directory.path()));
}

#[tokio::test]
async fn the_environment_is_clean() {
    let said = Run::new(&["--env", "GIVEN=1"]).sh("env | sort").await;
    let names: Vec<&str> =
        said.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(names, ["GIVEN", "HOME", "LANG", "PATH", "PWD"]);
}

#[tokio::test]
async fn threaded_programs_run() {
    let threads = "import threading\nt = threading.Thread(target=print, args=('thread',))\nt.start(); t.join()";
    assert_eq!(Run::new(&[]).python(threads).await.stdout, "thread\n");
    let said = Run::new(&[])
        .command(&[
            "node",
            "-e",
            "new (require('worker_threads').Worker)('console.log(6*7)', {eval: true})",
        ])
        .await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "42\n"), "{}", said.stderr);
}

#[tokio::test]
async fn json_tells_how_it_ended_and_what_was_in_force() {
    let said = Run::new(&["--json"]).sh("echo out; echo err >&2; exit 3").await;
    let result: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &result["exit_code"]), (3, &3.into()));
    assert_eq!((&result["stdout"], &result["stderr"]), (&"out\n".into(), &"err\n".into()));
    let enforced: Vec<&str> =
        result["enforced"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for name in ["memory", "cpu", "pids", "namespaces", "no-capabilities", "seccomp"] {
        assert!(enforced.contains(&name), "{name} in {enforced:?}");
    }
}

#[tokio::test]
async fn memory_is_limited_and_running_out_is_told() {
    let said = Run::new(&["--json", "--memory-mb", "64"]).python("x = bytearray(500 << 20)").await;
    let result: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(result["oom_killed"], true, "{result}");
    assert_eq!(result["exit_code"], 137);
}

#[tokio::test]
async fn a_signal_that_our_parent_ignored_is_not_ignored_inside() {
    let script = "trap '' TERM HUP USR1; exec \"$0\" run -- grep SigIgn /proc/self/status";
    let output =
        Command::new("sh").args(["-c", script]).arg(e2e::program()).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "SigIgn:\t0000000000000000");
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let mut child = Command::new(e2e::program())
        .args([
            "run",
            "--",
            "sh",
            "-c",
            "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("caught"));
    assert_eq!(child.wait().await.unwrap().code(), Some(5));
}

#[tokio::test]
async fn flags_that_contradict_each_other_say_the_remedy() {
    for (flags, remedy) in [
        (vec!["--net", "none", "--allow", "example.com"], "leave out one"),
        (vec!["--net", "allowlist"], "needs at least one --allow"),
        (vec!["--net-bytes", "5"], "--allow"),
        (vec!["--rw"], "--rw needs --workspace"),
        (vec!["--allow", "https://example.com"], "not `https://example.com`"),
        (vec!["--workspace", "/no/such/dir"], "--workspace /no/such/dir"),
        (vec!["--env", "X"], "NAME=VALUE"),
    ] {
        let said = Run::new(&flags).command(&["true"]).await;
        assert!(said.code != 0 && said.stderr.contains(remedy), "{flags:?}: {}", said.stderr);
    }
}

#[tokio::test]
async fn doctor_says_what_holds() {
    let output = Command::new(e2e::program()).args(["doctor", "--json"]).output().await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["fit"], output.status.success());
    let checks = report["checks"].as_array().unwrap();
    let inside = checks.iter().find(|check| check["name"] == "a jail, from inside").unwrap();
    assert_eq!(inside["holds"], true, "{report}");
}

#[tokio::test]
async fn serve_refuses_settings_it_does_not_understand() {
    for (name, value) in [
        ("CTL_ADDR", "nonsense"),
        ("PROXY_ADDR", "1.2.3.4"),
        ("PROXY_BASE_URL", "ftp://x"),
        ("AGENTJAIL_API_KEY", "bare-token"),
        ("AGENTJAIL_API_KEY", "good@acme:admin,bad@acme:root"),
        ("AGENTJAIL_UPSTREAM_OPENAI", "nonsense"),
        ("AGENTJAIL_SNAPSHOT_GC_TICK_SECS", "soon"),
        ("LOG_FORMAT", "xml"),
        ("AGENTJAIL_HOST_ID", "0"),
        ("DATABASE_URL", "postgres://localhost/x"),
        ("AGENTJAIL_CLONE_MODE", "host"),
    ] {
        let state = tempfile::tempdir().unwrap();
        let output = Command::new(e2e::program())
            .arg("serve")
            .env_clear()
            .env("AGENTJAIL_STATE_DIR", state.path())
            .env("AGENTJAIL_API_KEY", KEYS)
            .env(name, value)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(name), "{name}={value}: {text}");
        assert!(!text.contains("bare-token") && !text.contains("good@"), "{text}");
    }
}

#[tokio::test]
async fn serve_without_keys_needs_loopback() {
    let state = tempfile::tempdir().unwrap();
    let output = Command::new(e2e::program())
        .args(["serve", "--insecure-no-auth", "--ctl-addr", "0.0.0.0:0", "--state-dir"])
        .arg(state.path())
        .env_clear()
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("loopback"), "{text}");
}

#[tokio::test]
async fn a_first_start_makes_one_admin_key_and_shows_it_once() {
    let state = tempfile::tempdir().unwrap();
    let mut shown = Vec::new();
    for _ in 0..2 {
        let mut child = Command::new(e2e::program())
            .args([
                "serve",
                "--ctl-addr",
                "127.0.0.1:0",
                "--proxy-addr",
                "127.0.0.1:0",
                "--state-dir",
            ])
            .arg(state.path())
            .env_clear()
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut text = String::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !text.contains("agentjail serves on") {
            assert!(Instant::now() < deadline, "{text}");
            text.push_str(&lines.next_line().await.unwrap().unwrap_or_default());
            text.push('\n');
        }
        kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), Signal::TERM)
            .unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
        shown.push(text);
    }
    let file = state.path().join("admin.key");
    let key = std::fs::read_to_string(&file).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert!(shown[0].contains(&key) && !shown[1].contains(&key));
}
