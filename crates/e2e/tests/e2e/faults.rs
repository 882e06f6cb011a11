//! Failure at every step, `kill -9` at any moment, and many starts: nothing is left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::house::{As, House, eventually};
use e2e::leftovers;
use jail::{Config, Engine, Jail, Layers, Pool, Profile, SpawnError};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn children(pid: u32) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.map_or(0, |children| children.split_whitespace().count())
}

/// Children of a server: its launcher, but for a moment in which it starts another.
fn launchers_of(server: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{server}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| {
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// Kibibytes.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

fn config(program: PathBuf, pool: Pool, left_out: &[String]) -> Config {
    Config { hosts: Vec::new(), program, pool, left_out: left_out.to_vec() }
}

/// Steps that a jail to which nothing is brought in does not take.
const BRINGING_IN: [&str; 4] = ["tree", "attach", "image", "layers"];

#[tokio::test]
async fn every_step_that_fails_leaves_nothing_and_says_which_it_was() {
    let flavor = tempfile::tempdir().unwrap();
    e2e::cli::open_to_all(flavor.path());
    let image = tempfile::tempdir().unwrap();
    e2e::cli::open_to_all(image.path());
    for directory in jail::IMAGE_DIRECTORIES {
        std::fs::create_dir_all(image.path().join(directory)).unwrap();
    }
    std::fs::create_dir(image.path().join("etc")).unwrap();
    for file in jail::IMAGE_FILES {
        std::fs::write(image.path().join(file), "").unwrap();
    }
    let upper = tempfile::tempdir().unwrap();
    for directory in ["files", "work", "files/workspace", "files/output"] {
        let directory = upper.path().join(directory);
        std::fs::create_dir(&directory).unwrap();
        if rustix::process::geteuid().is_root() {
            let owner = Some(jail::DEFAULT_HOST_ID);
            std::os::unix::fs::chown(directory, owner, owner).unwrap();
        }
    }
    for step in jail::STEPS {
        for size in [0, 2] {
            let left_out = [format!("fail:{step}")];
            let pool = Pool { size, spares: size, reserve_bytes: 0 };
            let engine = Engine::start(config(e2e::mutations(), pool, &left_out)).await.unwrap();
            let launcher = engine.launcher_pid().await.unwrap();
            let before = descriptors(launcher);
            for profile in [Profile::Standard, Profile::Strict] {
                let plain = || Jail::builder("/bin/true").profile(profile);
                let full = || {
                    plain()
                        .layers(Layers {
                            lower: Vec::new(),
                            upper: upper.path().to_owned(),
                            home: true,
                        })
                        .flavor("tools", flavor.path())
                        .image(image.path())
                };
                let mut jails = vec![full(), full()];
                if !BRINGING_IN.contains(&step) {
                    jails.extend([plain(), plain(), plain().code("main.sh", "exit")]);
                }
                for jail in jails {
                    if size > 0 {
                        // With a spare, where this step leaves one.
                        tokio::time::sleep(Duration::from_millis(15)).await;
                    }
                    let error = jail.spawn(&engine).await.map(drop).unwrap_err();
                    let SpawnError::Setup(fault) = &error else { panic!("{step}: {error:?}") };
                    // The stage tells by a number: the words are its parent's.
                    let named = fault.step.to_lowercase().contains(step);
                    assert!(named && fault.errno == 5, "{step}: {error}");
                }
            }
            let what = format!("nothing is left after a failed {step}");
            eventually(&what, async || {
                let blanks = engine.blanks().await.unwrap();
                let spare = usize::from(size > 0) * 2;
                // A step of assigning leaves blanks as they were.
                let spares = children(launcher).saturating_sub(blanks);
                blanks <= spare
                    && spares <= spare
                    // Of each blank and spare, and the map of the flavor's owner, which is kept.
                    && descriptors(launcher) <= before + 4 * (blanks + spares) + 1
            })
            .await;
            engine.shutdown().await;
            assert!(!Path::new(&format!("/proc/{launcher}")).exists());
            assert_eq!(leftovers::groups(engine.cgroup_name()), Vec::<PathBuf>::new(), "{step}");
        }
    }
}

/// Runs jails until the engine does not answer; gives how many began.
async fn load(engine: Engine, stop: Instant) -> usize {
    let mut begun = 0;
    while Instant::now() < stop {
        let jail = Jail::builder("/bin/sh").args(["-c", "sleep 0.02 & sleep 0.01"]);
        if let Ok(mut running) = jail.spawn(&engine).await {
            begun += 1;
            running.jail.wait(Duration::from_secs(5)).await;
        }
    }
    begun
}

/// A number from 0 to `below`, different every time.
fn any(below: u64) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) % below
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_killed_200_times_under_load_leaves_nothing() {
    let pool = Pool { size: 4, spares: 2, reserve_bytes: 0 };
    let engine = Engine::start(config(e2e::program(), pool, &[])).await.unwrap();
    let stop = Instant::now() + Duration::from_secs(120);
    let mut workers = tokio::task::JoinSet::new();
    let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for _ in 0..4 {
        let (engine, end) = (engine.clone(), std::sync::Arc::clone(&end));
        workers.spawn(async move {
            let mut begun = 0;
            while !end.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < stop {
                begun += load(engine.clone(), Instant::now() + Duration::from_millis(1)).await;
            }
            begun
        });
    }
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(5 + any(40))).await;
        let Some(launcher) = engine.launcher_pid().await else { continue };
        let inits = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
        let inits = inits.unwrap_or_default();
        let pid = Pid::from_raw(launcher.cast_signed()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        for init in inits.split_whitespace() {
            // Gone with the process, also while nobody has reaped it.
            let path = format!("/proc/{init}/ns/net");
            eventually("its jails are gone", async || std::fs::read_link(&path).is_err()).await;
        }
    }
    end.store(true, std::sync::atomic::Ordering::Relaxed);
    let begun: usize = workers.join_all().await.into_iter().sum();
    assert!(begun > 100, "only {begun} jails began");
    // And it works still, as soon as the last death is noticed.
    eventually("a jail runs", async || match Jail::builder("/bin/true").spawn(&engine).await {
        Ok(mut running) => running.jail.wait(Duration::from_secs(5)).await.exit_code() == 0,
        Err(_) => false,
    })
    .await;
    engine.shutdown().await;
    assert_eq!(leftovers::groups(engine.cgroup_name()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_200_times_under_load_loses_nothing_acknowledged() {
    let mut house = House::with(&["--warm-jails", "3"]).await;
    let mut acknowledged = 0_u64;
    let (mut servers, mut launchers) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let server = house.pid();
        let (api, client) = (house.api.clone(), house.client.clone());
        let mut load = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (api, client) = (api.clone(), client.clone());
            load.spawn(async move {
                let mut done = 0_u64;
                loop {
                    let body = json!({ "language": "bash", "code": "sleep 0.01" });
                    let sent =
                        client.post(format!("{api}/v1/runs")).bearer_auth("acme-key").json(&body);
                    match sent.send().await {
                        Ok(answer) => {
                            let ran = answer.status() == 201;
                            done += u64::from(ran && answer.bytes().await.is_ok());
                        }
                        Err(_) => return done,
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(any(60))).await;
        launchers.extend(launchers_of(server));
        servers.push(server);
        house.end(Signal::KILL).await;
        acknowledged += load.join_all().await.into_iter().sum::<u64>();
        house.restart().await;
    }
    eventually("their launchers are gone", async || {
        launchers.iter().all(|pid| {
            // The number may be somebody else's by now.
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !line.contains("agentjail-launcher") || launchers_of(house.pid()).contains(pid)
        })
    })
    .await;
    eventually("the groups of all of them are gone", async || {
        servers.iter().all(|server| leftovers::cgroups(*server).is_empty())
    })
    .await;
    let (_, rows) = house.get(As("acme-key"), "/v1/jails?limit=1").await;
    assert!(
        rows["total"].as_u64().unwrap() >= acknowledged,
        "{acknowledged} were acknowledged: {rows}"
    );
    let (_, running) = house.get(As("acme-key"), "/v1/jails?status=running").await;
    assert_eq!(running["total"], 0);
    let (_, done) = house.get(As("acme-key"), "/v1/jails?status=completed&limit=1").await;
    assert!(done["total"].as_u64().unwrap() >= acknowledged);
    assert!(acknowledged > 20, "only {acknowledged} were acknowledged");
}

/// Starts in a soak: many with `AGENTJAIL_SOAK=20000`.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration but its environment")]
fn soak_starts() -> usize {
    std::env::var("AGENTJAIL_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1500)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_starts_leak_nothing() {
    let pool = Pool { size: 4, spares: 2, reserve_bytes: 0 };
    let engine = Engine::start(config(e2e::program(), pool, &[])).await.unwrap();
    let launcher = engine.launcher_pid().await.unwrap();
    let some = async |count: usize| {
        let mut running = tokio::task::JoinSet::new();
        for n in 0..count {
            if running.len() == 8 {
                running.join_next().await.unwrap().unwrap();
            }
            let engine = engine.clone();
            running.spawn(async move {
                // Two shapes, so that blanks come and go.
                let jail = Jail::builder("/bin/true")
                    .host_id(500_000 + u32::try_from(n % 97 / 96).unwrap());
                let mut running = jail.spawn(&engine).await.unwrap();
                assert_eq!(running.jail.wait(Duration::from_secs(30)).await.exit_code(), 0);
            });
        }
        running.join_all().await;
    };
    let settled = async || {
        eventually("the pool is full, and nothing else is there", async || {
            let groups = leftovers::groups(engine.cgroup_name());
            let names: BTreeSet<_> = groups.iter().filter_map(|group| group.file_name()).collect();
            // Those of two spares, too.
            engine.blanks().await == Some(4) && children(launcher) == 4 + 2 && names.len() == 4 + 2
        })
        .await;
        (descriptors(launcher), resident(launcher))
    };
    some(300).await;
    let before = settled().await;
    some(soak_starts()).await;
    let after = settled().await;
    assert_eq!(engine.launcher_pid().await, Some(launcher), "the launcher died");
    // A group that the kernel still counts somebody in holds one for a moment more.
    eventually("no descriptor is left", async || descriptors(launcher) <= before.0).await;
    assert!(after.1 <= before.1 + 1024, "KiB: {before:?}, {after:?}");
    eventually("groups of jails that are gone are gone", async || {
        // Each of the four blanks and two spares has one in each of at most six hierarchies.
        leftovers::groups(engine.cgroup_name()).len() <= 6 * (4 + 2)
    })
    .await;
    engine.shutdown().await;
    assert_eq!(leftovers::groups(engine.cgroup_name()), Vec::<PathBuf>::new());
}
