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
                let failure = asked.iter().fold(failure, |failure, (place, why)| {
                    failure.with("asked", format!("{} at {} ({}): {}", place.kind, place.address, place.found_by, reason(why)))
                });
                failure.hint(
                    "start docker, podman or containerd, or set DOCKER_HOST, CONTAINER_HOST or CONTAINERD_ADDRESS; \
                     `larder pull` works without an engine",
                )
            }
            EngineError::Unreachable { place, source } => {
                not_answered("unreachable", place).with("it said", source).hint(reach(place, source.kind()))
            }
            EngineError::TimedOut { place, request, after } => not_answered("timed-out", place)
                .with("asked", request)
                .with("waited", format!("{} s", after.as_secs_f32()))
                .hint("see whether it hangs, or wait longer with --engine-timeout"),
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
            _ => refused("engine").because(error),
        }
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
