//! What an engine shows under a name.
//!
//! Owns the reading of docker's and podman's answer about one image. Always true: the answer bears the very name that was asked for; what an engine
//! found by guessing is not here.

use serde::Deserialize;
use serde_json::Value;

use super::Kind;
use crate::digest::Digest;
use crate::json::null_is_default;
use crate::oci::Platform;
use crate::reference::Name;

/// What an engine shows under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The engine's image ID field.
    pub id: Digest,
    /// What that is the digest of.
    pub id_of: IdOf,
    /// The digests behind the `@` in `RepoDigests` for this repository: how the image may be called, never a proof.
    pub digests: Vec<Digest>,
    /// The digests of the unpacked layers from the base up.
    pub diff_ids: Vec<Digest>,
    /// The platform in the image's config, if it names one.
    pub platform: Option<Platform>,
    /// Whether all it takes to run an image is there, as far as the engine tells.
    pub complete: bool,
    /// The platform manifests of which all is there, where the engine lists them; else nothing.
    pub manifests: Vec<Digest>,
    /// The engine's whole answer, for comparing the config's content.
    pub raw: Value,
}

/// What an engine's image ID is the digest of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdOf {
    /// The config: docker's classic image store, and podman. The engine hashed the config and every layer when it took them.
    Config,
    /// What the name points to, an index or a manifest: docker with the containerd image store. It may be one that the engine made up,
    /// and what it names may be missing.
    Target,
}

