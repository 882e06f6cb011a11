//! All of it as an ordinary user.

use e2e::user::{Delegated, USER, can_become, program};
use std::time::Duration;

/// One server, one workspace: written to, taken while idle and while running, forked, restored, deleted.
const SCRIPT: &str = r#"
set -eu
state=$1 program=$2 port=$3 layout=$4
"$program" images add tiny --from "$layout" --state-dir "$state/state" > "$state/added"
"$program" serve --ctl-addr 127.0.0.1:$port --proxy-addr 127.0.0.1:0 --proxy-base-url http://127.0.0.1:1 --state-dir "$state/state" --api-key k@dev:admin --log warn &
server=$!
trap 'kill $server; wait $server || true' EXIT
call() { curl -sS -X "$1" -H 'authorization: Bearer k' -H 'content-type: application/json' "http://127.0.0.1:$port$2" ${3:+-d "$3"}; }
field() { python3 -c 'import json,sys; v = json.load(sys.stdin)
for k in sys.argv[1].split("."): v = v[int(k) if k.isdigit() else k]
print(v)' "$1"; }
for n in $(seq 100); do curl -s http://127.0.0.1:$port/healthz > /dev/null && break; sleep 0.05; done
exec_in() { call POST "/v1/workspaces/$1/exec" "{\"cmd\":\"sh\",\"args\":[\"-c\",\"$2\"]}"; }
w=$(call POST /v1/workspaces '{}' | field id)
exec_in "$w" "echo 1 > a; mkdir -m 000 closed; rm -f none; id -u" | field stdout
s=$(call POST "/v1/workspaces/$w/snapshot" '{}' | field id)
exec_in "$w" "cat a; rm a; echo 2 > b" | field stdout
call GET "/v1/snapshots/$s/manifest" | field entries.0.path
exec_in "$w" "echo late >> b; sleep 1.5; cat b" > "$state/long" &
long=$!
sleep 0.7
r=$(call POST "/v1/workspaces/$w/snapshot" '{}'); echo "$r" | field size_bytes
wait $long
f=$(call POST "/v1/workspaces/$w/fork" '{"count":2}' | field forks.1.id)
exec_in "$f" "ls; cat b" | field stdout
b=$(call POST /v1/workspaces/from-snapshot "{\"snapshot_id\":\"$s\",\"parent_workspace_id\":\"$w\"}" | field id)
exec_in "$b" "cat a" | field stdout
call POST /v1/runs '{"language":"bash","image":"tiny","code":"cat /etc/os-release; id -un"}' | field stdout
for x in "$w" "$f" "$b"; do call DELETE "/v1/workspaces/$x"; done
"#;

#[tokio::test]
async fn workspaces_need_no_root() {
    if !can_become() {
        return;
    }
    let (groups, program) = (Delegated::new(), program("agentjail"));
    let state = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(state.path(), Some(USER), Some(USER)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let layout = tempfile::tempdir().unwrap();
    crate::images::layout(&layout.path().join("tiny"), "nothing").await;
    e2e::cli::open_to_all(layout.path());
    let mut command = groups.command(std::path::Path::new("/bin/sh"));
    command.args(["-c", SCRIPT, "rootless"]).arg(state.path()).arg(&program).arg(port.to_string());
    command.arg(layout.path().join("tiny"));
    let output =
        tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        said, "1000\n\n1\n\na\n7\nb\nclosed\n2\nlate\n\n1\n\nID=tiny\nagent\n\n",
        "{complained}"
    );
}
