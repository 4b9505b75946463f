//! Whether what an engine shows is the image that was pinned.
//!
//! Pure. Always true: only digests that the engine computed itself prove anything. An engine whose image ID is the config's digest hashed the
//! config and all layers; one whose image ID is what the name points to hashed that, and says what of it is there. The digests that engines list beside
//! the image ID are never looked at: podman lists more of them than belong to a name.

use jiff::Timestamp;
use serde_json::Value;

use super::{IdOf, Shown};
use crate::digest::Verified;
use crate::pin::{Identity, Pin};

/// How it was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The engine's image ID is one of the pin's digests.
    Identity(Identity),
    /// The engine gave the image an identity of its own; its config and diff IDs were compared in full.
    Content,
}

/// How an engine stands to a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It holds the pinned image under the pin's name.
    Held(Proof),
    /// It has nothing under that name.
    Absent,
    /// It has another image under that name.
    Another,
    /// The name points to the pinned image, but some of its content is missing.
    Incomplete,
}

/// Compares; `config` is the pinned image's config, without which nothing is proved by content.
pub fn prove(pin: &Pin, shown: Option<&Shown>, config: Option<&Verified>) -> Standing {
    let Some(shown) = shown else { return Standing::Absent };
    match (shown.id_of, pin.answers_to(&shown.id)) {
        (IdOf::Config, Some(Identity::ImageId)) => held_if(shown.complete, Proof::Identity(Identity::ImageId)),
        (IdOf::Target, Some(identity @ (Identity::Root | Identity::Manifest))) => {
            held_if(has_content(pin, shown), Proof::Identity(identity))
        }
        (IdOf::Target, _) if config.is_some_and(|config| same_content(pin, shown, config)) => held_if(shown.complete, Proof::Content),
        _ => Standing::Another,
    }
}

fn held_if(complete: bool, proof: Proof) -> Standing {
    if complete { Standing::Held(proof) } else { Standing::Incomplete }
}

/// An index may be there with another platform's content, or with none.
fn has_content(pin: &Pin, shown: &Shown) -> bool {
    shown.complete && (shown.manifests.is_empty() || shown.manifests.contains(&pin.manifest.digest))
}

/// The parts of a config that say how a container is run, as far as docker shows them.
const RUN: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "OnBuild",
    "Shell",
    "ArgsEscaped",
];
const HEALTH: [&str; 5] = ["Test", "Interval", "Timeout", "StartPeriod", "Retries"];

/// Whether layers, platform and all that the engine shows of the config are the pinned image's.
fn same_content(pin: &Pin, shown: &Shown, config: &Verified) -> bool {
    let image = config.digest() == pin.image_id() && shown.diff_ids == pin.diff_ids && shown.platform.as_ref() == Some(&pin.platform);
    let Ok(wanted) = serde_json::from_slice::<Value>(config.bytes()) else { return false };
    let (there, run, run_there) = (&shown.raw, &wanted["config"], &shown.raw["Config"]);
    image
        && time(&wanted["created"]) == time(&there["Created"])
        && said(&wanted["author"]) == said(&there["Author"])
        && said(&wanted["variant"]) == said(&there["Variant"])
        && RUN.iter().all(|field| said(&run[field]) == said(&run_there[field]))
        && HEALTH.iter().all(|field| said(&run["Healthcheck"][field]) == said(&run_there["Healthcheck"][field]))
}

/// What a field says, if anything: engines leave out what is empty, or write it in several ways.
fn said(field: &Value) -> Option<&Value> {
    let nothing = match field {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    (!nothing).then_some(field)
}

/// A time, however many digits it is written with; `None` for Go's zero time as well.
fn time(field: &Value) -> Option<Result<Timestamp, &str>> {
    let text = field.as_str().filter(|text| !text.is_empty() && *text != "0001-01-01T00:00:00Z")?;
    Some(text.parse().map_err(|_| text))
}
