//! Debian's registry, nginx and proxies, which need root and have to be installed.

mod credentials;
mod limits;
mod mirrors;
mod proxies;
mod push;
mod referrers;
mod tls;
mod token;

use crate::support::image::Recipe;
use crate::support::sandbox::{Output, Sandbox};
use crate::support::servers::Images;

fn images() -> Images {
    Images::push(&Recipe::default())
}

/// Pulls into the store alone.
fn pull(sandbox: &Sandbox, reference: &str, more: &[&str]) -> Output {
    let pull = ["pull", "--engine", "none", "--platform", "linux/amd64", "--json", "--verbose", reference];
    let tries: &[&str] = if more.contains(&"--tries") { &[] } else { &["--tries", "2"] };
    sandbox.run(pull.iter().chain(tries).chain(more))
}

/// Nothing that was printed holds the password.
fn discreet(output: Output) -> Output {
    for secret in ["s3cret", "YWxpY2U6czNjcmV0", "wr0ng", "1dentity"] {
        assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret), "{secret} in\n{output}");
    }
    output
}

/// Writes a file of the sandbox, with the folders on its way.
fn write(path: &std::path::Path, text: impl AsRef<str>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text.as_ref()).unwrap();
}
