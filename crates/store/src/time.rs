//! Times in rows: microseconds since 1970. They sort as they are, in any database.

use jiff::Timestamp;

/// The present, as precise as a row keeps it: what is made now reads back the same.
pub fn now() -> Timestamp {
    timestamp(micros(Timestamp::now()))
}

pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// Times we stored are in range; one that is not was put there by another hand, and reads as 1970.
pub(crate) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}
