//! What the tests work with.

pub mod registry;
