//! Checklist A07 to A09: what runs in the sandbox against the server that started it.

use e2e::sandbox::{Sandbox, TOKEN, is_alive};

/// A job that tries everything on the server: it is given the server's and the keeper's process ids.
const ATTACK: &str = r"
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, act):
    try:
        act()
        print('DONE', name)
    except Exception as error:
        print('refused', name, error)
def seize(pid):
    if libc.ptrace(0x4206, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'ptrace')
def peek(pid):
    class IoVec(ctypes.Structure):
        _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    local = IoVec(ctypes.cast(buffer, ctypes.c_void_p), 8)
    remote = IoVec(ctypes.c_void_p(0x400000), 8)
    if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), 'process_vm_readv')
def steal(pid):
    handle = os.pidfd_open(pid)
    if libc.syscall(438, handle, 3, 0) < 0:
        raise OSError(ctypes.get_errno(), 'pidfd_getfd')
for pid in map(int, sys.argv[1:]):
    for name in ['environ', 'mem', 'maps', 'fd', 'fdinfo', 'cwd', 'root', 'auxv']:
        path = f'/proc/{pid}/{name}'
        if name in ('fd', 'fdinfo'):
            tried(path, lambda: os.listdir(path))
        elif name in ('cwd', 'root'):
            tried(path, lambda: os.stat(path + '/'))
        else:
            tried(path, lambda: open(path, 'rb').read(1))
    tried(f'seize {pid}', lambda: seize(pid))
    tried(f'peek {pid}', lambda: peek(pid))
    tried(f'steal {pid}', lambda: steal(pid))
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
        tried(f'signal {number} {pid}', lambda: os.kill(pid, number))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tried('signal everybody', lambda: os.kill(-1, signal.SIGTERM))
print('END')
";

/// As an ordinary user in a user's own sandbox. (As root, root may do what root may: run the server in a
/// jail, or as another user than what it serves.)
#[tokio::test]
async fn a07_a08_a09_a_job_can_neither_read_trace_nor_signal_the_server() {
    let home = tempfile::tempdir().unwrap();
    e2e::cli::open_to_all(home.path());
    let program = e2e::user::program("sandbox-agent");
    let user = e2e::user::USER.to_string();
    let mut command = tokio::process::Command::new("setpriv");
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all"])
        .arg(program)
        .args(["server", "--port", "24689", "--shield"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path())
        .env("SANDBOX_AGENT_TOKEN", TOKEN)
        .kill_on_drop(true);
    std::os::unix::fs::chown(home.path(), Some(e2e::user::USER), Some(e2e::user::USER)).unwrap();
    let mut child = command.spawn().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = "http://127.0.0.1:24689";
    e2e::house::eventually("it is up", async || {
        client.get(format!("{url}/v1/health")).bearer_auth(TOKEN).send().await.is_ok()
    })
    .await;
    let keeper = child.id().unwrap();
    let children =
        std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    let server = children.split_ascii_whitespace().next().unwrap().to_owned();
    let body = serde_json::json!({ "command": "/usr/bin/python3", "args": ["-c", ATTACK, server, keeper.to_string()] });
    let run = client.post(format!("{url}/v1/processes/run")).bearer_auth(TOKEN).json(&body);
    let (status, result) = e2e::house::answer(run.send().await.unwrap()).await;
    assert_eq!(status, 200, "{result}");
    let stdout = result["stdout"].as_str().unwrap();
    assert!(stdout.ends_with("END\n"), "{result}");
    let done: Vec<&str> = stdout.lines().filter(|line| line.starts_with("DONE")).collect();
    // It may signal itself and its own: `kill(-1)` counts as done when there is nobody else it may signal.
    assert!(done.iter().all(|line| *line == "DONE signal everybody"), "{done:?}");
    assert!(stdout.lines().filter(|line| line.starts_with("refused")).count() >= 28, "{stdout}");
    // The server is as it was.
    let health = client.get(format!("{url}/v1/health")).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(health.status().as_u16(), 200);
    assert!(is_alive(server.parse().unwrap()) && is_alive(keeper.into()));
    child.start_kill().unwrap();
    drop(child.wait().await);
}

#[tokio::test]
async fn nothing_of_the_servers_environment_reaches_a_process_but_what_was_declared() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "# declared\nexport FROM_FILE=1\n").unwrap();
    let flags = [
        "--env",
        "DECLARED=yes",
        "--pass-env",
        "PASSED",
        "--env-file",
        file.path().to_str().unwrap(),
    ];
    let canary = "canary-2b9f";
    let variables =
        [("ANTHROPIC_API_KEY", canary), ("AWS_SECRET_ACCESS_KEY", canary), ("PASSED", "through")];
    let sandbox = Sandbox::with(&flags, &variables).await;
    let seen = sandbox.sh("env").await["stdout"].as_str().unwrap().to_owned();
    for line in ["DECLARED=yes", "PASSED=through", "FROM_FILE=1"] {
        assert!(seen.lines().any(|one| one == line), "{line} in {seen}");
    }
    assert!(!seen.contains(canary) && !seen.contains("SANDBOX_AGENT_TOKEN"), "{seen}");
}
