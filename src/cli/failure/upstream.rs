//! Registries, and the way to them.

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use larder::upstream::{Limits, Said, UpstreamError};

use super::{Exit, Failure, sized};
use crate::cli::display;

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
            E::TooManyRequests { after, limits, said, .. } if error.is_pull_limit() => {
                pull_limit(registry("pull-limit").said(said), limits.as_deref().unwrap_or(&Limits::default()), *after)
            }
            E::TooManyRequests { after, said, .. } => registry("too-many-requests")
                .said(said)
                .waiting(*after)
                .hint("try again later, log in, which often raises the limit, or name a mirror with --from or in the settings file"),
            E::Failed { after, said, .. } => {
                failed("registry-failed").said(said).waiting(*after).hint("try again later; what came is kept")
            }
            // What Go's servers say, and nginx.
            E::Status { status: 400, url, said: Some(said) } if said.message.contains("HTTPS") => {
                failed("status").with("it said", said).hint(format!(
                    "if it speaks TLS, say so with `https = [\"{0}\"]` in larder's settings file, or put its authority into certs.d/{0}",
                    host(url.as_str())
                ))
            }
            E::Status { said, .. } => failed("status").said(said),
            E::WrongManifest { source, .. } => wrong("mismatch")
                .with("expected", source.expected)
                .with("received", sized(&source.found, source.found_size))
                .hint("something on the way changes the content, or the registry does; name another source with --from"),
            E::WrongLength { .. } | E::TooLong { .. } => {
                wrong("wrong-size").hint("the registry's blob is not the one the manifest names; try another source with --from")
            }
            E::Tls { .. } => failed("tls")
                .because(error)
                .hint("if its authority is one of yours, trust it with --ca-file FILE or as /etc/containers/certs.d/HOST:PORT/ca.crt"),
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
            E::Forbidden { .. } => registry("blocked").hint("those settings forbid it; --no-mirrors passes over them"),
            E::SettingsMalformed { why, .. } => Failure::new(Exit::Usage, "settings", error.to_string()).with("found", why).hint(
                "mend it, or pass over it: --no-mirrors, `registries_conf`, `daemon_json` or `hosts_toml = false` in larder's settings file",
            ),
            E::SettingsRead { .. } | E::Place { .. } => Failure::new(Exit::Usage, "settings", error.to_string()).because(error),
            E::Proxy { .. } => {
                failed("proxy").because(error).hint("HTTPS_PROXY and NO_PROXY say which proxy is asked, with which user and password")
            }
            _ => failed("upstream").because(error),
        }
    }
}

/// How much is granted, what is left of it, for whom, and until when.
fn pull_limit(failure: Failure, limits: &Limits, after: Option<Duration>) -> Failure {
    let pulls = |count| display::count(usize::try_from(count).unwrap_or(usize::MAX), "pull");
    let span = |time: Duration| format!("{:#}", SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX));
    let granted = match limits.granted() {
        Some((granted, Some(window))) => Some(format!("{} in {}", pulls(granted), span(window))),
        Some((granted, None)) => Some(pulls(granted)),
        None => limits.limit.clone(),
    };
    let left = limits.left().map(pulls).or(limits.remaining.clone());
    let more = after.or(limits.at_the_latest()).map(|wait| {
        let until = Timestamp::now().checked_add(wait).map(|at| format!(", at {}", at.strftime("%Y-%m-%d %H:%M UTC")));
        format!("after {} at the latest{}", span(wait), until.unwrap_or_default())
    });
    let known = [("granted", granted), ("left", left), ("counted for", limits.source.clone()), ("more", more)];
    let failure = known.into_iter().fold(failure, |failure, (label, value)| match value {
        Some(value) => failure.with(label, value),
        None => failure,
    });
    // An address is what those without an account are counted by.
    let anonymous = limits.source.as_deref().is_none_or(|source| source.parse::<IpAddr>().is_ok());
    failure.hint(match anonymous {
        true => {
            "log in with `docker login` or `podman login`, which raises the limit, or name a mirror with --from or in the settings file"
        }
        false => "name a mirror with --from or in the settings file, or try again later; what is in the store counts no more",
    })
}

/// The host of a URL that is shown.
fn host(url: &str) -> &str {
    url.split('/').nth(2).unwrap_or(url)
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
