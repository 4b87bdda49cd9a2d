//! `cargo xtask bench`: what a plugin call costs, and what the whole gateway carries.
use crate::arguments::Arguments;
use anyhow::Result;
pub(crate) fn run(_arguments: Arguments) -> Result<()> {
    Ok(())
}
