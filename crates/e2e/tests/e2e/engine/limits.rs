//! Limits, statistics, freezing.

use std::time::{Duration, Instant};

use jail::{Exit, Jail, Pool, Running};

use super::{engine, run, sh};

#[tokio::test]
async fn f11_when_memory_runs_out_the_whole_jail_goes() {
    let engine = engine(Pool::NONE).await;
    // The bomb is a child: its parent would live on, and with it the jail.
    let bomb = "python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 20))' & sleep 3131";
    let began = Instant::now();
    let (_, outcome) = run(&engine, sh(bomb).memory_bytes(64 << 20)).await;
    assert!(outcome.oom_killed, "{outcome:?}");
    assert_eq!(outcome.exit, Exit::Signal(9));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(outcome.statistics.unwrap().memory_peak_bytes <= 64 << 20);
    engine.shutdown().await;
}

#[tokio::test]
async fn processor_time_is_limited_for_all_together() {
    let engine = engine(Pool::NONE).await;
    let burn = "for n in 1 2 3; do (while :; do :; done) & done; wait";
    let jail = sh(burn).cpu_percent(400).cpu_time(Some(Duration::from_millis(600)));
    let (_, outcome) = run(&engine, jail).await;
    assert!(outcome.cpu_exhausted && !outcome.timed_out, "{outcome:?}");
    let used = outcome.statistics.unwrap();
    assert!((550_000..1_500_000).contains(&used.cpu_usage_usec), "{used:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn statistics_tell_user_from_system_time() {
    let engine = engine(Pool::NONE).await;
    let (_, outcome) = run(&engine, sh("n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done")).await;
    let used = outcome.statistics.unwrap();
    assert!(used.cpu_user_usec > used.cpu_system_usec, "{used:?}");
    assert_eq!(used.cpu_user_usec + used.cpu_system_usec, used.cpu_usage_usec);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_quota_is_in_force() {
    let engine = engine(Pool::NONE).await;
    // The share of a processor that it gets; a busy machine makes it smaller, never larger.
    let script = "n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done";
    let limits = jail::Limits { cpu_percent: 20, ..Jail::idle().build().limits };
    let (_, outcome) = run(&engine, sh(script).limits(limits)).await;
    let used = Duration::from_micros(outcome.statistics.unwrap().cpu_usage_usec);
    assert!(used > Duration::from_millis(200), "too little to tell: {used:?}");
    assert!(used * 5 / 2 < outcome.duration, "{used:?} of {:?} at 20 %", outcome.duration);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_frozen_jail_stands_still_and_can_be_killed() {
    let engine = engine(Pool::NONE).await;
    let Running { mut jail, .. } =
        sh("while :; do :; done").cpu_percent(50).spawn(&engine).await.unwrap();
    jail.freeze().await.unwrap();
    let before = jail.statistics().cpu_usage_usec;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(jail.statistics().cpu_usage_usec, before);
    jail.thaw().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(jail.statistics().cpu_usage_usec > before);
    jail.freeze().await.unwrap();
    jail.kill();
    tokio::time::timeout(Duration::from_secs(5), jail.gone()).await.expect("it is gone");
    assert_eq!(jail.end().await, Exit::Signal(9));
    engine.shutdown().await;
}

#[tokio::test]
async fn c08_what_is_written_to_a_fresh_tree_is_limited_in_bytes_and_files() {
    let engine = engine(Pool::NONE).await;
    let fill = "head -c 9000000 /dev/zero > /output/big; ls -l /output/big | awk '{print $5}'; rm /output/big; \
        n=0; while echo > /output/$n; do n=$((n+1)); done; echo $n; df --output=size -B1 /tmp | tail -1";
    let tree = jail::Tree::Fresh { bytes: 4 << 20, access: jail::Access::ReadWrite };
    let limits = jail::Limits { tmp_bytes: 2 << 20, ..Jail::idle().build().limits };
    let (said, _) =
        run(&engine, sh(&format!("exec 2>/dev/null; {fill}")).output(tree).limits(limits)).await;
    let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!((numbers[0], numbers[2]), (4 << 20, 2 << 20), "{said}");
    assert!((900..=1024).contains(&numbers[1]), "{said}");
    engine.shutdown().await;
}

/// A directory on a disk: in the guest of `cargo xtask vm-test` that is `/mnt`.
fn on_a_disk() -> tempfile::TempDir {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let in_the_guest = mounts.lines().any(|line| line.starts_with("/dev/vda /mnt ext4"));
    let parent = if in_the_guest { "/mnt" } else { env!("CARGO_TARGET_TMPDIR") };
    let directory = tempfile::tempdir_in(parent).unwrap();
    e2e::cli::open_to_all(directory.path());
    directory
}

#[tokio::test]
async fn what_is_written_to_a_disk_is_slowed_and_counted() {
    let engine = engine(Pool::NONE).await;
    let directory = on_a_disk();
    let write = "dd if=/dev/zero of=/workspace/file bs=1M count=4 oflag=direct 2>&1 | tail -1";
    let mut times = Vec::new();
    // The slow one first: cgroup v1 of recent kernels counts nothing on a disk before a rate was set on it once.
    for limit in [Some(1 << 20), None] {
        let limits = jail::Limits { io_bytes_per_second: limit, ..Jail::idle().build().limits };
        let jail =
            sh(write).workspace_directory(directory.path(), jail::Access::ReadWrite).limits(limits);
        let began = Instant::now();
        let (said, outcome) = run(&engine, jail).await;
        assert_eq!(outcome.exit_code(), 0, "{said}");
        assert!(outcome.statistics.unwrap().io_write_bytes >= 4 << 20, "{outcome:?}");
        times.push(began.elapsed());
    }
    assert!(times[0] > Duration::from_secs(3) && times[0] > times[1] * 2, "{times:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_weight_is_what_the_kernel_is_told() {
    let engine = engine(Pool::NONE).await;
    let limits = jail::Limits { cpu_weight: Some(10), ..Jail::idle().build().limits };
    let _running = Jail::idle().limits(limits).spawn(&engine).await.unwrap();
    let told: Vec<String> = e2e::leftovers::groups(engine.cgroup_name())
        .iter()
        .filter_map(|group| {
            let v2 = std::fs::read_to_string(group.join("cpu.weight"));
            v2.or_else(|_| std::fs::read_to_string(group.join("cpu.shares"))).ok()
        })
        .map(|text| text.trim().to_owned())
        .collect();
    // Shares are 1024 for a weight of 100.
    assert!(told == ["10"] || told == ["102"], "{told:?}");
    engine.shutdown().await;
}
