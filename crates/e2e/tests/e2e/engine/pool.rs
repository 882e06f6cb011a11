//! The warm pool: blanks are made, used once, bounded, and given up.

use std::time::Duration;

use e2e::house::eventually;
use jail::{Access, Command, Engine, Exit, Jail, Network, Pool, Profile, Stdin, Stdio, Tree};

use super::{engine, finish, run, sh};

/// Inits of an engine's launcher: jails and blanks.
async fn inits(engine: &Engine) -> Vec<u32> {
    let launcher = engine.launcher_pid().await.unwrap();
    let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
    children.unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

async fn settled(engine: &Engine, size: usize) {
    eventually(&format!("{size} blanks"), async || engine.blanks().await == Some(size)).await;
}

#[tokio::test]
async fn a_warm_start_uses_a_blank_and_another_is_made() {
    let engine = engine(Pool { size: 2, spares: 2, reserve_bytes: 0 }).await;
    engine.warm(&sh("").build()).await.unwrap();
    settled(&engine, 2).await;
    let (said, outcome) = run(&engine, sh("echo $$; id -u; hostname")).await;
    assert_eq!((said.as_str(), outcome.exit_code()), ("2\n1000\njail\n", 0));
    settled(&engine, 2).await;
    engine.shutdown().await;
}

/// The code goes into the workspace before, also where commands may not write, cold and warm.
#[tokio::test]
async fn code_is_there_and_what_is_closed_stays_closed() {
    let engine = engine(Pool { size: 2, spares: 2, reserve_bytes: 0 }).await;
    for profile in [Profile::Standard, Profile::Strict] {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let start = |script: &str| {
                sh(script).profile(profile).workspace(Tree::Fresh { bytes: 1 << 20, access })
            };
            let look = "cat code.sh; echo more 2>/dev/null > more && echo written";
            for _ in 0..3 {
                let (said, _) = run(&engine, start(look).code("code.sh", "exit 7\n")).await;
                let written = if access == Access::ReadWrite { "written\n" } else { "" };
                assert_eq!(said, format!("exit 7\n{written}"), "{profile:?} {access:?}");
                let (said, _) = run(&engine, start("ls -A; . ./code.sh")).await;
                assert!(said.contains("code.sh") && !said.contains("exit"), "{said}");
            }
        }
    }
    // Where no command comes first, too.
    let running = Jail::idle().code("code.sh", "exit 7\n").spawn(&engine).await.unwrap();
    let command = Command {
        program: "/bin/sh".to_owned(),
        arguments: vec!["/workspace/code.sh".to_owned()],
        environment: Vec::new(),
        directory: "/".to_owned(),
    };
    let mut process =
        running.jail.start(command, Stdio::Pipes { stdin: Stdin::Empty }).await.unwrap();
    assert_eq!(process.wait().await, Exit::Code(7));
    engine.shutdown().await;
}

