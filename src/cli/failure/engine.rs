//! Engines, and the archives they are sent.

use std::io::ErrorKind;

use larder::archive::ArchiveError;
use larder::engine::{EngineError, Kind, Place};

use super::{Exit, Failure};
use crate::cli::display;

impl From<&EngineError> for Failure {
    fn from(error: &EngineError) -> Failure {
        let message = error.to_string();
        let refused = |code| Failure::new(Exit::Engine, code, message.clone());
        match error {
            EngineError::NoneAnswered { asked } => {
                let failure = Failure::new(Exit::Engine, "no-engine", "no engine answered");
                let (empty, silent): (Vec<_>, Vec<_>) = asked.iter().partition(|(_, why)| why.nothing_there());
                let failure = silent.iter().fold(failure, |failure, (place, why)| {
                    failure.with("asked", format!("{} at {} ({}): {}", place.kind, place.address, place.found_by, reason(why)))
                });
                let empty: Vec<&str> = empty.iter().map(|(place, _)| place.address.as_str()).collect();
                let failure = if empty.is_empty() { failure } else { failure.with("nothing at", empty.join(", ")) };
                failure.hint(
                    "start docker, podman or containerd, or set DOCKER_HOST, CONTAINER_HOST or CONTAINERD_ADDRESS; \
                     `larder pull` works without an engine",
                )
            }
            EngineError::Unreachable { place, source } => {
                let hint = tls_in(source).map_or_else(|| reach(place, source.kind()), str::to_owned);
                not_answered("unreachable", place).with("it said", source).hint(hint)
            }
            EngineError::Tunnel { place, source } => {
                let failure = not_answered("tunnel", place).with("ran", &source.command).with("which", &source.how);
                let failure = source.said.iter().fold(failure, |failure, said| failure.with("it said", said));
                failure.hint(lead(&source.how, source.said.as_deref().unwrap_or_default()))
            }
            EngineError::Broken { source, .. } if tls_in(source.as_ref()).is_some() => {
                refused("engine").because(error).hint(tls_in(source.as_ref()).unwrap_or_default())
            }
            EngineError::TimedOut { place, request, after } => not_answered("timed-out", place)
                .with("asked", request)
                .with("waited", format!("{} s", after.as_secs_f32()))
                .hint("see whether it hangs, or wait longer with --engine-timeout"),
            EngineError::Algorithm { place, name, digest } => {
                let message = format!("{} keeps nothing by sha512, and {name} has such digests", place.kind);
                Failure::new(Exit::Engine, "algorithm", message)
                    .with("at", &place.address)
                    .with("such as", digest)
                    .hint("docker's own image store and podman take it, or any engine the same image by sha256")
            }
            EngineError::NotLoaded { place, name, said } => {
                Failure::new(Exit::Engine, "not-loaded", format!("{} did not load {name}", place.kind))
                    .with("at", &place.address)
                    .with("it said", said)
                    .hint("the image is whole in the store; make what it complains about right, and run it again")
            }
            EngineError::LoadBroken { place, name, sent, size, source } => {
                Failure::new(Exit::Engine, "load-broken", format!("{} broke off while it loaded {name}", place.kind))
                    .with("at", &place.address)
                    .with("sent", format!("{} of {}", display::size(*sent), display::size(*size)))
                    .because(source.as_ref())
                    .hint("see whether it runs, and run it again")
            }
            EngineError::Refused { place, request, status, said } => {
                Failure::new(Exit::Engine, "refused", format!("{} refused", place.kind))
                    .with("at", &place.address)
                    .with("asked", request)
                    .with("it said", format!("{said} (status {status})"))
            }
            EngineError::Denied { place, request, code, said } => Failure::new(Exit::Engine, "refused", format!("{} refused", place.kind))
                .with("at", &place.address)
                .with("asked", request)
                .with("it said", format!("{said} ({code:?})")),
            EngineError::Snapshotter { place, snapshotter, why, usable } => {
                Failure::new(Exit::Engine, "snapshotter", format!("{} cannot use the snapshotter `{snapshotter}`", place.kind))
                    .with("at", &place.address)
                    .with("it said", why)
                    .hint(format!("set CONTAINERD_SNAPSHOTTER to the one that its containers use, of {}", usable.join(", ")))
            }
            EngineError::Namespace { .. } => refused("namespace")
                .with("expected", "letters and digits, with . _ - between them")
                .hint("Kubernetes keeps its images in `k8s.io`, containerd's command line in `default`"),
            EngineError::Archive(source) => Failure::from(&**source),
            EngineError::Address { setting, expected, .. } => refused("address").with("from", setting).with("expected", expected),
            EngineError::Transport { .. } => {
                refused("transport").hint("make the engine's socket available here, and set DOCKER_HOST=unix:///…")
            }
            EngineError::NoContext { path, .. } => {
                refused("no-context").with("looked in", path.display()).hint("`docker context ls` shows what there is")
            }
            EngineError::NoConnection { known, .. } => {
                refused("no-connection").with("there is", if known.is_empty() { "none".to_owned() } else { known.join(", ") })
            }
            _ => refused("engine").because(error),
        }
    }
}

