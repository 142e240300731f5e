//! Later in this file's life.
use crate::cli::Global;
use crate::error::CommandError;
use crate::ui::Ui;
/// X
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) async fn run(_: Args, _: &Global, _: &Ui) -> Result<u8, CommandError> {
    Ok(0)
}
