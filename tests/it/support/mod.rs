//! What tests stand on: images, a registry, engines, and a place of their own for the command.

pub mod engine;
pub mod image;
pub mod registry;
pub mod sandbox;
