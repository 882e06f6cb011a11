//! What a jail may reach, by name.
//!
//! A jail has no way out but the sockets its init hands us. Names it asks for get *stand-in*
//! addresses, if policy allows the name; a connection to such an address is a connection to that
//! name, whichever client made it. We look the name up, check what it resolves to, and dial the
//! address that was checked: there is no second look-up in which the answer could change.
//!
//! Nothing here sees a key.

mod address;
mod attempts;
mod client;
mod connect;
mod dial;
mod dns;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod host;
mod meter;
mod passages;
mod plain_http;
mod policy;
mod refusals;
mod relay;
mod standin;
mod tls;
mod tunnel;

pub use address::is_public;
pub use dial::{DialError, Dialler};
pub use gate::{Gate, GateConfig, PROXY_PORT};
pub use host::{HostName, HostNameError};
pub use meter::{Traffic, TrafficLimits};
pub use policy::{Policy, Protocol, Rule, RuleError};
pub use refusals::{Reason, Refused};
pub use relay::relay;
pub use standin::STAND_IN_PROXY;
