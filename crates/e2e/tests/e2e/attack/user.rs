//! As an ordinary user: what can be had, what cannot and says so, and the server.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use e2e::house::eventually;
use e2e::user::{Delegated, USER, can_become, program};
use serde_json::{Value, json};
use tokio::process::Command;

/// A command of the user's, without any cgroup of its own.
fn plain(words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all"]);
    command.arg(program("agentjail")).args(words).kill_on_drop(true);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

#[tokio::test]
async fn a_limit_that_cannot_be_had_is_an_error_that_says_how_to_get_it() {
    assert!(can_become(), "this test begins as root");
    let output = plain(&["run", "--", "true"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("systemd-run --user --scope") && said.contains("best effort"), "{said}");
    let output =
        plain(&["run", "--best-effort", "--json", "--", "id", "-un"]).output().await.unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["stdout"], "agent\n");
    let enforced: Vec<&str> =
        result["enforced"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!enforced.contains(&"memory") && enforced.contains(&"seccomp"), "{enforced:?}");
    assert_eq!(result["stats"], Value::Null);
    // A limit that is watched from outside is one of them.
    let words = ["run", "--best-effort", "--cpu-time", "5", "--json", "--", "true"];
    let result =
        |output: std::process::Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
    let without = result(plain(&words).output().await.unwrap());
    assert!(!without["enforced"].as_array().unwrap().contains(&json!("cpu-time")), "{without}");
    let with = result(Command::new(e2e::program()).args(words).output().await.unwrap());
    assert!(with["enforced"].as_array().unwrap().contains(&json!("cpu-time")), "{with}");
}

#[tokio::test]
async fn in_a_delegated_cgroup_everything_is_in_force() {
    assert!(can_become(), "this test begins as root");
    let delegated = Delegated::new();
    let mut command = delegated.command(&program("agentjail"));
    command.args([
        "run",
        "--json",
        "--memory-mb",
        "64",
        "--",
        "python3",
        "-c",
        "x = bytearray(200 << 20)",
    ]);
    let result: Value = serde_json::from_slice(&command.output().await.unwrap().stdout).unwrap();
    assert_eq!(
        (&result["oom_killed"], &result["exit_code"]),
        (&json!(true), &json!(137)),
        "{result}"
    );
    for name in ["memory", "cpu", "pids"] {
        assert!(result["enforced"].as_array().unwrap().contains(&json!(name)), "{result}");
    }
}

#[tokio::test]
async fn a_directory_of_the_users_is_its_own_inside_and_one_of_others_is_refused() {
    assert!(can_become(), "this test begins as root");
    let directory = tempfile::tempdir().unwrap();
    e2e::cli::open_to_all(directory.path());
    let path = directory.path().to_str().unwrap().to_owned();
    let words = [
        "run",
        "--best-effort",
        "--workspace",
        &path,
        "--rw",
        "--",
        "sh",
        "-c",
        "echo mine > f; stat -c %U f",
    ];
    let refused = plain(&words).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(125) && said.contains("belong to somebody else"),
        "{said}"
    );
    std::os::unix::fs::chown(directory.path(), Some(USER), Some(USER)).unwrap();
    let done = plain(&words).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "agent\n");
    assert_eq!(std::fs::metadata(directory.path().join("f")).unwrap().uid(), USER);
}

#[tokio::test]
async fn an_allowlist_works_without_any_privilege() {
    assert!(can_become(), "this test begins as root");
    let listener = tokio::net::TcpListener::bind("127.83.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answering = tokio::task::JoinSet::new();
    answering.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await.unwrap();
    });
    let allow = format!("db.test:{port}");
    let dial = format!(
        "import socket\ns=socket.create_connection(('db.test',{port}),5)\nprint(s.recv(9).decode())"
    );
    let output = plain(&[
        "run",
        "--best-effort",
        "--allow",
        &allow,
        "--resolve",
        "db.test=127.83.0.1",
        "--allow-private",
        "127.0.0.0/8",
        "--",
        "python3",
        "-c",
        &dial,
    ])
    .output()
    .await
    .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{output:?}");
    answering.join_all().await;
}