fn lives(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn an_init_that_is_alone_ends_soon_and_one_that_is_not_at_once() {
    let engine = engine(Pool::NONE).await;
    for script in ["exit 0", "sleep 2323 >/dev/null 2>&1 & exit 0", "head -c 4m /dev/zero > /tmp/f"]
    {
        let mut running = sh(script).spawn(&engine).await.unwrap();
        let outcome = running.jail.wait(Duration::from_secs(10)).await;
        assert_eq!(outcome.exit_code(), 0);
        // Killed already, or told to.
        running.jail.gone().await;
        assert!(e2e::leftovers::processes("sleep 2323").is_empty());
        let mut running = sh(script).spawn(&engine).await.unwrap();
        let pid = running.jail.pid();
        running.jail.wait(Duration::from_secs(10)).await;
        drop(running);
        eventually("its init is gone", async || !lives(pid)).await;
        assert!(e2e::leftovers::processes("sleep 2323").is_empty());
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn nothing_is_left_of_the_jail_before() {
    let engine = engine(Pool { size: 1, spares: 2, reserve_bytes: 0 }).await;
    let leave = "echo secret > /tmp/s; echo secret > /output/s; echo secret > /dev/shm/s; echo secret > /home/agent/s; sleep 2121 &";
    let look = "cat /tmp/s /output/s /dev/shm/s /home/agent/s 2>/dev/null; ls -A /tmp /output /dev/shm /home/agent; ps -e -o args= | grep -c '[s]leep 2121'; ipcs -m | grep -c 0x";
    for _ in 0..3 {
        run(&engine, sh(leave)).await;
        settled(&engine, 1).await;
        let (said, _) = run(&engine, sh(look)).await;
        assert_eq!(said, "/dev/shm:\n\n/home/agent:\n\n/output:\n\n/tmp:\n0\n0\n");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_blank_is_for_one_host_user_and_one_shape_only() {
    let engine = engine(Pool { size: 4, spares: 2, reserve_bytes: 0 }).await;
    let who = "cat /proc/self/uid_map | awk '{print $2}'";
    for id in [400_001, 400_002, 400_001] {
        let (said, _) = run(&engine, sh(who).host_id(id)).await;
        let expected = if rustix::process::geteuid().is_root() {
            id
        } else {
            rustix::process::geteuid().as_raw()
        };
        assert_eq!(said.trim(), expected.to_string());
    }
    // A strict one must not get a standard blank.
    settled(&engine, 4).await;
    let socket = "python3 -c 'import socket; socket.socket(); print(1)' 2>/dev/null; echo end";
    let (said, _) = run(&engine, sh(socket).profile(jail::Profile::Strict)).await;
    assert_eq!(said, "end\n");
    engine.shutdown().await;
}

#[tokio::test]
async fn the_pool_is_bounded_over_all_shapes() {
    let engine = engine(Pool { size: 3, spares: 2, reserve_bytes: 0 }).await;
    for size in 1..=10 {
        let mut start = sh("").build();
        start.limits.tmp_bytes = size << 20;
        engine.warm(&start).await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
        assert!(engine.blanks().await.unwrap() <= 3);
    }
    settled(&engine, 3).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn none_is_kept_when_memory_is_short_and_none_when_it_is_off() {
    for pool in [Pool { size: 4, spares: 2, reserve_bytes: u64::MAX }, Pool::NONE] {
        let engine = engine(pool).await;
        engine.warm(&sh("").build()).await.unwrap();
        run(&engine, sh("true")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(engine.blanks().await, Some(0));
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_blank_that_was_killed_is_not_given_out() {
    let engine = engine(Pool { size: 2, spares: 2, reserve_bytes: 0 }).await;
    engine.warm(&sh("").build()).await.unwrap();
    settled(&engine, 2).await;
    kill(inits(&engine).await).await;
    let (said, _) = run(&engine, sh("echo alive")).await;
    assert_eq!(said, "alive\n");
    engine.shutdown().await;
}

#[tokio::test]
async fn limits_are_those_of_the_start_not_of_the_blank() {
    let engine = engine(Pool { size: 1, spares: 2, reserve_bytes: 0 }).await;
    for pids in [8, 30, 8] {
        let (said, _) =
            run(&engine, sh("n=0; while sleep 9 & do n=$((n+1)); echo $n; done").pids(pids)).await;
        let most: u32 = said.lines().filter_map(|line| line.parse().ok()).max().unwrap();
        assert_eq!(most, pids - 1);
        settled(&engine, 1).await;
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn nothing_is_left_when_the_engine_goes() {
    let engine = engine(Pool { size: 4, spares: 2, reserve_bytes: 0 }).await;
    engine.warm(&Jail::builder("true").build()).await.unwrap();
    settled(&engine, 4).await;
    let all = inits(&engine).await;
    assert!(all.len() >= 4);
    engine.shutdown().await;
    for pid in all {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
    }
}

async fn kill(inits: Vec<u32>) {
    for init in inits {
        let pid = rustix::process::Pid::from_raw(init.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        eventually("it is gone", async || !lives(init)).await;
    }
}

async fn spares(engine: &Engine, count: usize) -> Vec<u32> {
    eventually(&format!("{count} spares"), async || {
        let groups = e2e::leftovers::groups(engine.cgroup_name());
        let names: std::collections::BTreeSet<_> =
            groups.iter().filter_map(|group| group.file_name()).collect();
        names.len() == count && inits(engine).await.len() == count
    })
    .await;
    assert_eq!(engine.blanks().await, Some(0));
    inits(engine).await
}

/// Spares make a cold start less so. Each is used once, and a network belongs to nobody inside.
#[tokio::test]
async fn a_spare_is_used_once_and_its_network_belongs_to_nobody_inside() {
    let engine = engine(Pool { size: 0, spares: 2, reserve_bytes: 0 }).await;
    // Of which user namespace each is: the kernel tells who is in that or above it.
    // SO_NETNS_COOKIE: unlike its inode, a namespace's cookie is never given out again.
    let look = "python3 -c 'import fcntl, os, socket\n\
        print(int.from_bytes(socket.socket().getsockopt(1, 71, 8), \"little\"))\n\
        for name in (\"mnt\", \"net\"):\n\
        \x20 try: fcntl.ioctl(os.open(f\"/proc/self/ns/{name}\", 0), 0xb701); print(name, \"ours\")\n\
        \x20 except PermissionError: print(name, \"not ours\")'";
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let (said, outcome) = run(&engine, sh(look)).await;
        let (network, owners) = said.split_once('\n').unwrap();
        assert_eq!((owners, outcome.exit_code()), ("mnt ours\nnet not ours\n", 0), "{said}");
        assert!(seen.insert(network.to_owned()), "a network was used twice");
        // The first start is the last without spares.
        spares(&engine, 2).await;
    }
    // Another network takes the place of one.
    let (said, _) =
        run(&engine, sh("cat /proc/net/dev | grep -c lo:; uname -n").network(up())).await;
    assert_eq!(said, "1\njail\n");
    // Two of one would be three of both.
    let all = spares(&engine, 2).await;
    engine.shutdown().await;
    assert!(e2e::leftovers::groups(engine.cgroup_name()).is_empty());
    assert!(!all.into_iter().any(lives), "a spare is left");
}

/// What the kernel counts by user is charged to the owner of a user namespace, too.
#[tokio::test]
async fn no_two_jails_have_one_owner_of_their_user_namespaces_nor_is_it_root() {
    if !rustix::process::geteuid().is_root() {
        // There is only one user to be had.
        return;
    }
    let engine = engine(Pool { size: 2, spares: 2, reserve_bytes: 0 }).await;
    engine.warm(&Jail::idle().build()).await.unwrap();
    settled(&engine, 2).await;
    let mut jails = Vec::new();
    for _ in 0..6 {
        jails.push(Jail::idle().spawn(&engine).await.unwrap());
    }
    let mut owners = std::collections::BTreeSet::new();
    for running in &jails {
        // NS_GET_OWNER_UID
        let ask = "import array, fcntl, sys; owner = array.array('I', [0]); \
            fcntl.ioctl(open(f'/proc/{sys.argv[1]}/ns/user'), 0xb704, owner); print(owner[0])";
        let pid = running.jail.pid().to_string();
        let asked = tokio::process::Command::new("python3").args(["-c", ask, &pid]).output();
        let owner: u32 =
            String::from_utf8_lossy(&asked.await.unwrap().stdout).trim().parse().unwrap();
        assert!(owner > 1_000_000 && owner < jail::DEFAULT_HOST_ID, "{owner}");
        assert!(owners.insert(owner), "{owner} owns two");
    }
    engine.shutdown().await;
}

/// A message that is too long for a packet comes as an empty one, which is no end of the talk.
#[tokio::test]
async fn a_long_command_finds_its_way_cold_and_from_a_spare() {
    let tools = tempfile::tempdir().unwrap();
    e2e::cli::open_to_all(tools.path());
    std::fs::write(tools.path().join("said"), "here\n").unwrap();
    for pool in [Pool::NONE, Pool { size: 0, spares: 2, reserve_bytes: 0 }] {
        let engine = engine(pool).await;
        let script = format!("cat /opt/flavors/tools/said; : {}", "x".repeat(8 << 10));
        for _ in 0..40 {
            let (said, _) = run(&engine, sh(&script).flavor("tools", tools.path())).await;
            assert_eq!(said, "here\n");
            let (said, _) = run(&engine, sh(&script.replace("cat", "echo"))).await;
            assert_eq!(said, "/opt/flavors/tools/said\n");
        }
        engine.shutdown().await;
    }
}

/// A spare becomes what is asked for: anybody's, of any shape.
#[tokio::test]
async fn a_spare_becomes_anybodys_and_of_any_shape() {
    let engine = engine(Pool { size: 0, spares: 2, reserve_bytes: 0 }).await;
    run(&engine, sh("true")).await;
    let root = rustix::process::geteuid().is_root();
    for (id, profile) in [(400_011, Profile::Standard), (400_012, Profile::Strict)] {
        let waiting = spares(&engine, 2).await;
        let look = "awk '{print $2}' /proc/self/uid_map; id -u; stat -c %u /tmp /workspace; \
            stat -f -c %b /workspace; grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status; wc -c < /proc/keys";
        let workspace = Tree::Fresh { bytes: 8 << 20, access: Access::ReadWrite };
        let jail = sh(look).host_id(id).profile(profile).workspace(workspace);
        let mut running = jail.spawn(&engine).await.unwrap();
        assert!(waiting.contains(&running.jail.pid()), "it was not a spare");
        let (said, outcome) = finish(&mut running).await;
        assert_eq!(outcome.exit_code(), 0, "{said}");
        let id = if root { id } else { rustix::process::geteuid().as_raw() };
        assert_eq!(
            said,
            format!(
                "{id}\n1000\n1000\n1000\n2048\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n0\n"
            )
        );
        running.jail.gone().await;
    }
    // One that died is not given out, nor is another made in its place before somebody asks.
    kill(spares(&engine, 2).await).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(inits(&engine).await, Vec::<u32>::new());
    let (said, _) = run(&engine, sh("echo alive")).await;
    assert_eq!(said, "alive\n");
    spares(&engine, 2).await;
    engine.shutdown().await;
    assert!(e2e::leftovers::groups(engine.cgroup_name()).is_empty());
}

fn up() -> Network {
    Network { loopback: true, ..Network::default() }
}
