//! Images built from Debian packages by `fixtures/make-image.py`, once, under `target/fixtures`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder::digest::Digest;

use crate::packages;
use crate::run::{self, Message, Result};

/// One call of `make-image.py`: the folder's name, and the arguments.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    arguments: &'static [&'static str],
}

/// What the tests find under `LARDER_TEST_FIXTURES`; `<name>.json` holds the digests.
pub(crate) const SMALL: &[Fixture] = &[
    Fixture { name: "docker", arguments: &["--size", "small", "--media", "docker"] },
    Fixture { name: "docker-2", arguments: &["--size", "small", "--media", "docker", "--revision", "2"] },
    Fixture { name: "oci", arguments: &["--size", "small", "--media", "oci"] },
    Fixture { name: "oci-zstd", arguments: &["--size", "small", "--media", "oci", "--compress", "zstd"] },
];

/// What is measured: the size of a Kubernetes node image.
pub(crate) const FULL: Fixture = Fixture { name: "full", arguments: &["--size", "full", "--media", "docker"] };

/// The next revision of the same: 2 of 39 layers are new.
pub(crate) const FULL_NEXT: Fixture = Fixture { name: "full-2", arguments: &["--size", "full", "--media", "docker", "--revision", "2"] };

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    run::root().join("target/fixtures")
}

/// Builds those that are not there, or were built by another version of the script.
pub(crate) fn build(fixtures: &[Fixture]) -> Result {
    let script = run::root().join("fixtures/make-image.py");
    let text = fs::read(&script).map_err(|e| Message(format!("{}: {e}", script.display())))?;
    fs::create_dir_all(folder())?;
    for fixture in fixtures {
        let stamp = format!("{} {}", Digest::of(&text), fixture.arguments.join(" "));
        fixture.build(&script, &stamp)?;
    }
    Ok(())
}

impl Fixture {
    /// The OCI image layout.
    pub(crate) fn layout(&self) -> PathBuf {
        folder().join(self.name)
    }

    fn build(&self, script: &Path, stamp: &str) -> Result {
        let stamp_file = folder().join(format!("{}.stamp", self.name));
        if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
            return Ok(());
        }
        packages::require(&[packages::FIXTURES])?;
        eprintln!("building the image `{}` from Debian packages …", self.name);
        if self.layout().exists() {
            fs::remove_dir_all(self.layout())?;
        }
        let printed = run::read(
            Command::new("python3").arg(script).arg(self.layout()).args(self.arguments).env("MAKE_IMAGE_CACHE", folder().join("packages")),
        )?;
        let digests = printed.lines().last().unwrap_or_default();
        fs::write(folder().join(format!("{}.json", self.name)), digests)?;
        Ok(fs::write(stamp_file, stamp)?)
    }
}
