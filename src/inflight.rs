//! One operation at a time per object.
//!
//! The CSI specification ("Concurrency") lets a plugin answer ABORTED where an operation for the same volume is pending;
//! then nobody else's steps can come between two of ours.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What is being worked on.
#[derive(Clone, Default)]
pub struct InFlight {
    objects: Arc<Mutex<HashSet<String>>>,
}

/// The right to work on one object, given back when dropped.
pub struct Guard {
    objects: Arc<Mutex<HashSet<String>>>,
    object: String,
}

impl InFlight {
    /// Takes `object` for one operation; `None` where another has it.
    pub fn enter(&self, object: impl Into<String>) -> Option<Guard> {
        let object = object.into();
        let entered = self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(object.clone());
        entered.then(|| Guard { objects: Arc::clone(&self.objects), object })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.object);
    }
}

#[cfg(test)]
mod tests {
    use super::InFlight;

    #[test]
    fn one_object_is_entered_once_until_it_is_left() {
        let inflight = InFlight::default();
        let guard = inflight.enter("a");
        assert!(guard.is_some() && inflight.enter("a").is_none() && inflight.enter("b").is_some());
        drop(guard);
        assert!(inflight.enter("a").is_some());
    }
}
