//! The binary: everything is in the library, so that tests and benchmarks reach it too.

use std::process::ExitCode;

/// An event makes some hundred short-lived allocations, many of them freed by another thread than the one
/// that made them, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookmill::cli::run()
}
