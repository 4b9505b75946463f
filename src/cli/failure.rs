//! What went wrong, for people and for scripts: message, details, hint, exit code. The one place for the last two.

use std::error::Error;
use std::fmt::Write;

use larder::ensure::EnsureError;
use larder::pull::PullError;
use larder::reference::ReferenceError;
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

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// As people read it, without colour.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        let hint = self.hint.iter().map(|h| ("hint", h.clone()));
        let lines: Vec<_> = self.details.iter().cloned().chain(hint).collect();
        let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 1;
        for (label, value) in lines {
            let label = format!("{label}:");
            writeln!(text, "  {label:width$} {}", value.replace('\n', &format!("\n  {:width$} ", ""))).expect("a String takes all");
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
stub!(ReferenceError, PullError, EnsureError, larder::store::StoreError, larder::upstream::UpstreamError, larder::engine::EngineError);
