//! What is lent to a jail, and given back when nothing of the jail is left.

use std::fmt::Debug;

/// Values whose drop gives them back.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<Box<dyn Lent>>);

/// Anything that can be kept.
trait Lent: Debug + Send + Sync {}

impl<T: Debug + Send + Sync> Lent for T {}

impl Held {
    pub(crate) fn keep(&mut self, value: impl Debug + Send + Sync + 'static) {
        self.0.push(Box::new(value));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
