//! References, pulls, and images in engines.

use larder::ensure::EnsureError;
use larder::oci::Platform;
use larder::pull::PullError;
use larder::reference::ReferenceError;
use larder::upstream::{Place, UpstreamError};

use super::{Exit, Failure, sized};
use crate::cli::display;

impl From<&ReferenceError> for Failure {
    fn from(error: &ReferenceError) -> Failure {
        let failure = Failure::new(Exit::Usage, "reference", error.to_string());
        match error {
            ReferenceError::Empty => failure.with("expected", "[host[:port]/]path[:tag][@sha256:…]"),
            ReferenceError::Malformed { expected, found, position, suggestion, .. } => {
                let found = match found {
                    Some(c) => format!("`{}` at position {position}", c.escape_debug()),
                    None => format!("the end, at position {position}"),
                };
                let failure = failure.with("expected", expected).with("found", found);
                match suggestion {
                    Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
                    None => failure,
                }
            }
            ReferenceError::Digest { source, .. } => {
                failure.with("expected", "sha256: and 64, or sha512: and 128 hexadecimal digits behind the @").with("found", source)
            }
            ReferenceError::ImageId { .. } => failure.hint("name the image by its repository; `larder list` shows names"),
            ReferenceError::NotAName { .. } => failure.with("expected", "a name and a tag, without a digest, such as redis:7"),
        }
    }
}

impl From<&PullError> for Failure {
    fn from(error: &PullError) -> Failure {
        let message = error.to_string();
        match error {
            PullError::NotPinned { reference } => Failure::new(Exit::Failed, "not-pinned", message)
                .with("expected", format!("{}@sha256:…", reference.name()))
                .hint(format!("`larder pull {reference}` without --pinned-only prints the digest it means now")),
            PullError::NotInStore { reference, offered } => {
                let failure = Failure::new(Exit::NotThere, "not-in-store", message);
                let failure = if offered.is_empty() { failure } else { failure.with("there is", platforms(offered)) };
                failure.hint(format!("run `larder pull {reference}` once without --offline"))
            }
            PullError::Incomplete { reference, present, missing } => {
                let bytes = missing.iter().map(|d| d.size).fold(0, u64::saturating_add);
                let missing = format!("{}, {}", display::count(missing.len(), "blob"), display::size(bytes));
                let failure = Failure::new(Exit::NotThere, "incomplete", message);
                let failure = if *present > 0 { failure.with("present", display::count(*present, "blob")) } else { failure };
                failure.with("missing", missing).hint(format!("run `larder pull {reference}` once without --offline"))
            }
            PullError::Unavailable { tried, .. } => unavailable(message, tried),
            PullError::Unlisted { tried, .. } => unavailable(message, tried),
            PullError::ReferrersNotAsked { reference } => Failure::new(Exit::NotThere, "referrers-not-asked", message)
                .hint(format!("run `larder pull --referrers {reference}` once without --offline")),
            PullError::TooManyReferrers { .. } | PullError::ReferrersTooLarge { .. } => {
                Failure::new(Exit::Failed, "referrers", message).hint("pull it without --referrers")
            }
            PullError::NoSuchPlatform { offered, .. } => Failure::new(Exit::NotThere, "no-such-platform", message)
                .with("on offer", platforms(offered))
                .hint("choose one of these with --platform"),
            PullError::WrongPlatform { manifest, wanted, found, .. } => Failure::new(Exit::NotPinned, "wrong-platform", message)
                .with("manifest", manifest)
                .with("expected", wanted)
                .with("found", format!("{found} in its config")),
            PullError::Document { source, .. } => Failure::new(Exit::Failed, "unsupported", message).because(source),
            PullError::Blob { source, .. } => Failure { message, ..Failure::from(source) }.because(source),
            PullError::Mismatch { source, from, .. } => Failure::new(Exit::NotPinned, "mismatch", message)
                .with("expected", sized(&source.expected, source.expected_size))
                .with("received", format!("{} from {from}", sized(&source.found, source.found_size)))
                .hint("run it again; if it fails twice, something on the way changes the content"),
            PullError::Store(source) => Failure::from(source),
        }
    }
}

fn unavailable(message: String, tried: &[(Place, UpstreamError)]) -> Failure {
    // The image's own registry decides what kind of failure it is, and not a mirror.
    let own = tried.iter().find(|(place, _)| !place.is_mirror()).or(tried.last());
    let Some((_, own)) = own else { return Failure::new(Exit::Registry, "unavailable", message) };
    let own = Failure::from(own);
    let mut failure = Failure { message, details: Vec::new(), ..own };
    for (place, error) in tried {
        let because = Failure::from(error);
        failure = failure.with("asked", place).with("because", because.in_one_line());
    }
    failure
}

fn platforms(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<&EnsureError> for Failure {
    fn from(error: &EnsureError) -> Failure {
        let message = error.to_string();
        match error {
            EnsureError::Pull(source) => Failure::from(source),
            EnsureError::Store(source) => Failure::from(source),
            EnsureError::Engine(source) => Failure::from(source),
            EnsureError::Artifact { name, .. } => Failure::new(Exit::Failed, "artifact", message).hint(format!(
                "it is whole in the store: `larder export {name} --format layout -o FOLDER` writes it for tools that read it"
            )),
            EnsureError::NotProved { engine, pin, found, .. } => Failure::new(Exit::NotPinned, "not-proved", message)
                .with("expected", format!("one of\n{}", display::identities(pin)))
                .with("found", found.as_ref().map_or("nothing under that name".to_owned(), |shown| display::shown(shown)))
                .hint(format!("please report this, with the output of `{engine} version`")),
            EnsureError::NotPinned { reference, platform, offered } => {
                let failure = Failure::new(Exit::NotThere, "not-in-store", message).with("platform", platform);
                let failure = if offered.is_empty() { failure } else { failure.with("there is", platforms(offered)) };
                failure.hint(format!("run `larder pull {reference}` once; `larder list` shows what is there"))
            }
        }
    }
}
