//! Behaviour, over real files, a real registry on loopback and real engines.
#![expect(clippy::disallowed_methods, reason = "tests make files and run programs as a user would")]

mod arrows;
mod support;
