//! Into a workspace over HTTP: by host name, on a listener of its own; and under the API, as previews.

mod forward;
mod listener;
mod preview;

pub(crate) use forward::{ForwardError, Forwarder, ForwarderParts};
pub(crate) use listener::serve;
pub(crate) use preview::{__path_preview, leave_origin, preview, preview_top};
