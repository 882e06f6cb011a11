//! Connections that are open, so that those a new policy does not allow can be cut.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::gate::Target;

/// All of one jail.
#[derive(Debug, Default)]
pub(crate) struct Passages(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, (Target, u16, CancellationToken)>,
}

/// One open connection. Dropping it says that it is closed.
#[derive(Debug)]
pub(crate) struct Passage {
    all: Arc<Mutex<Open>>,
    number: u64,
    cut: CancellationToken,
}

impl Passages {
    pub(crate) fn open(&self, target: &Target, port: u16) -> Passage {
        let cut = CancellationToken::new();
        let mut open = lock(&self.0);
        let number = open.next;
        open.next += 1;
        open.all.insert(number, (target.clone(), port, cut.clone()));
        Passage { all: Arc::clone(&self.0), number, cut }
    }

    /// Cuts what is not allowed any more; gives how many.
    pub(crate) fn cut(&self, allowed: impl Fn(&Target, u16) -> bool) -> usize {
        let open = lock(&self.0);
        let refused = open.all.values().filter(|(target, port, _)| !allowed(target, *port));
        refused.map(|(_, _, cut)| cut.cancel()).count()
    }
}

impl Passage {
    /// Completes when the connection must go.
    pub(crate) fn is_cut(&self) -> impl Future<Output = ()> + use<> {
        self.cut.clone().cancelled_owned()
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        lock(&self.all).all.remove(&self.number);
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
