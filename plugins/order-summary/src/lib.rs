//! Reshapes an order into a short summary.
