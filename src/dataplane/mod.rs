//! Port I/O behind a trait, the worker loop, steering and hand-off.
pub mod io;
