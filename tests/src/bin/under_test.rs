//! The gateway's own binary, under a name that tests of this package can find.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookmill::cli::run()
}
