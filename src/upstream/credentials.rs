//! Credentials: what they are, where they were found, why they cannot be had.
//!
//! Always true: nothing here can print a secret, and no error repeats what a file or a helper said.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// A text that cannot be printed: a password or a token.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself; whoever asks must not show it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// User and password for a registry, given by the caller.
#[derive(Debug, Clone)]
pub struct Login {
    /// The registry as references have it, or a namespace in it: `ghcr.io`, `ghcr.io/team`.
    pub registry: String,
    /// The user.
    pub username: String,
    /// The password, or what the registry takes in its place.
    pub password: Secret,
}

/// What a file of credentials would hold, given by the caller.
#[derive(Debug, Clone)]
pub struct Given {
    /// Where it was found, such as the name of a variable.
    pub name: String,
    /// The text, in docker's form.
    pub text: Secret,
}

/// What a registry is told about who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Basic {
        username: String,
        password: Secret,
    },
    /// To be exchanged for a token (docker's `identitytoken`).
    Identity(Secret),
    /// To be shown to the registry itself (docker's `registrytoken`).
    Token(Secret),
}

/// Where credentials were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The caller gave them.
    Settings,
    /// A file's own entry.
    File {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
    /// A helper program.
    Helper {
        /// The program.
        program: String,
        /// The file that names it.
        path: PathBuf,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Settings => f.write_str("the settings"),
            Source::File { path, key } => write!(f, "the entry `{key}` in {}", path.display()),
            Source::Helper { program, path } => write!(f, "{program}, named in {}", path.display()),
        }
    }
}

/// Credentials could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file is there and cannot be read.
    #[error("the credentials in {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be. What it holds is not repeated, since it holds secrets.
    #[error("{path} is not a file of credentials, see line {line}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line at which this shows.
        line: usize,
    },
    /// An entry is not `user:password` in base64.
    #[error("the entry `{key}` in {path} holds no user and password")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
    /// The name of a helper is not one.
    #[error("{path} names a credential helper that cannot be a program")]
    HelperName {
        /// The file.
        path: PathBuf,
    },
    /// A helper could not be run.
    #[error("the credential helper {program} cannot be run")]
    HelperStart {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A helper did not end in time.
    #[error("the credential helper {program} gave no answer for {after:?}")]
    HelperTimeout {
        /// The program.
        program: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A helper failed. What it said is not repeated, since it may hold secrets.
    #[error("the credential helper {program} failed with {status}")]
    HelperFailed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A helper's answer is not what it should be.
    #[error("the answer of the credential helper {program} holds no credentials")]
    HelperAnswer {
        /// The program.
        program: String,
    },
}
