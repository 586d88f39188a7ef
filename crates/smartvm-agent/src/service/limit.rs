//! How many sessions there may be at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts sessions up to a maximum.
#[derive(Debug, Clone)]
pub struct Limit {
    running: Arc<AtomicUsize>,
    most: usize,
}

/// One session's place: given back on drop.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Limit {
    /// Allows `most` sessions at the same time.
    pub fn new(most: usize) -> Self {
        Self {
            running: Arc::default(),
            most,
        }
    }

    /// A place for one more session, if there is one.
    pub fn enter(&self) -> Option<Permit> {
        self.running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |running| {
                (running < self.most).then_some(running + 1)
            })
            .ok()
            .map(|_| Permit(Arc::clone(&self.running)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_session_has_ended() {
        let limit = Limit::new(2);
        let first = limit.enter().expect("the first place");
        let _second = limit.enter().expect("the second place");
        assert!(limit.enter().is_none());
        drop(first);
        assert!(limit.enter().is_some());
    }
}
