//! Options of `doctor`.

use std::path::PathBuf;

/// Options of `doctor`. Exit code 0 if nothing failed, though there may be warnings; 1 if something did.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DoctorArgs {
    /// The policy whose ports, cores and memory this box must have; without it, what the box has is
    /// looked at in general.
    #[arg(short, long, value_name = "POLICY")]
    pub config: Option<PathBuf>,
    /// The same as --format json.
    #[arg(long)]
    pub json: bool,
    /// Look at the files below this folder instead of the box's own: a copy of another box's /sys, /proc,
    /// /etc and so on.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub root: PathBuf,
}
