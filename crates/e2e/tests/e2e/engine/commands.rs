//! Many commands in one jail.

use std::time::Duration;

use e2e::house::eventually;
use jail::{Command, Exit, Jail, Pool, Process, Stdin, Stdio, Streams, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{engine, run, sh};

fn command(script: &str) -> Command {
    Command {
        program: "/bin/sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        directory: "/output".to_owned(),
    }
}

const PIPES: Stdio = Stdio::Pipes { stdin: Stdin::Empty };

async fn text(process: &mut Process) -> String {
    let Some(Streams::Pipes(mut pipes)) = process.streams.take() else { panic!("no pipes") };
    let mut text = String::new();
    pipes.stdout.read_to_string(&mut text).await.unwrap();
    pipes.stderr.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn commands_share_a_jail_and_each_has_its_own_end() {
    let engine = engine(Pool::NONE).await;
    let running = Jail::idle().spawn(&engine).await.unwrap();
    let jail = &running.jail;
    let mut write = jail.start(command("echo kept > f; exit 3"), PIPES).await.unwrap();
    assert_eq!(write.wait().await, Exit::Code(3));
    let mut read = jail.start(command("cat f; pwd; echo $$ >&2"), PIPES).await.unwrap();
    assert!(text(&mut read).await.starts_with("kept\n/output\n"));
    assert_eq!(read.wait().await, Exit::Code(0));
    let mut killed = jail.start(command("kill -9 $$"), PIPES).await.unwrap();
    assert_eq!(killed.wait().await, Exit::Signal(9));
    let mut absent = command("");
    absent.program = "/nowhere".to_owned();
    let mut absent = jail.start(absent, PIPES).await.unwrap();
    assert_eq!((absent.not_executed, absent.wait().await), (Some(2), Exit::Code(127)));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_hundred_commands_run_at_once_and_all_are_reaped() {
    let engine = engine(Pool::NONE).await;
    let running = Jail::idle().pids(250).spawn(&engine).await.unwrap();
    let mut all = Vec::new();
    for n in 0..100 {
        all.push(
            running.jail.start(command(&format!("sleep 0.2; exit {n}")), PIPES).await.unwrap(),
        );
    }
    for (n, process) in all.iter_mut().enumerate() {
        assert_eq!(process.wait().await, Exit::Code(i32::try_from(n).unwrap()));
    }
    let mut count = running.jail.start(command("ls -d /proc/[0-9]* | wc -l"), PIPES).await.unwrap();
    // sh, ls and wc; init hides itself.
    let left: u32 = text(&mut count).await.trim().parse().unwrap();
    assert!(left <= 3, "{left} processes");
    engine.shutdown().await;
}

#[tokio::test]
async fn further_commands_are_behind_the_same_walls() {
    let engine = engine(Pool::NONE).await;
    for profile in [jail::Profile::Standard, jail::Profile::Strict] {
        let running = Jail::idle().profile(profile).spawn(&engine).await.unwrap();
        let status = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | awk '{print $2}' | sort -u; \
            echo x > /opt/x; ls /proc/self/fd | wc -l; ulimit -n; ulimit -c; \
            /usr/bin/python3 -c 'import socket; socket.socket(socket.AF_INET); print(\"socket\")'";
        let mut process = running.jail.start(command(status), PIPES).await.unwrap();
        let said = text(&mut process).await;
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..3], ["0000000000000000", "1", "2"], "{said}");
        assert!(said.contains("/opt/x"), "{said}");
        assert_eq!(lines[3..6], ["4", "4096", "0"], "{said}");
        assert_eq!(said.contains("\nsocket"), profile == jail::Profile::Standard, "{said}");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_terminal_is_one() {
    let engine = engine(Pool::NONE).await;
    let running = Jail::idle().spawn(&engine).await.unwrap();
    let size = TerminalSize { rows: 7, columns: 91 };
    let script = "tty; stty size; read line; echo got $line; ps -o tty= -p $$";
    let mut process = running.jail.start(command(script), Stdio::Terminal(size)).await.unwrap();
    let Some(Streams::Terminal(owner)) = process.streams.take() else { panic!("no terminal") };
    owner.writable().await.unwrap().retain_ready();
    rustix::io::write(&owner, b"hello\n").unwrap();
    let mut said = Vec::new();
    loop {
        let mut ready = owner.readable().await.unwrap();
        let mut bytes = [0; 1024];
        match rustix::io::read(&owner, &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::IO) => break,
            Ok(length) => said.extend_from_slice(&bytes[..length]),
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => panic!("{error}"),
        }
    }
    let said = String::from_utf8(said).unwrap();
    for expected in ["/dev/pts/0\r\n", "7 91\r\n", "got hello\r\n", "pts/0"] {
        assert!(said.contains(expected), "{expected:?} in {said:?}");
    }
    assert_eq!(process.wait().await, Exit::Code(0));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_timeout_kills_a_command_and_what_it_started_and_leaves_the_others() {
    let engine = engine(Pool::NONE).await;
    let running = Jail::idle().spawn(&engine).await.unwrap();
    let mut other = running.jail.start(command("sleep 5151"), PIPES).await.unwrap();
    let tree = "trap '' TERM; sleep 6161 & setsid sh -c 'sleep 6161; :' & sleep 6161";
    let mut process = running.jail.start(command(tree), PIPES).await.unwrap();
    eventually("three sleep", async || e2e::leftovers::processes("sleep 6161").len() >= 3).await;
    let (exit, killed) = process.wait_or_kill(Duration::from_millis(300)).await;
    assert_eq!((exit, killed), (Exit::Signal(9), true));
    eventually("none sleeps", async || e2e::leftovers::processes("sleep 6161").is_empty()).await;
    assert!(!e2e::leftovers::processes("sleep 5151").is_empty());
    other.signal(15).await.unwrap();
    assert_eq!(other.wait().await, Exit::Signal(15));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_port_inside_is_reached_from_outside_and_only_so() {
    let engine = engine(Pool::NONE).await;
    let network = jail::Network { loopback: true, ..jail::Network::default() };
    let running = Jail::idle().network(network).spawn(&engine).await.unwrap();
    let server = "exec python3 -c 'import socket,sys\n\
        s=socket.socket(socket.AF_INET6) if sys.argv[1]==\"6\" else socket.socket()\n\
        s.bind((\"::1\" if sys.argv[1]==\"6\" else \"127.0.0.1\", int(sys.argv[2]))); s.listen()\n\
        while True:\n c,_=s.accept(); c.sendall(b\"inside\"); c.close()' ";
    for (family, port) in [("4", 5050), ("6", 5051)] {
        let run = command(&format!("{server} {family} {port}"));
        let _server = running.jail.start(run, PIPES).await.unwrap();
        eventually("it listens", async || running.jail.connect(port).await.is_ok()).await;
        let mut stream = running.jail.connect(port).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "inside");
        // Not on the host.
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
    }
    assert!(running.jail.connect(5052).await.is_err());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_socket_is_bound_inside_while_it_runs() {
    let engine = engine(Pool::NONE).await;
    let network = jail::Network { loopback: true, ..jail::Network::default() };
    let running = Jail::idle().network(network).spawn(&engine).await.unwrap();
    let at = |address: &str| {
        let address = address.parse().unwrap();
        jail::Listener { transport: jail::Transport::Tcp, address }
    };
    assert!(running.jail.listen(at("127.0.0.1:25")).await.is_err(), "no capability is left for it");
    let listener = at("127.0.0.1:2525");
    let socket = running.jail.listen(listener).await.unwrap();
    assert!(running.jail.listen(listener).await.is_err(), "taken");
    let listener = tokio::net::TcpListener::from_std(socket.into()).unwrap();
    let dial = "exec python3 -c 'import socket; s=socket.create_connection((\"127.0.0.1\",2525)); s.sendall(b\"hi\")'";
    let mut client = running.jail.start(command(dial), PIPES).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!((said.as_str(), client.wait().await), ("hi", Exit::Code(0)));
    engine.shutdown().await;
}

#[tokio::test]
async fn input_goes_in_and_its_end_is_seen() {
    let engine = engine(Pool::NONE).await;
    let running = Jail::idle().spawn(&engine).await.unwrap();
    let piped = Stdio::Pipes { stdin: Stdin::Piped };
    let mut process = running.jail.start(command("cat; echo end"), piped).await.unwrap();
    let Some(Streams::Pipes(mut pipes)) = process.streams.take() else { panic!("no pipes") };
    let mut stdin = pipes.stdin.take().unwrap();
    stdin.write_all(b"line\n").await.unwrap();
    drop(stdin);
    let mut said = String::new();
    pipes.stdout.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "line\nend\n");
    engine.shutdown().await;
}

#[tokio::test]
async fn when_the_jail_goes_every_command_hears_it() {
    let engine = engine(Pool::NONE).await;
    let running = Jail::idle().spawn(&engine).await.unwrap();
    let mut process = running.jail.start(command("sleep 4141"), PIPES).await.unwrap();
    running.jail.kill();
    assert_eq!(process.wait().await, Exit::Signal(9));
    running.jail.gone().await;
    assert!(running.jail.start(command("true"), PIPES).await.is_err());
    assert!(running.jail.connect(80).await.is_err());
    engine.shutdown().await;
}

/// Who comes first after the launcher's death finds its socket closed before anybody has said so.
#[tokio::test]
async fn the_first_start_after_the_launchers_death_is_a_start() {
    let engine = engine(Pool::NONE).await;
    for _ in 0..5 {
        let launcher = engine.launcher_pid().await.unwrap();
        let pid = rustix::process::Pid::from_raw(launcher.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // The runtime has one thread: while that is held up here, nobody reads from the socket.
        while !std::fs::read_to_string(format!("/proc/{launcher}/stat")).unwrap().contains(") Z") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (said, outcome) = run(&engine, sh("echo here")).await;
        assert_eq!((said.as_str(), outcome.exit_code()), ("here\n", 0));
    }
    engine.shutdown().await;
}
