//! What needs root, real engines and images of real packages. `cargo xtask test` installs and builds them; a test that
//! does not find them fails.

mod main_job;
mod readers;
mod syncs;
