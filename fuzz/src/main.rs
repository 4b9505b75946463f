//! libFuzzer around the targets of `larder::fuzzing`; `cargo xtask fuzz` builds and runs it.
//!
//! One program for all targets, since the library is what takes long to build. `LARDER_FUZZ_TARGET` names the one.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
static TARGET: std::sync::LazyLock<fn(&[u8])> = std::sync::LazyLock::new(|| {
    let name = std::env::var("LARDER_FUZZ_TARGET").expect("LARDER_FUZZ_TARGET names the target");
    larder::fuzzing::target(&name).expect("there is a target of this name")
});

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("this is built and run by `cargo xtask fuzz`");
    std::process::exit(2);
}
