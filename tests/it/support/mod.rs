//! What tests stand on: images, a registry, engines, file systems, and a place of their own for the command.

pub mod damage;
pub mod engine;
pub mod image;
pub mod mount;
pub mod registry;
pub mod rootless;
pub mod sandbox;
pub mod scene;
pub mod servers;
pub mod sink;
pub mod ssh;
pub mod tarball;
pub mod way;
pub mod world;

/// Runs a program to its end; what it prints. It has to succeed.
pub fn run(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: `cargo xtask test` installs what tests need"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
