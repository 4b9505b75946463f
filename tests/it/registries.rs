//! Registries as they are, with the settings that people have: real servers, and the command as a person runs it.

mod docker;
mod real;
mod settings;
