//! Registries, and the way to them.

use std::time::Duration;

use larder::upstream::{Said, UpstreamError};

use super::{Exit, Failure, sized};

impl From<&UpstreamError> for Failure {
    fn from(error: &UpstreamError) -> Failure {
        use UpstreamError as E;
        let registry = |code| Failure::new(Exit::Registry, code, error.to_string());
        let failed = |code| Failure::new(Exit::Failed, code, error.to_string());
        let wrong = |code| Failure::new(Exit::NotPinned, code, error.to_string());
        match error {
            E::NoCredentials { said, .. } => {
                registry("no-credentials").said(said).hint("log in with `docker login` or `podman login`, or use --creds USER:PASSWORD")
            }
            E::CredentialsRefused { said, .. } => registry("credentials-refused").said(said).hint("log in again"),
            E::CredentialsWithheld { realm, .. } => registry("credentials-withheld")
                .hint(format!("if that host may have them, add `trusted_realms = [\"{realm}\"]` to the settings file")),
            E::CredentialsUnreadable { .. } => registry("credentials-unreadable").because(error),
            E::Denied { said, .. } => registry("denied").said(said).hint("see whether this account may pull from the repository"),
            E::Challenge { .. } | E::Realm { .. } | E::NotAToken { .. } => registry("authentication").because(error),
            E::NoManifest { said, .. } => {
                registry("no-manifest").said(said).hint("see whether the tag or digest is right, or name another source with --from")
            }
            E::NoRepository { said, .. } => {
                registry("no-repository").said(said).hint("see whether the name is right; a private repository may need credentials")
            }
            E::NoBlob { said, .. } => {
                registry("no-blob").said(said).hint("the registry is missing a part of its own image; name another source with --from")
            }
            E::TooManyRequests { after, limits, said, .. } => {
                let failure = registry("too-many-requests").said(said).waiting(*after);
                let failure = match limits {
                    Some(limits) => failure
                        .with("limit", limits.limit.as_deref().unwrap_or("not said"))
                        .with("left", limits.remaining.as_deref().unwrap_or("not said")),
                    None => failure,
                };
                failure.hint("log in, which often raises the limit, or try again later")
            }
            E::Failed { after, said, .. } => {
                failed("registry-failed").said(said).waiting(*after).hint("try again later; what came is kept")
            }
            E::Status { said, .. } => failed("status").said(said),
            E::WrongManifest { source, .. } => wrong("mismatch")
                .with("expected", source.expected)
                .with("received", sized(&source.found, source.found_size))
                .hint("something on the way changes the content, or the registry does; name another source with --from"),
            E::WrongLength { .. } | E::TooLong { .. } => {
                wrong("wrong-size").hint("the registry's blob is not the one the manifest names; try another source with --from")
            }
            E::Tls { .. } => failed("tls").because(error).hint("trust its authority with --ca-file FILE, if it is one of yours"),
            E::NotTls { .. } => failed("not-tls").hint("if it speaks plain HTTP and you accept that, name its host with --insecure"),
            E::Blocked { address, .. } => failed("blocked-address")
                .hint(format!("if a registry of yours is there, add `allowed_addresses = [\"{address}\"]` to the settings file")),
            E::Resolve { .. } => failed("resolve").because(error).hint("see whether the name is right and the network is there"),
            E::Refused { .. } | E::Connect { .. } => {
                failed("connect").because(error).hint("see whether the registry is there, and whether a proxy is needed")
            }
            E::TimedOut { .. } | E::TooSlow { .. } => {
                failed("timed-out").hint("run it again: it goes on where it ended; --stall sets how long to wait")
            }
            E::Broken { .. } | E::Short { .. } => failed("broken").because(error).hint("run it again: it goes on where it ended"),
            _ => failed("upstream").because(error),
        }
    }
}

impl Failure {
    fn said(self, said: &Option<Box<Said>>) -> Failure {
        match said {
            Some(said) => self.with("it said", said),
            None => self,
        }
    }

    fn waiting(self, after: Option<Duration>) -> Failure {
        match after {
            Some(after) => self.with("retry after", format!("{} s", after.as_secs())),
            None => self,
        }
    }
}
