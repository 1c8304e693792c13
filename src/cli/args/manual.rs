//! Options of `manual`.

use std::path::PathBuf;

/// Options of `manual`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManualArgs {
    /// Where to write: manual pages into its folder `man`, completions into `completions`.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}