/// What to do where TLS is what failed.
fn tls_in(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return Some("see whether these are the engine's certificates: those in DOCKER_CERT_PATH, or of the docker context");
        }
        cause = error.source();
    }
    None
}

/// What to do where the program that leads to an engine ended.
fn lead(how: &str, said: &str) -> &'static str {
    if how.starts_with("cannot be started") {
        "install OpenSSH's client"
    } else if said.contains("Host key verification failed") {
        "connect to the host once with ssh yourself, and see whether its key is the right one"
    } else if said.contains("Permission denied") {
        "see whether ssh logs in there without asking: it needs a key, perhaps one from an agent"
    } else if said.contains("not found") {
        "see whether the engine's command line is installed there, on the PATH that ssh gives"
    } else {
        "run that command by hand to see what is wrong"
    }
}

fn not_answered(code: &'static str, place: &Place) -> Failure {
    Failure::new(Exit::Engine, code, format!("{} did not answer", place.kind)).with("at", format!("{} ({})", place.address, place.found_by))
}

/// What failed, without saying again where.
fn reason(why: &EngineError) -> String {
    match why {
        EngineError::Unreachable { source, .. } => source.to_string(),
        EngineError::TimedOut { after, .. } => format!("no answer within {} s", after.as_secs_f32()),
        other => Failure::from(other).in_one_line(),
    }
}

fn reach(place: &Place, kind: ErrorKind) -> String {
    match (kind, place.kind) {
        (ErrorKind::PermissionDenied, Kind::Docker) => "join the group `docker`, or run it as root, or choose `--engine podman`".to_owned(),
        (ErrorKind::PermissionDenied, Kind::Containerd) => "run it as root: whoever can use containerd's socket is root there".to_owned(),
        (ErrorKind::PermissionDenied, _) => "run it as the user whose engine it is, or as root".to_owned(),
        (ErrorKind::ConnectionRefused, _) => format!("its socket is a leftover: see whether {} runs there", place.kind),
        (_, Kind::Containerd) => "see whether containerd runs there, or set CONTAINERD_ADDRESS to its socket".to_owned(),
        (_, Kind::Podman) => "start it with `podman system service` or `systemctl start podman.socket`".to_owned(),
        _ => format!("see whether {} runs there", place.kind),
    }
}

impl From<&ArchiveError> for Failure {
    fn from(error: &ArchiveError) -> Failure {
        let message = error.to_string();
        match error {
            ArchiveError::Store(source) => Failure::from(source),
            ArchiveError::Incomplete { .. } => {
                Failure::new(Exit::NotThere, "incomplete", message).hint("run `larder pull` with its reference once without --offline")
            }
            _ => Failure::new(Exit::Failed, "archive", message).because(error),
        }
    }
}
