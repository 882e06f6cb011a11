//! Stopping all of a jail at once, and letting it go on.
//!
//! In the unified tree a frozen process can still be killed; in the v1 freezer it could not.

use std::{fs, io};

use super::Place;

/// Asks the kernel to freeze a group. It is frozen when [`is_frozen`] says so.
pub fn freeze(place: &Place) -> io::Result<()> {
    write(place, "1")
}

/// Lets a group go on.
pub fn thaw(place: &Place) -> io::Result<()> {
    write(place, "0")
}

/// Whether every process of a group has stopped.
pub fn is_frozen(place: &Place) -> io::Result<bool> {
    let directory = place.freezer.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let events = fs::read_to_string(directory.join("cgroup.events"))?;
    Ok(events.lines().any(|line| line == "frozen 1"))
}

fn write(place: &Place, value: &str) -> io::Result<()> {
    let directory = place.freezer.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    fs::write(directory.join("cgroup.freeze"), value)
}
