//! What both HTTP faces share: one notion of error, request bodies that say which field is wrong,
//! bodies that a thread writes, bodies that nobody reads, request ids, and a drain that ends.

mod error;
mod json;
pub mod linger;
pub mod produced;
mod request_id;
mod serve;

pub use error::{ApiError, Kind};
pub use json::{BODY_LIMIT, Json, JsonPair, Path, Query};
pub use request_id::{RequestId, with_request_id};
pub use serve::serve;