#[tokio::test]
async fn the_server_runs_as_an_ordinary_user_and_leaves_nothing() {
    assert!(can_become(), "this test begins as root");
    let state = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(state.path(), Some(USER), Some(USER)).unwrap();
    let free =
        || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (api, proxy) = (free(), free());
    let words = [
        "serve",
        "--ctl-addr",
        &api,
        "--proxy-addr",
        &proxy,
        "--api-key",
        "k@acme:operator",
        "--best-effort",
        "--log",
        "error",
        "--state-dir",
        state.path().to_str().unwrap(),
    ];
    let mut server = plain(&words).spawn().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    eventually("it is up", async || {
        client.get(format!("http://{api}/healthz")).send().await.is_ok()
    })
    .await;
    let post = async |path: &str, body: Value| {
        let request = client.post(format!("http://{api}{path}")).bearer_auth("k").json(&body);
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let run = post("/v1/runs", json!({ "language": "bash", "code": "id -un; echo $HOME" })).await;
    assert_eq!(run["stdout"], "agent\n/home/agent\n", "{run}");
    assert!(!run["enforced"].as_array().unwrap().contains(&json!("memory")), "{run}");
    post("/v1/credentials", json!({ "service": "openai", "secret": "sk-real" })).await;
    let session = post("/v1/sessions", json!({ "services": ["openai"] })).await;
    let path = format!("/v1/sessions/{}/exec", session["id"].as_str().unwrap());
    let exec = post(&path, json!({ "cmd": "sh", "args": ["-c", "echo $OPENAI_API_KEY"] })).await;
    assert!(exec["stdout"].as_str().unwrap().starts_with("phm_"), "{exec}");
    let jails = client.get(format!("http://{api}/v1/jails")).bearer_auth("k").send().await.unwrap();
    let row = jails.json::<Value>().await.unwrap()["rows"][0].clone();
    assert!(row["enforced"].as_array().unwrap().contains(&json!("seccomp")), "{row}");
    assert!(!row["enforced"].as_array().unwrap().contains(&json!("memory")), "{row}");
    let pid = rustix::process::Pid::from_raw(server.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), server.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    eventually("no process of the user's is left", async || of_user().is_empty()).await;
}

/// Launchers and inits of the user's; other tests may run some at the same time, but not for long.
fn of_user() -> Vec<String> {
    e2e::leftovers::processes("agentjail-launcher")
        .into_iter()
        .filter(|line| {
            let pid = line.split(' ').next().unwrap_or_default();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains(&format!("Uid:\t{USER}\t"))
        })
        .collect()
}

/// Root of a container: some users are known, not all, and the network is the machine's.
const CONTAINER: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None)
(begun, begin), (mapped, map_ids) = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.close(map_ids)
    assert libc.unshare(0x10000000) == 0
    os.write(begin, b'x')
    os.read(mapped, 1)
    os.setgroups([]); os.setgid(0); os.setuid(0)
    os.execvp('unshare', ['unshare', '-m', '-p', '-f', '--mount-proc', *sys.argv[1:]])
os.read(begun, 1)
for name in ('uid_map', 'gid_map'):
    with open(f'/proc/{pid}/{name}', 'w') as file:
        file.write('0 300000 65536')
os.write(map_ids, b'x')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[tokio::test]
async fn root_of_a_container_has_jails_too_as_users_that_it_knows() {
    assert!(can_become(), "this test begins as root");
    let look = "id -u; awk '{print $2}' /proc/self/uid_map; cat /proc/net/dev | grep -c :";
    let program = program("agentjail");
    let words = [
        "-c",
        CONTAINER,
        program.to_str().unwrap(),
        "run",
        "--best-effort",
        "--",
        "sh",
        "-c",
        look,
    ];
    let output = Command::new("python3").args(words).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // The middle one of those, and a network of its own.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1000\n32768\n1\n", "{said}");
}
