//! Medians, ratios, and the page they are written on.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Sections of the report.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
}

/// One line of a section.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) times: Vec<Duration>,
}

impl Report {
    pub(crate) fn section(&mut self, title: &str, what: &str) {
        self.add(&format!("\n## {title}\n\n{what}\n"));
    }

    /// A table of medians, and the slowest of a hundred, each as a ratio to the first row's.
    pub(crate) fn times(&mut self, rows: &[Row]) {
        self.add("\n| | p50 | p99 | p50 × the first | p99 × the first |\n| --- | ---: | ---: | ---: | ---: |\n");
        let of_first =
            |percent| rows.first().map_or(0.0, |row| percentile(&row.times, percent).as_secs_f64());
        for row in rows {
            if row.times.is_empty() {
                self.add(&format!("| {} | not installed | | | |\n", row.name));
                continue;
            }
            let (p50, p99) = (percentile(&row.times, 50), percentile(&row.times, 99));
            let ratios = (p50.as_secs_f64() / of_first(50), p99.as_secs_f64() / of_first(99));
            self.add(&format!(
                "| {} | {} | {} | {:.2} | {:.2} |\n",
                row.name,
                ms(p50),
                ms(p99),
                ratios.0,
                ratios.1
            ));
        }
    }

    pub(crate) fn add(&mut self, text: &str) {
        drop(write!(std::io::stdout(), "{text}"));
        let _ = write!(self.text, "{text}");
    }

    /// Writes the page.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let page = format!(
            "# Benchmarks\n\nWritten by `cargo xtask bench`. Figures of one run on one machine; peers are measured in \
             the same run, in turns. Read the ratios.\n\nThe machine: {}.\n{}",
            machine(),
            self.text
        );
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
        Ok(std::fs::write(root.join("docs/benchmarks.md"), page)?)
    }
}

/// What it was measured on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let mut models = processors.lines().filter_map(|line| {
        line.strip_prefix("model name").map(|rest| rest.trim_start_matches([':', ' ', '\t']).trim())
    });
    let model = models.next().unwrap_or("an unknown processor").to_owned();
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.split(['-', '\n']).next().unwrap_or_default();
    let memory = read("/proc/meminfo");
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let gib = kib.unwrap_or_default().div_ceil(1 << 20);
    format!("{} × {model}, {gib} GiB, Linux {kernel}", models.count() + 1)
}

pub(crate) fn p50(times: &[Duration]) -> Duration {
    percentile(times, 50)
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
