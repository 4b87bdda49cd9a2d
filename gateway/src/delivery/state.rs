//! Where a delivery stands.

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No attempt has been made yet.
    Pending,
    /// An attempt failed, and another is due.
    Retrying,
    /// Its plugins keep failing: it waits until they are replaced, reset, or found to work again.
    Held,
    /// Its webhook is disabled: it waits until that is enabled.
    Paused,
    /// The receiver took it.
    Delivered,
    /// Nothing is to be sent: a plugin decided so, or it failed and the webhook says so.
    Dropped,
    /// It failed for good.
    Dead,
    /// Somebody put an end to it.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Retrying,
        Self::Held,
        Self::Paused,
        Self::Delivered,
        Self::Dropped,
        Self::Dead,
        Self::Cancelled,
    ];

    /// Whether nothing more is to come.
    #[must_use]
    pub fn is_finished(self) -> bool {
        match self {
            Self::Pending | Self::Retrying | Self::Held | Self::Paused => false,
            Self::Delivered | Self::Dropped | Self::Dead | Self::Cancelled => true,
        }
    }

    /// The state's name in the API and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}
