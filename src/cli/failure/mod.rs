//! What went wrong, for people and for scripts: message, details, hint, exit code. The one place for the last two.

mod deep;
mod engine;
mod export;
mod image;
mod import;
mod store;
mod upstream;

use std::error::Error;
use std::fmt::Write;

use larder::digest::Digest;
use larder::reference::Reference;
use serde_json::{Value, json};

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

    /// The same, naming the image that a blob belongs to, and what brings it again.
    pub(crate) fn naming(mut self, image: &Reference) -> Failure {
        if let Some(hint) = self.hint.as_mut().filter(|hint| hint.contains(PULL_IT)) {
            *hint = hint.replace(PULL_IT, &format!("`larder pull {image}`"));
            self.details.insert(0, ("image", image.to_string()));
        }
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
        let details: Vec<Value> = self.details.iter().map(|(what, value)| json!({ "what": what, "value": value })).collect();
        json!({ "code": self.code, "message": self.message, "details": details, "hint": self.hint, "exit": self.exit.code() })
    }
}

/// How a hint calls the command that brings an image again, as long as the image is not known.
const PULL_IT: &str = "`larder pull` with the image's reference";

fn sized(digest: &Digest, size: u64) -> String {
    format!("{digest}  {size} bytes")
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
    larder::import::donor::DonorError,
    larder::import::ImportError,
    larder::reference::ReferenceError,
    larder::pull::PullError,
    larder::ensure::EnsureError,
    larder::deep::DeepError,
    larder::store::StoreError,
    larder::upstream::UpstreamError,
    larder::engine::EngineError,
    larder::export::ExportError
);
