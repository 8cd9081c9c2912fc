//! Faults on demand: makes the n-th mutating call of a writer fail in a chosen way.
//!
//! Owns: the plan and the count of calls. Both implementations ask it before they write, so one
//! suite can put a fault into every call of a history. A store that runs for real carries an empty
//! plan, which costs one lock per commit. Elsewhere: what the answers mean (the seam, [`super`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// What happens to the call that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, the answer says so and the writer lives on.
    NotApplied,
    /// It is written, but the answer is in doubt and the writer is dead.
    DoubtfulApplied,
    /// It is not written, the answer is in doubt and the writer is dead.
    DoubtfulLost,
}

/// A plan of faults, shared between a test and the writers it opens.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    at: BTreeMap<u64, Fault>,
}

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Lets the call `ahead` calls from now fail: 0 is the next one.
    pub fn plan(&self, ahead: u64, fault: Fault) {
        let mut plan = self.plan.lock();
        let call = plan.calls.saturating_add(ahead);
        plan.at.insert(call, fault);
    }

    /// Mutating calls counted so far, over all writers that share the plan.
    pub fn calls(&self) -> u64 {
        self.plan.lock().calls
    }

    /// Counts a call; what shall happen to it.
    pub(super) fn next(&self) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let call = plan.calls;
        plan.calls = call.saturating_add(1);
        plan.at.remove(&call)
    }
}
