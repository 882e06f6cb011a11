//! `agentjail doctor --attack`: the checklist of `docs/security/checklist.md`, made on the user's own
//! machine.
//!
//! ```text
//!   outside: for each line ─▶ a jail ─▶ inside: this very program, as `attempt LINE`
//!              │ what the host looks like after     │ what happened, in a word
//!              └──────────▶ holds · broken · not shown ◀─┘
//! ```
//!
//! The program attacks with itself, so nothing has to be installed to do it.

#![expect(clippy::disallowed_methods, reason = "an attempt starts processes, in a jail")]

mod files;
mod inside;
mod outside;
mod processes;
mod table;

use std::io::Write as _;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

pub(crate) use inside::attempt;

/// What an attack found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "found", rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// The attempt was made, and refused.
    Holds(String),
    /// The attempt succeeded.
    Broken(String),
    /// It could not be made here; this is no statement about the protection.
    NotShown(String),
}

/// One line of the checklist and what became of it.
#[derive(Debug, Serialize)]
struct Finding {
    line: &'static str,
    attack: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Runs the suite, or single lines of it.
pub(crate) fn run(only: &[String], without: Vec<String>, json: bool) -> anyhow::Result<ExitCode> {
    for line in only {
        anyhow::ensure!(
            table::LINES.iter().any(|known| known.name.eq_ignore_ascii_case(line)),
            "--only {line}: there is no such line; see `agentjail doctor --attack`"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let findings = runtime.block_on(outside::attack(only, without))?;
    runtime.shutdown_background();
    let broken = findings.iter().any(|finding| matches!(finding.verdict, Verdict::Broken(_)));
    let count = |is: fn(&Verdict) -> bool| findings.iter().filter(|f| is(&f.verdict)).count();
    let holds = count(|verdict| matches!(verdict, Verdict::Holds(_)));
    let not_shown = count(|verdict| matches!(verdict, Verdict::NotShown(_)));
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", serde_json::json!({ "holds": !broken, "findings": findings }))?;
    } else {
        for Finding { line, attack, verdict } in &findings {
            let (mark, found) = match verdict {
                Verdict::Holds(found) => ("holds    ", found),
                Verdict::Broken(found) => ("BROKEN   ", found),
                Verdict::NotShown(found) => ("not shown", found),
            };
            writeln!(out, "{line:<4} {mark}  {attack}: {found}")?;
        }
        let broken = findings.len() - holds - not_shown;
        writeln!(out, "\n{holds} hold, {broken} broken, {not_shown} could not be shown here")?;
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
