//! A house to test in: the real program, started with a cleared environment, and a stand-in for the
//! model APIs on the far side of the internet.

pub mod cli;
pub mod git;
pub mod house;
pub mod inhabitant;
pub mod leftovers;
pub mod sandbox;
pub mod upstream;
pub mod user;

use std::path::PathBuf;

/// The real program, built beside the tests.
///
/// # Panics
///
/// If it is not there: `cargo xtask test` builds it first.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("a test knows its own program");
    let directory = tests.ancestors().nth(2).expect("tests are in target/<profile>/deps");
    let program = directory.join("agentjail");
    assert!(program.exists(), "{} is not built: run `cargo build -p agentjail`", program.display());
    program
}

/// The program built with the feature `mutations`, which can leave protections out.
///
/// # Panics
///
/// If it is not built.
pub fn mutations() -> PathBuf {
    let program = program().with_file_name("agentjail-mutations");
    assert!(program.exists(), "{} is not built: see `cargo xtask test`", program.display());
    program
}
