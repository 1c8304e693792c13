//! RCU, quiescent-state based.
