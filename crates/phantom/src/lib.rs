//! The phantom proxy: a phantom token comes in, the real key goes out, every decision is written
//! down.
//!
//! ```text
//!   request ─▶ path? ─▶ token known? ─▶ service? ─▶ in scope? ─▶ key there? ─▶ upstream ─▶ response
//!               404        401          404, 403       403          502           502        as is
//! ```
//!
//! A refused request never reaches the upstream. Bodies stream both ways and are never held whole.
//! A token is only ever compared by its keyed hash, and a key is opened for the one request it is
//! put into.

mod book;
mod exchange;
mod forward;
mod headers;
mod journal;
mod path;
mod presented;
mod provider;
mod scope;
mod serve;
mod upstream;

pub use book::{Book, Grant, LoadError, sealing_place};
pub use headers::strip_hop_by_hop;
pub use journal::Journal;
pub use provider::{Injection, Provider, ProviderError, Providers};
pub use scope::{Scope, ScopeError};
pub use serve::{Config, Door, Proxy, StartError};
pub use upstream::{TlsError, client_tls};
