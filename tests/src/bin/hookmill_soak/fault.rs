//! What can go wrong.

use std::fmt;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The gateway dies, and is started again.
    Kill,
    /// It is told to stop, and is started again.
    Terminate,
    /// It stands still for a while, as on a machine that swaps.
    Freeze,
    /// The receiver answers 500 for a while.
    Failing,
    /// It takes its time for a while.
    Slow,
    /// A plugin gets a new version.
    Replace,
    /// A plugin's file is half written, and then whole.
    Torn,
    /// A plugin gets a version that traps, and then one that works.
    Trapping,
    /// The configuration changes.
    Configure,
    /// It is broken for a while.
    Misconfigure,
}

impl Fault {
    pub(crate) const ALL: [Self; 10] = [
        Self::Kill,
        Self::Terminate,
        Self::Freeze,
        Self::Failing,
        Self::Slow,
        Self::Replace,
        Self::Torn,
        Self::Trapping,
        Self::Configure,
        Self::Misconfigure,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
            Self::Freeze => "SIGSTOP",
            Self::Failing => "failing receiver",
            Self::Slow => "slow receiver",
            Self::Replace => "new plugin",
            Self::Torn => "torn plugin file",
            Self::Trapping => "trapping plugin",
            Self::Configure => "new configuration",
            Self::Misconfigure => "broken configuration",
        })
    }
}
