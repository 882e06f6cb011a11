//! `cargo xtask fuzz [SECONDS]`: coverage-guided, on stable, with libFuzzer.

use crate::{command, root, run, say, target};

const TARGETS: [&str; 6] =
    ["dns", "client_hello", "http_head", "launcher_message", "policy", "packet"];

/// LLVM's pass names, which no release of Rust promises to keep: they are here and nowhere else.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1";

/// With a target named, build scripts stay as they are.
const HERE: &str = "x86_64-unknown-linux-gnu";

/// How long to go on with a target.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    /// From what was found before, and at random.
    Seconds(u64),
    /// From nothing and the same seed, so that the same program gives the same answer every time.
    Runs(u64),
}

/// Runs each target for a while. A crash leaves its input in `target/fuzz/artifacts`.
pub(crate) fn fuzz(length: Length) -> anyhow::Result<()> {
    let directory = root().join("fuzz");
    let built = target().join("fuzz");
    let mut build = command("cargo");
    build.args(["build", "--release", "--locked", "--target", HERE]).current_dir(&directory);
    build.env("RUSTFLAGS", INSTRUMENTATION).env("CARGO_TARGET_DIR", &built);
    build.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    run(&mut build)?;
    for name in TARGETS {
        say(&format!("fuzzing {name}: {length:?}"));
        let corpus = built.join("corpus").join(name);
        let artifacts = built.join("artifacts");
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&artifacts)?;
        let mut fuzzer = command(built.join(HERE).join("release").join(name));
        match length {
            Length::Seconds(seconds) => {
                fuzzer.arg(&corpus).arg(format!("-max_total_time={seconds}"));
            }
            Length::Runs(runs) => {
                fuzzer.arg(format!("-runs={runs}")).arg("-seed=1");
            }
        }
        fuzzer.arg(format!("-artifact_prefix={}/{name}-", artifacts.display()));
        fuzzer.args(["-timeout=10", "-rss_limit_mb=1024", "-verbosity=0", "-print_final_stats=1"]);
        run(&mut fuzzer)?;
    }
    Ok(())
}
