//! Which hierarchies are mounted, and which group of each is ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{PARENT, SERVER};

/// Our own group in each hierarchy, as a path of the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// By controller.
    pub(super) v1: BTreeMap<String, PathBuf>,
    pub(super) v2: Option<PathBuf>,
}

pub(super) fn read(root: &Path) -> io::Result<Layout> {
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo"))?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup"))?;
    Ok(parse(&mounts, &groups, root))
}

/// Where a path of the host is seen from here.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn parse(mounts: &str, groups: &str, root: &Path) -> Layout {
    let mut layout = Layout::default();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let Some(point) = mount.point_on_host(root) else { continue };
        for (controllers, group) in groups.lines().filter_map(own_group) {
            let Ok(rest) = group.strip_prefix(mount.root) else { continue };
            let own = if rest.as_os_str().is_empty() { point.clone() } else { point.join(rest) };
            if controllers.is_empty() && mount.kind == "cgroup2" {
                layout.v2.get_or_insert(before_moving(own));
                continue;
            }
            for controller in controllers.split(',').filter(|name| !name.starts_with("name=")) {
                if mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controller) {
                    layout.v1.entry(controller.to_owned()).or_insert_with(|| own.clone());
                }
            }
        }
    }
    layout
}

/// The group we were started in, also if an engine of this process has moved us into a leaf below it.
fn before_moving(own: PathBuf) -> PathBuf {
    let leaf = Path::new(PARENT).join(SERVER);
    match own.ancestors().nth(2) {
        Some(origin) if own.ends_with(leaf) => origin.to_owned(),
        _ => own,
    }
}

/// A line of `/proc/self/cgroup`: `4:memory:/user.slice`.
fn own_group(line: &str) -> Option<(&str, &Path)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    Some((controllers, Path::new(path)))
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'line> {
    root: &'line Path,
    point: &'line Path,
    kind: &'line str,
    options: &'line str,
}

impl<'line> Mount<'line> {
    fn parse(line: &'line str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?;
        Some(Self { root: Path::new(root), point: Path::new(point), kind, options })
    }

    /// The mount point as the host names it, if it lies below `root`.
    fn point_on_host(&self, root: &Path) -> Option<PathBuf> {
        Some(Path::new("/").join(self.point.strip_prefix(root).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_layout_has_both() {
        let groups = "9:name=systemd:/x\n4:memory:/box/1\n2:cpu,cpuacct:/\n0::/\n";
        let layout = parse(HYBRID, groups, Path::new("/"));
        assert_eq!(layout.v1["memory"], Path::new("/sys/fs/cgroup/memory/box/1"));
        assert_eq!(layout.v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(layout.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_container_sees_its_own_part_only() {
        let mounts = "35 31 0:32 /docker/c1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let layout = parse(mounts, "0::/docker/c1/job\n", Path::new("/"));
        assert_eq!(layout.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/job")));
    }

    #[test]
    fn the_host_may_be_seen_below_another_root() {
        let mounts = "35 31 0:32 / /host/sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let layout = parse(mounts, "0::/a\n", Path::new("/host"));
        assert_eq!(layout.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/a")));
        assert_eq!(below(Path::new("/host"), Path::new("/sys/x")), Path::new("/host/sys/x"));
    }
}
