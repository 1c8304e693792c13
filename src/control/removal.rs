//! Ends chosen flows.
//!
//! A worker chooses and ends in one step of its walk, so that what it says of a flow is what it was when it
//! ended. Concurrency: as in [`super::flows`].

use super::appliance::Appliance;
use super::filter::flows::Filter;
use super::flows::WorkerError;
use crate::conntrack::record::FlowRecord;
use crate::dataplane::walk::{Chosen, Work};
use std::ops::ControlFlow;
use std::sync::Arc;

impl Appliance {
    /// Ends every flow that `filter` means, and gives it to `sink` as it was, until that says break.
    ///
    /// # Errors
    /// If a worker does not answer; flows of those before it have ended then.
    pub fn end(
        &self,
        filter: &Filter,
        mut sink: impl FnMut(FlowRecord) -> ControlFlow<()>,
    ) -> Result<(), WorkerError> {
        let epoch = self.shared.clock.epoch_ms();
        let filter = filter.clone();
        let chosen = Chosen(Arc::new(move |flow: &FlowRecord| filter.matches(flow)));
        self.walk(&Work::Remove { chosen }, |piece| {
            let mut flows = piece.rows.iter();
            flows.try_for_each(|flow| sink(flow.record().dated(epoch)))
        })
    }
}
