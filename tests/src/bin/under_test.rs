//! The gateway's own binary, under a name that tests of this package can find, and with failpoints: the variable
//! `FAILPOINT` says where the process is to die.

use std::process::ExitCode;

use hookmill::failpoint;

fn main() -> ExitCode {
    if let Ok(text) = std::env::var("FAILPOINT") {
        let Some(plan) = failpoint::Plan::parse(&text) else {
            return ExitCode::FAILURE;
        };
        failpoint::arm(plan);
    }
    hookmill::cli::run()
}
