//! The sandbox agent inside a jail of ours, as the ordinary user there: all of it works, and what it starts can neither
//! see nor signal it.

use e2e::sandbox::program;

const SCRIPT: &str = r#"
export SANDBOX_AGENT_TOKEN=T HOME=/home/agent
/workspace/sandbox-agent server --log warn & server=$!
api=http://127.0.0.1:2468/v1
call() { curl -s -m 10 -H 'Authorization: Bearer T' -H 'content-type: application/json' "$@"; echo; }
for i in $(seq 100); do call $api/health | grep -q ok && break; sleep 0.05; done
call -X PUT --data-binary hello "$api/fs/file?path=/workspace/a/b.txt"
ln -s /etc/passwd /workspace/a/link; ln -s b.txt /workspace/a/inner
call "$api/fs/file?path=/workspace/a/inner"
call -X DELETE "$api/fs/entry?path=/workspace/a&recursive=true"
call $api/processes/run -d "{\"command\":\"sh\",\"args\":[\"-c\",\"id -un; kill -9 $server; cat /proc/$server/environ; kill -9 -1; echo alive\"]}"
call $api/processes -d '{"command":"tty","tty":true}'
for i in $(seq 50); do call "$api/processes/proc_1/logs" | grep -q L2Rldi9wdHM && echo TERMINAL && break; sleep 0.05; done
call "$api/acp/s?agent=mock" -d '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}'
call $api/health
kill $server; wait $server; echo "ended $?"
"#;

#[tokio::test]
async fn a_server_in_a_jail_does_all_it_does_elsewhere_and_is_shielded() {
    let workspace = tempfile::tempdir().unwrap();
    std::fs::copy(program(), workspace.path().join("sandbox-agent")).unwrap();
    std::fs::write(workspace.path().join("script"), SCRIPT).unwrap();
    e2e::cli::open_to_all(workspace.path());
    let mut command = tokio::process::Command::new(e2e::program());
    command.args(["run", "--net", "loopback", "--rw", "--workspace"]).arg(workspace.path());
    let output = command.args(["--", "bash", "/workspace/script"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "\"bytesWritten\":5",
        "\nhello\n",
        "agent\\n",
        "alive",
        "TERMINAL",
        "\"protocolVersion\":1",
        "ended 0",
    ] {
        assert!(said.contains(part), "no {part} in {said}\n{complaint}");
    }
    assert_eq!(said.matches("{\"status\":\"ok\"}").count(), 1, "{said}");
    assert!(!said.contains("SANDBOX_AGENT_TOKEN"), "{said}");
    assert!(!std::fs::exists(workspace.path().join("a")).unwrap());
}
