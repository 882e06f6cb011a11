//! cgroup v2: what only a machine with all controllers on the unified tree can show. Run in a guest by
//! `cargo xtask vm-test`, which has one.

use jail::{Exit, Jail, Pool};

use super::{engine, run, sh};

const WHY: &str = "needs cgroup v2: cargo xtask vm-test";

#[tokio::test]
#[ignore = "needs cgroup v2: cargo xtask vm-test"]
async fn the_driver_is_v2_with_every_controller() {
    let engine = engine(Pool::NONE).await;
    let offers = engine.offers();
    assert_eq!(offers.cgroups.as_deref(), Ok("v2"), "{WHY}");
    assert!(offers.memory && offers.cpu && offers.pids && offers.io);
    let running = Jail::idle().spawn(&engine).await.unwrap();
    for name in ["memory", "cpu", "pids"] {
        assert!(running.enforced.iter().any(|enforced| enforced == name), "{name}");
    }
    engine.shutdown().await;
}

/// The kernel ends the whole group by itself: the launcher has no part in it.
#[tokio::test]
#[ignore = "needs cgroup v2: cargo xtask vm-test"]
async fn out_of_memory_ends_the_group_and_is_told() {
    let engine = engine(Pool::NONE).await;
    let bomb = "head -c 200m /dev/zero | tail -c 190m | sleep 1000 & sleep 3232";
    let (_, outcome) = run(&engine, sh(bomb).memory_bytes(48 << 20)).await;
    assert!(outcome.oom_killed, "{outcome:?}");
    assert_eq!(outcome.exit, Exit::Signal(9));
    let used = outcome.statistics.unwrap();
    assert!((40 << 20..=48 << 20).contains(&used.memory_peak_bytes), "{used:?}");
    engine.shutdown().await;
}

#[tokio::test]
#[ignore = "needs cgroup v2: cargo xtask vm-test"]
async fn no_process_of_a_jail_is_left_in_its_group_and_no_group_in_the_tree() {
    let engine = engine(Pool { size: 2, spares: 2, reserve_bytes: 0 }).await;
    for _ in 0..5 {
        run(&engine, sh("sleep 1000 & sleep 1000 & true")).await;
    }
    engine.shutdown().await;
    assert!(e2e::leftovers::groups(engine.cgroup_name()).is_empty());
}
