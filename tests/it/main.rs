//! Behaviour, over real files, a real registry on loopback and real engines.
#![allow(unreachable_pub, dead_code, reason = "the support is shared with xtask, and each uses its part of it")]
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests make files, run programs and fail as they please")]

mod arrows;
mod command;
mod damage;
mod disks;
mod engines;
mod export;
mod faults;
mod import;
mod processes;
mod real;
mod registries;
mod shapes;
mod support;
mod upkeep;
mod upstream;
