//! Files of images.

use larder::import::{ImportError, TarError};
use larder::oci::Platform;

use super::{Exit, Failure, sized};

impl From<&ImportError> for Failure {
    fn from(error: &ImportError) -> Failure {
        use ImportError as E;
        let message = error.to_string();
        let failed = |code| Failure::new(Exit::Failed, code, message.clone());
        let wrong = |code| Failure::new(Exit::NotPinned, code, message.clone());
        let again = "get the file again from where it came; nothing of it was kept";
        match error {
            E::Tar(TarError::Read { .. }) | E::Read { .. } => failed("unreadable").because(error),
            E::Tar(TarError::NotTar) => failed("not-an-archive").with(
                "expected",
                "an archive of docker, podman or another tool, an OCI layout, or one of these compressed with gzip, zstd or xz",
            ),
            E::Tar(TarError::Truncated { .. }) => failed("truncated").hint(again),
            E::Tar(_) => failed("bad-archive")
                .hint("larder reads only what all readers understand alike; write the file again with the tool that made it"),
            E::Path(_) => failed("bad-name").hint("nothing was written; an archive of images has no need of such names"),
            E::Store(source) => Failure::from(source),
            E::Pull(source) => Failure::from(source),
            E::Bzip2 => failed("compressed").hint("decompress it: `bunzip2 < FILE | larder import -`"),
            E::NotALayout { .. } => {
                failed("not-a-layout").with("expected", "oci-layout and index.json, or files named as minikube's cache names them")
            }
            E::NoImages | E::EmptyList { .. } => failed("no-images"),
            E::NoLayoutMark => failed("no-layout-mark"),
            E::TextTooLarge { .. } | E::TooMuchText { .. } | E::Bomb { .. } => failed("too-large"),
            E::List { source, .. } => failed("bad-list").with("found", source),
            E::Document(source) => failed("unsupported").because(source),
            E::BlobName { source, .. } => failed("bad-name").with("found", source),
            E::WrongBlob { expected, found, size } => {
                wrong("mismatch").with("expected", expected).with("found", sized(found, *size)).hint(again)
            }
            E::WrongSize { .. } => wrong("wrong-size").hint(again),
            E::WrongConfig { expected, found, .. } => wrong("mismatch").with("expected", expected).with("found", found).hint(again),
            E::WrongLayer { expected, found, .. } => {
                wrong("wrong-layer").with("expected", format!("{expected} (diff ID)")).with("found", found).hint(again)
            }
            E::NoSuchMember { .. } | E::Incomplete { .. } => failed("incomplete").hint("save the image again, with all of its layers"),
            E::NotAConfig { .. } => failed("bad-config"),
            E::LayerCount { .. } => wrong("wrong-layers").hint(again),
            E::OtherCompression { .. } => failed("unsupported"),
            E::BrokenLayer { why, .. } => failed("broken-layer").with("because", why).hint(again),
            E::WrongPlatform { expected, found, .. } => {
                wrong("wrong-platform").with("expected", expected).with("found", format!("{found} in its config"))
            }
            E::NameTwice { .. } | E::Disagreement { .. } => failed("ambiguous").hint("save the images one by one"),
            E::BadName { .. } => failed("bad-name").hint("give it another name with --as NAME:TAG"),
            E::Several { names, .. } => {
                Failure::new(Exit::Usage, "several", message).with("they are", names.join("\n")).hint("take them all with --accept-names")
            }
            E::NotThePin { offered, .. } => wrong("not-the-pin").with("there is", offered.join("\n")).hint("nothing was kept"),
            E::AnotherImage { expected, found, .. } => {
                wrong("another-image").with("expected", format!("{expected} (image ID)")).with("found", found).hint("nothing was kept")
            }
            E::NoSuchPlatform { offered, .. } => Failure::new(Exit::NotThere, "no-such-platform", message).with("there is", list(offered)),
            _ => failed("import").because(error),
        }
    }
}

fn list(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
