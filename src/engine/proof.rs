//! Whether what an engine shows is the image that was pinned.
//!
//! Pure. Always true: only digests that the engine computed itself prove anything. An engine whose image ID is the config's digest hashed the
//! config and all layers; one whose image ID is what the name points to hashed that, and says what of it is there. The digests that engines list beside
//! the image ID are never looked at: podman lists more of them than belong to a name.

use jiff::Timestamp;
use serde_json::Value;

use super::{IdOf, Shown};
use crate::digest::{Digest, Verified};
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
            held_if(has_content(&pin.manifest.digest, shown), Proof::Identity(identity))
        }
        (IdOf::Target, _) if config.is_some_and(|config| same_content(pin, shown, config)) => held_if(shown.complete, Proof::Content),
        _ => Standing::Another,
    }
}

fn held_if(complete: bool, proof: Proof) -> Standing {
    if complete { Standing::Held(proof) } else { Standing::Incomplete }
}

/// Whether the content of this manifest is there: an index may be there with another platform's content, or with none.
pub(super) fn has_content(manifest: &Digest, shown: &Shown) -> bool {
    shown.complete && (shown.manifests.is_empty() || shown.manifests.contains(manifest))
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
    let image = config.digest() == pin.config.digest && shown.diff_ids == pin.diff_ids && shown.platform.as_ref() == Some(&pin.platform);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::{Config, Descriptor, Image, Manifest};

    fn descriptor(of: &str) -> Descriptor {
        Descriptor { media_type: String::new(), digest: Digest::of(of.as_bytes()), size: of.len() as u64 }
    }

    fn config() -> Value {
        json!({
            "created": "2021-05-03T00:00:00.5Z", "author": "someone", "architecture": "arm", "os": "linux", "variant": "v7",
            "config": {
                "Env": ["PATH=/bin"], "Cmd": ["sh", ""], "Entrypoint": null, "Labels": { "a": "" }, "ExposedPorts": { "80/tcp": {} },
                "User": "", "Hostname": "made-by-a-builder", "Healthcheck": { "Test": ["CMD", "true"], "Interval": 30, "Retries": 0 },
            },
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"one"), Digest::of(b"two")] },
        })
    }

    fn pin() -> (Pin, Verified) {
        let document = Verified::hash(config().to_string());
        let parts = Manifest {
            config: Descriptor { media_type: String::new(), digest: document.digest(), size: document.size() },
            layers: vec![descriptor("layer 1"), descriptor("layer 2")],
            artifact: None,
            unproved: false,
        };
        let image = Image::new(descriptor("index"), descriptor("manifest"), parts, Config::parse(&document).unwrap()).unwrap();
        let asked: crate::reference::Reference = "redis:7".parse().unwrap();
        (Pin::new(asked.clone(), asked.name(), &image, None), document)
    }

    /// What docker's containerd image store shows of the image after it made up a manifest for it.
    fn rewritten() -> Value {
        json!({
            "Created": "2021-05-03T00:00:00.500Z", "Author": "someone", "Architecture": "arm", "Os": "linux", "Variant": "v7",
            "Config": {
                "Env": ["PATH=/bin"], "Cmd": ["sh", ""], "Entrypoint": [], "Labels": { "a": "" }, "ExposedPorts": { "80/tcp": {} },
                "OnBuild": null, "WorkingDir": "", "Healthcheck": { "Test": ["CMD", "true"], "Interval": 30 },
            },
        })
    }

    fn shown(id_of: IdOf, id: Digest) -> Shown {
        let (pin, _) = pin();
        Shown {
            id,
            id_of,
            // podman lists under a name what belongs to other names; it must not matter.
            digests: vec![pin.root.digest, pin.manifest.digest],
            diff_ids: pin.diff_ids,
            platform: Some(pin.platform),
            complete: true,
            manifests: Vec::new(),
            raw: rewritten(),
        }
    }

    #[test]
    fn only_the_identity_that_the_engine_computed_counts() {
        let (pin, _) = pin();
        let (root, manifest, image_id, other) = (pin.root.digest, pin.manifest.digest, pin.image_id(), Digest::of(b"other"));
        let held = |identity| Standing::Held(Proof::Identity(identity));
        let table = [
            (IdOf::Config, image_id, held(Identity::ImageId)),
            (IdOf::Config, root, Standing::Another),
            (IdOf::Config, manifest, Standing::Another),
            (IdOf::Config, other, Standing::Another),
            (IdOf::Target, root, held(Identity::Root)),
            (IdOf::Target, manifest, held(Identity::Manifest)),
            (IdOf::Target, image_id, Standing::Another),
            (IdOf::Target, other, Standing::Another),
        ];
        for (id_of, id, standing) in table {
            assert_eq!(prove(&pin, Some(&shown(id_of, id)), None), standing, "{id_of:?} {id}");
        }
        assert_eq!(prove(&pin, None, None), Standing::Absent);
    }

    #[test]
    fn the_right_identity_without_the_content_is_incomplete() {
        let (pin, config) = pin();
        let at_root = shown(IdOf::Target, pin.root.digest);
        let table = [
            (true, vec![], Standing::Held(Proof::Identity(Identity::Root))),
            (true, vec![Digest::of(b"another platform"), pin.manifest.digest], Standing::Held(Proof::Identity(Identity::Root))),
            (true, vec![Digest::of(b"another platform")], Standing::Incomplete),
            (false, vec![], Standing::Incomplete),
        ];
        for (complete, manifests, standing) in table {
            let shown = Shown { complete, manifests, ..at_root.clone() };
            assert_eq!(prove(&pin, Some(&shown), Some(&config)), standing, "{shown:?}");
        }
        let incomplete = Shown { complete: false, ..shown(IdOf::Target, Digest::of(b"made up")) };
        assert_eq!(prove(&pin, Some(&incomplete), Some(&config)), Standing::Incomplete);
    }

    #[test]
    fn content_is_compared_in_full() {
        let (pin, config) = pin();
        let made_up = shown(IdOf::Target, Digest::of(b"made up"));
        assert_eq!(prove(&pin, Some(&made_up), Some(&config)), Standing::Held(Proof::Content));
        assert_eq!(prove(&pin, Some(&made_up), None), Standing::Another);
        assert_eq!(prove(&pin, Some(&made_up), Some(&Verified::hash("{}"))), Standing::Another);
        let by_config = Shown { id_of: IdOf::Config, ..made_up.clone() };
        assert_eq!(prove(&pin, Some(&by_config), Some(&config)), Standing::Another);

        let other_layers = Shown { diff_ids: vec![pin.diff_ids[0]], ..made_up.clone() };
        let other_platform = Shown { platform: Some("linux/amd64".parse().unwrap()), ..made_up.clone() };
        let no_platform = Shown { platform: None, ..made_up.clone() };
        for other in [other_layers, other_platform, no_platform] {
            assert_eq!(prove(&pin, Some(&other), Some(&config)), Standing::Another, "{other:?}");
        }
        let changes = [
            ("/Created", json!("2021-05-03T00:00:01Z")),
            ("/Created", json!("yesterday")),
            ("/Author", json!("")),
            ("/Config/Env", json!(["PATH=/evil"])),
            ("/Config/Cmd", json!(["sh"])),
            ("/Config/Entrypoint", json!(["/evil"])),
            ("/Config/Labels", json!({})),
            ("/Config/ExposedPorts", json!(null)),
            ("/Config/OnBuild", json!(["RUN evil"])),
            ("/Config/WorkingDir", json!("/evil")),
            ("/Config/Healthcheck/Retries", json!(3)),
            ("/Config/Healthcheck", json!(null)),
            ("/Config/User", json!("root")),
            ("/Config/Shell", json!(["evil"])),
            ("/Config/StopSignal", json!("KILL")),
            ("/Config/Volumes", json!({ "/evil": {} })),
        ];
        for (at, value) in changes {
            let mut raw = rewritten();
            let (parent, field) = at.rsplit_once('/').unwrap();
            raw.pointer_mut(parent).unwrap()[field] = value;
            assert_eq!(prove(&pin, Some(&Shown { raw, ..made_up.clone() }), Some(&config)), Standing::Another, "{at}");
        }
    }
}
