//! What went wrong, for people and for scripts: message, details, hint, exit code. The one place for the last two.

use std::error::Error;
use std::fmt::Write;

use larder::digest::Digest;
use larder::ensure::EnsureError;
use larder::oci::Platform;
use larder::pull::PullError;
use larder::reference::{ReferenceError, Repository};
use larder::upstream::UpstreamError;
use serde_json::{Value, json};

use super::display;

/// The exit codes of the contract, least to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    Done,
    Failed,
    NotThere,
    Registry,
    Engine,
    NotPinned,
    Usage,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotThere => 3,
            Exit::NotPinned => 4,
            Exit::Engine => 5,
            Exit::Registry => 6,
        }
    }
}

/// A failure as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// A stable word for scripts.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) details: Vec<(&'static str, String)>,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { exit, code, message: message.into(), details: Vec::new(), hint: None }
    }

    pub(crate) fn with(mut self, label: &'static str, value: impl ToString) -> Failure {
        self.details.push((label, value.to_string()));
        self
    }

    /// Adds what an error and its causes say.
    pub(crate) fn because(mut self, error: &dyn Error) -> Failure {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !self.message.contains(&text) && self.details.iter().all(|(_, said)| !said.contains(&text)) {
                self.details.push(("because", text));
            }
            cause = error.source();
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// As people read it, without colour.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        let width = self.details.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 1;
        for (label, value) in &self.details {
            let label = format!("{label}:");
            writeln!(text, "  {label:width$} {}", value.replace('\n', &format!("\n  {:width$} ", ""))).expect("a String takes all");
        }
        if let Some(hint) = &self.hint {
            writeln!(text, "  hint: {hint}").expect("a String takes all");
        }
        text
    }

    /// The message and its details on one line.
    pub(crate) fn in_one_line(&self) -> String {
        let details: Vec<String> = self.details.iter().map(|(label, value)| format!("{label}: {value}")).collect();
        std::iter::once(self.message.clone()).chain(details).collect::<Vec<_>>().join("; ").replace('\n', ", ")
    }

    pub(crate) fn json(&self) -> Value {
        let details: serde_json::Map<String, Value> = self.details.iter().map(|(k, v)| (k.replace(' ', "_"), json!(v))).collect();
        json!({ "code": self.code, "message": self.message, "details": details, "hint": self.hint, "exit": self.exit.code() })
    }
}

macro_rules! from_owned {
    ($($type:ty),*) => {$(
        impl From<$type> for Failure {
            fn from(error: $type) -> Failure {
                Failure::from(&error)
            }
        }
    )*};
}
from_owned!(
    ReferenceError,
    PullError,
    EnsureError,
    larder::store::StoreError,
    larder::upstream::UpstreamError,
    larder::engine::EngineError
);


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
                failure.with("expected", "sha256: and 64 hexadecimal digits behind the @").with("found", source)
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

fn unavailable(message: String, tried: &[(Repository, UpstreamError)]) -> Failure {
    let Some((_, first)) = tried.first() else { return Failure::new(Exit::Registry, "unavailable", message) };
    // The image's own registry decides what kind of failure it is.
    let own = Failure::from(first);
    let mut failure = Failure { message, details: Vec::new(), ..own };
    for (repository, error) in tried {
        let because = Failure::from(error);
        failure = failure.with("asked", repository).with("it said", because.in_one_line());
    }
    failure
}

fn platforms(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn sized(digest: &Digest, size: u64) -> String {
    format!("{digest}  {size} bytes")
}

impl From<&EnsureError> for Failure {
    fn from(error: &EnsureError) -> Failure {
        let message = error.to_string();
        match error {
            EnsureError::Pull(source) => Failure::from(source),
            EnsureError::Store(source) => Failure::from(source),
            EnsureError::Engine(source) => Failure::from(source),
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

macro_rules! stub {
    ($($type:ty),*) => {$(
        impl From<&$type> for Failure {
            fn from(error: &$type) -> Failure {
                let mut f = Failure::new(Exit::Failed, "stub", error.to_string());
                let mut s = error.source();
                while let Some(e) = s { f = f.with("because", e); s = e.source(); }
                f
            }
        }
    )*};
}
stub!(larder::store::StoreError, larder::upstream::UpstreamError, larder::engine::EngineError);
