//! Why a store could not do what it was asked, and what is the matter with it.

use std::fmt;
use std::sync::Arc;

/// Why a store could not do what it was asked. Nothing was kept, unless only the answer was lost.
#[derive(Debug, Clone)]
pub struct StoreError {
    message: Arc<str>,
    fault: Fault,
}

/// What is the matter with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has more to write than it can.
    Behind,
    /// There is no room left.
    Full,
    /// The disk fails to read or write.
    Disk,
    /// What it holds is damaged.
    Damaged,
    /// Another process uses it.
    InUse,
    /// Something else.
    Other,
}

impl StoreError {
    /// An error with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::of(Fault::Other, message)
    }

    /// An error of this kind.
    pub fn of(fault: Fault, message: impl fmt::Display) -> Self {
        Self { message: message.to_string().into(), fault }
    }

    /// What is the matter.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}
