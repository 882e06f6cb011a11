//! Names for the cgroups of one launcher, such that a later start knows which are abandoned.

use std::fs;

/// `<pid namespace>-<pid>-<start time>` of this process: never the same twice on a machine.
pub(crate) fn name() -> String {
    let pid = std::process::id();
    format!("{}-{pid}-{}", pid_namespace(), start_time(pid).unwrap_or_default())
}

/// Whether the process that an instance is named after still runs, as far as we can know: one of
/// another PID namespace is not ours to judge.
pub(crate) fn is_alive(instance: &str) -> bool {
    let mut parts = instance.splitn(3, '-');
    let (Some(namespace), Some(pid), Some(started)) = (parts.next(), parts.next(), parts.next())
    else {
        return true;
    };
    if namespace != pid_namespace() {
        return true;
    }
    pid.parse().ok().and_then(start_time).is_some_and(|start| start.to_string() == started)
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// In clock ticks since boot; field 22 of `/proc/<pid>/stat`.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may itself hold spaces and parentheses: count from its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_nobody_else_is_mistaken_for_us() {
        assert!(is_alive(&name()));
        let (rest, _) = name().rsplit_once('-').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(!is_alive(&format!("{rest}-1")));
        assert!(!is_alive(&format!("{}-4194304000-7", pid_namespace())));
        assert!(is_alive("1-2-3"), "another namespace's");
        assert!(is_alive("server"), "not an instance");
    }
}
