//! Making a step fail, to see what is left behind.
//!
//! Only a build with the feature `mutations` can: the name of a step among the protections that are
//! left out, as `fail:STEP`, makes that step fail with `EIO`.

use crate::message::Fault;

/// The steps between a request and its command's `exec` that can be made to fail.
pub const STEPS: [&str; 18] = [
    "clone", "cgroup", "form", "limits", "tree", "assign", "user", "proc", "mounts", "network",
    "join", "confine", "filter", "attach", "image", "layers", "landlock", "report",
];

#[cfg(feature = "mutations")]
pub(crate) fn inject(step: &str) -> Result<(), Fault> {
    if mutation::fails(step) {
        return Err(Fault {
            step: format!("{step} (made to fail)"),
            errno: rustix::io::Errno::IO.raw_os_error(),
        });
    }
    Ok(())
}

#[cfg(not(feature = "mutations"))]
#[expect(clippy::unnecessary_wraps, reason = "what a build for tests makes of it can fail")]
pub(crate) const fn inject(_: &str) -> Result<(), Fault> {
    Ok(())
}
