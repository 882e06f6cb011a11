//! A root file system of the user's own, in place of the machine's system directories.

use std::os::fd::OwnedFd;

use rustix::mount::{mount_bind, mount_bind_recursive};

use super::house::move_in;
use crate::fault;
use crate::message::{At as _, Fault, IMAGE_DIRECTORIES, IMAGE_FILES};
use crate::template;

/// Where it stands until it is the root. Nobody needs the place before that.
const ASIDE: &str = "/opt/flavors";

/// Makes an image the root, with all that stands in the present one.
///
/// The stage comes along: a process whose root is the old one gets the new.
pub(super) fn enter(image: &OwnedFd) -> Result<(), Fault> {
    fault::inject("image")?;
    move_in(image, ASIDE)?;
    for name in IMAGE_DIRECTORIES.into_iter().filter(|name| !ASIDE.ends_with(name)) {
        mount_bind_recursive(format!("/{name}"), format!("{ASIDE}/{name}"))
            .at(format!("bring /{name} into the image"))?;
    }
    for name in IMAGE_FILES {
        mount_bind(format!("/{name}"), format!("{ASIDE}/{name}"))
            .at(format!("bring /{name} into the image"))?;
    }
    template::pivot(ASIDE)
}
