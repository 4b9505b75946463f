//! What the fuzzers try: one function for each reader of what comes from outside.
//!
//! A target takes any bytes and panics where a reader does not keep what it promises. `cargo xtask fuzz` looks for such
//! bytes; the seeds, `fuzz/seeds/TARGET/`, are tried by the unit tests too, so that what was found once stays mended.
//! A target for what is private stands in a file `fuzzing.rs` of its room. None of this is in a usual build.

mod documents;
mod names;

/// A target: its name, which is that of its folder of seeds, and what it tries.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[&[Target]] = &[names::TARGETS, documents::TARGETS, crate::upstream::fuzzing::TARGETS, crate::import::fuzzing::TARGETS];

/// The target of this name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().copied().flatten().find(|(known, _)| *known == name).map(|(_, try_it)| *try_it)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_has_seeds_and_stands_them() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let folders = fs::read_dir(&seeds).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        let names = TARGETS.iter().copied().flatten().map(|(name, _)| (*name).to_owned());
        assert_eq!(folders.collect::<BTreeSet<_>>(), names.collect());
        for (name, try_it) in TARGETS.iter().copied().flatten() {
            let files: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().map(|f| f.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name} has seeds");
            for file in files {
                eprintln!("{}", file.display());
                let seed = fs::read(&file).unwrap();
                try_it(&seed);
                // What is cut or flipped is as likely as what is whole.
                try_it(&seed[..seed.len() / 2]);
                let flipped: Vec<u8> = seed.iter().enumerate().map(|(at, b)| if at == seed.len() / 3 { b ^ 1 } else { *b }).collect();
                try_it(&flipped);
            }
        }
    }
}
