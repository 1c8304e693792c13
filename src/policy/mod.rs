//! The policy: model, checking, compiling, evaluating.

/// A port of the policy, by its place in `ports:`; index into every per-port array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId(pub u8);

/// Most ports that one box can have.
pub const MAX_PORTS: usize = 64;
