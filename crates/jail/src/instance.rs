//! Names for the cgroups of one launcher, such that a later start knows which are abandoned.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// Engines this process has started.
static ENGINES: AtomicU32 = AtomicU32::new(0);

/// `<pid namespace>-<pid>-<start time>-<number>` of this process and one of its engines: never the
/// same twice on a machine.
pub(crate) fn name() -> String {
    let pid = std::process::id();
    let number = ENGINES.fetch_add(1, Ordering::Relaxed);
    format!("{}-{pid}-{}-{number}", pid_namespace(), start_time(pid).unwrap_or_default())
}

/// Whether the process that an instance is named after still runs, as far as we can know: one of
/// another PID namespace is not ours to judge.
pub(crate) fn is_alive(instance: &str) -> bool {
    let mut parts = instance.split('-');
    let (Some(namespace), Some(pid), Some(started)) = (parts.next(), parts.next(), parts.next())
    else {
        return true;
    };
    if namespace != pid_namespace() {
        return true;
    }
    let Ok(pid) = pid.parse() else { return true };
    match start_time(pid) {
        Ok(start) => start == started,
        // Whatever else went wrong with looking is no proof of its death.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// In clock ticks since boot; field 22 of `/proc/<pid>/stat`.
fn start_time(pid: u32) -> io::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, field 2, may itself hold spaces and parentheses: count from its end.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    // Dead, and not yet reaped by a parent that takes its time.
    if fields.is_some_and(|fields| fields.starts_with(['Z', 'X'])) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let start = fields.and_then(|fields| fields.split_whitespace().nth(19));
    start.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_nobody_else_is_mistaken_for_us() {
        assert!(is_alive(&name()));
        assert_ne!(name(), name());
        let pid = std::process::id();
        assert!(!is_alive(&format!("{}-{pid}-1-0", pid_namespace())));
        assert!(!is_alive(&format!("{}-4194304000-7-0", pid_namespace())));
        assert!(is_alive("1-2-3-0"), "another namespace's");
        assert!(is_alive("server"), "not an instance");
    }
}
