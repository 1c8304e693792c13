//! What a reload would change, before it does: rules, and the flows that would lose their verdict.
//!
//! Flows are judged piece by piece by the workers that own them, by a policy that is not in force;
//! nothing is changed. Concurrency: as listings; a reload meanwhile waits.

use super::appliance::{Appliance, ReloadError};
use super::flows::WorkerError;
use crate::conntrack::record::FlowRecord;
use crate::policy::{self, Change, Compiled, difference};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Flows that are shown one by one.
const SHOWN: usize = 100;

/// What would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffReport {
    /// Rules that differ.
    pub changes: Vec<Change>,
    /// What would take effect only after a restart.
    pub restart_needed: Vec<String>,
    /// Flows that the new policy would not let begin.
    pub flows_ending: u64,
    /// Flows of which that cannot be told without their first packet.
    pub flows_unsure: u64,
    /// The first of those that it would not let begin.
    pub flows: Vec<FlowRecord>,
    /// What is legal but looks wrong in the new policy.
    pub warnings: Value,
    /// The same, for people.
    pub warnings_text: String,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The new policy could not be put in force.
    #[error("{0}")]
    Policy(#[from] ReloadError),
    /// The flows could not be judged.
    #[error("{0}")]
    Worker(#[from] WorkerError),
}

impl DiffError {
    /// The diagnostics, as `check --format json` has them; `null` if the policy itself is valid.
    pub fn diagnostics(&self) -> Value {
        match self {
            Self::Policy(error) => error.diagnostics(),
            Self::Worker(_) => Value::Null,
        }
    }
}

impl Appliance {
    /// What putting the policy in the file at `path` in force would change.
    pub fn diff(&self, path: &Path) -> Result<DiffReport, DiffError> {
        let checked = policy::load(path).map_err(ReloadError::Policy)?;
        let restart_needed = self.restart_needed(&checked.model)?;
        let mut compiled = policy::compile(&checked.model, 0, 1);
        let changes = self.with_policy(|old, in_force| {
            compiled.follow(in_force).map_err(ReloadError::Timeouts)?;
            Ok::<_, ReloadError>(difference(old, &checked.model))
        })??;
        let compiled: Arc<Compiled> = Arc::new(compiled);
        let mut flows = Vec::new();
        let mut count = 0;
        let judged = self.judge(Some(compiled.clone()), false, |flow| {
            count += 1;
            if count <= SHOWN {
                flows.push(flow);
            }
            ControlFlow::Continue(())
        })?;
        Ok(DiffReport {
            changes,
            restart_needed,
            flows_ending: judged.ending,
            flows_unsure: judged.unsure,
            flows,
            warnings: checked.warnings_json(),
            warnings_text: checked.render_warnings(),
        })
    }
}