/// The answer to `GET /images/{name}/json`, of which docker and podman have the same form.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    repo_digests: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    architecture: String,
    #[serde(default, deserialize_with = "null_is_default")]
    os: String,
    #[serde(default, deserialize_with = "null_is_default")]
    variant: String,
    #[serde(default, deserialize_with = "null_is_default", rename = "RootFS")]
    root_fs: RootFs,
    /// Only with docker's containerd image store, from API 1.48 on.
    descriptor: Option<Value>,
    manifests: Option<Vec<Listed>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(rename = "ID")]
    id: Digest,
    available: bool,
    kind: String,
    image_data: Option<ImageData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageData {
    size: Option<Unpacked>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unpacked {
    unpacked: Option<u64>,
}

impl Listed {
    fn is_available(&self) -> bool {
        self.kind == "image" && self.available
    }

    /// How many bytes were unpacked, where that is told.
    fn unpacked(&self) -> Option<u64> {
        self.image_data.as_ref().and_then(|data| data.size.as_ref()?.unpacked)
    }
}

impl Shown {
    /// Whether the image has this name too.
    pub(super) fn is_called(&self, name: &Name) -> bool {
        let name = name.to_string();
        self.raw["RepoTags"].as_array().is_some_and(|tags| tags.iter().any(|tag| *tag == name))
    }
}

/// The digests of the unpacked layers, in an answer about whatever name or digest.
pub(super) fn diff_ids(raw: &Value) -> Result<Vec<Digest>, serde_json::Error> {
    Inspected::deserialize(raw).map(|seen| seen.root_fs.layers)
}

/// The platform manifests of which all is there, in an answer about whatever name or digest.
pub(super) fn ready(raw: &Value) -> Result<Vec<Digest>, serde_json::Error> {
    Inspected::deserialize(raw).map(|seen| seen.ready())
}

impl Inspected {
    /// The manifests of which containers can be made. An image's layers may all be there and yet not have been unpacked, for lack of space or
    /// because they cannot be. But beside one that was unpacked, another platform's is unpacked when it is needed.
    fn ready(&self) -> Vec<Digest> {
        let available: Vec<&Listed> = self.manifests.iter().flatten().filter(|listed| listed.is_available()).collect();
        let unpacked = available.iter().any(|listed| listed.unpacked().is_none_or(|bytes| bytes > 0));
        let ready = unpacked || self.root_fs.layers.is_empty();
        available.iter().filter(|_| ready).map(|listed| listed.id).collect()
    }
}

/// Reads an engine's answer about `name`; `None` if it is about something else.
pub(super) fn read(kind: Kind, name: &Name, raw: Value) -> Result<Option<Shown>, serde_json::Error> {
    let seen = Inspected::deserialize(&raw)?;
    // Docker prints short names for Docker Hub's images, podman never does; either resolves more names than these two.
    let (mut full, mut tagged) = (vec![name.repository().to_string()], vec![name.to_string()]);
    if kind == Kind::Docker {
        full.push(name.repository().familiar());
        tagged.push(name.familiar());
    }
    if !seen.repo_tags.iter().any(|tag| tagged.contains(tag)) {
        return Ok(None);
    }
    let of_repository = |entry: &String| {
        let (repository, digest) = entry.split_once('@')?;
        full.iter().any(|f| f == repository).then(|| digest.parse::<Digest>().ok())?
    };
    let digests: Vec<Digest> = seen.repo_digests.iter().filter_map(of_repository).collect();
    let id: Digest = seen.id.parse().or_else(|_| Digest::from_hex(&seen.id)).map_err(serde::de::Error::custom)?;
    // Before API 1.48 nothing tells the image stores apart but this: a config's digest is never that of a manifest.
    let target = kind == Kind::Docker && (seen.descriptor.is_some() || digests.contains(&id));
    let manifests = seen.ready();
    Ok(Some(Shown {
        id,
        id_of: if target { IdOf::Target } else { IdOf::Config },
        digests,
        diff_ids: seen.root_fs.layers,
        platform: Platform::new(&seen.os, &seen.architecture, Some(&seen.variant).filter(|v| !v.is_empty()).map(String::as_str)),
        complete: seen.descriptor.is_none() || !manifests.is_empty(),
        manifests,
        raw,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(n: u8) -> String {
        Digest::of(&[n]).to_string()
    }

    fn shown(kind: Kind, name: &str, answer: Value) -> Option<Shown> {
        read(kind, &name.parse().unwrap(), answer).unwrap()
    }

    #[test]
    fn only_the_very_name_counts() {
        let table = [
            (Kind::Docker, "redis:7", "redis:7", true),
            (Kind::Docker, "redis:7", "docker.io/library/redis:7", true),
            (Kind::Docker, "me/redis:7", "me/redis:7", true),
            (Kind::Docker, "redis:7", "redis:77", false),
            (Kind::Docker, "redis:7", "localhost/redis:7", false),
            (Kind::Docker, "localhost/redis:7", "redis:7", false),
            (Kind::Podman, "redis:7", "docker.io/library/redis:7", true),
            (Kind::Podman, "redis:7", "redis:7", false),
            (Kind::Podman, "redis:7", "localhost/redis:7", false),
            (Kind::Podman, "redis:7", "registry-1.docker.io/library/redis:7", false),
        ];
        for (kind, name, tag, there) in table {
            let answer = json!({ "Id": digest(1), "RepoTags": ["other:1", tag] });
            assert_eq!(shown(kind, name, answer).is_some(), there, "{kind} {name} {tag}");
        }
        assert_eq!(shown(Kind::Docker, "redis:7", json!({ "Id": digest(1), "RepoTags": null })), None);
    }

    #[test]
    fn docker_classic_and_podman_identify_by_config() {
        let answer = json!({
            "Id": digest(1), "RepoTags": ["redis:7", "docker.io/library/redis:7"],
            "RepoDigests": [format!("redis@{}", digest(2)), format!("docker.io/library/redis@{}", digest(3)), format!("other@{}", digest(4)), "redis@x"],
            "RootFS": { "Type": "layers", "Layers": [digest(5)] }, "Architecture": "arm", "Os": "linux", "Variant": "v7",
        });
        let docker = shown(Kind::Docker, "redis:7", answer.clone()).unwrap();
        assert_eq!((docker.id.to_string(), docker.id_of, docker.complete), (digest(1), IdOf::Config, true));
        assert_eq!(docker.digests, [Digest::of(&[2]), Digest::of(&[3])]);
        assert_eq!((docker.diff_ids, docker.platform.unwrap().to_string()), (vec![Digest::of(&[5])], "linux/arm/v7".to_owned()));
        let mut answer = answer;
        answer["Id"] = Digest::of(&[3]).hex().into();
        let podman = shown(Kind::Podman, "redis:7", answer).unwrap();
        assert_eq!((podman.id, podman.id_of, podman.digests), (Digest::of(&[3]), IdOf::Config, vec![Digest::of(&[3])]));
    }

    #[test]
    fn the_containerd_store_identifies_by_target() {
        let answer = json!({ "Id": digest(1), "RepoTags": ["redis:7"], "RepoDigests": [format!("redis@{}", digest(1))], "RootFS": { "Layers": [digest(9)] } });
        let before_manifests = shown(Kind::Docker, "redis:7", answer.clone()).unwrap();
        assert_eq!((before_manifests.id_of, before_manifests.complete), (IdOf::Target, true));

        let listed =
            |n: u8, kind: &str, available: bool| json!({ "ID": digest(n), "Kind": kind, "Available": available, "Descriptor": {} });
        let with = |manifests: Value| {
            let mut answer = answer.clone();
            answer["Descriptor"] = json!({ "digest": digest(1) });
            answer["Manifests"] = manifests;
            shown(Kind::Docker, "redis:7", answer).unwrap()
        };
        let sized = |unpacked: u64| {
            let mut listed = listed(2, "image", true);
            listed["ImageData"] = json!({ "Size": { "Unpacked": unpacked } });
            listed
        };
        let whole = with(json!([listed(2, "image", true), listed(3, "image", false), listed(4, "attestation", true)]));
        assert_eq!((whole.id_of, whole.complete, whole.manifests), (IdOf::Target, true, vec![Digest::of(&[2])]));
        assert!(with(json!([sized(4096)])).complete);
        let mut another = sized(0);
        another["ID"] = digest(3).into();
        assert_eq!(with(json!([sized(4096), another])).manifests, [Digest::of(&[2]), Digest::of(&[3])]);
        for without in [json!([listed(2, "image", false), listed(4, "attestation", true)]), json!([sized(0)]), json!([]), json!(null)] {
            let shown = with(without);
            assert_eq!((shown.id_of, shown.complete), (IdOf::Target, false));
        }
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        for answer in [json!({}), json!([]), json!({ "Id": "x", "RepoTags": ["redis:7"] }), json!({ "Id": digest(1), "RepoTags": 1 })] {
            assert!(read(Kind::Docker, &"redis:7".parse().unwrap(), answer.clone()).is_err(), "{answer}");
        }
    }
}
