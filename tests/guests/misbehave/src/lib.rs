//! A guest that misbehaves as its config says.
