//! The `registries.conf` of podman, skopeo and buildah, version 2
//! ([containers-registries.conf(5)](https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md)).
//!
//! `unqualified-search-registries` and short-name aliases are passed over: larder guesses no registry.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{By, Place, covers};
use crate::upstream::error::{Result, UpstreamError};

/// What all files together say: of two tables for one prefix, the one that was read last.
#[derive(Default)]
pub(super) struct Registries(BTreeMap<String, Table>);

struct Table {
    path: Arc<Path>,
    said: Registry,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
    /// Tables of version 1.
    registries: Option<Old>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Old {
    insecure: OldList,
    block: OldList,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OldList {
    registries: Vec<String>,
}

impl Registries {
    /// Reads files in this order; those that are not there are passed over.
    pub(super) fn read(files: &[PathBuf]) -> Result<Registries> {
        let mut tables = BTreeMap::new();
        for path in files {
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(source) => return Err(UpstreamError::SettingsRead { path: path.clone(), source }),
            };
            let shared: Arc<Path> = path.as_path().into();
            for said in parse(&text, path)? {
                tables.insert(said.prefix().to_owned(), Table { path: shared.clone(), said });
            }
        }
        Ok(Registries(tables))
    }

    /// Adds the mirrors of a repository; returns where it is itself, if that is not where its name says.
    pub(super) fn of(&self, whole: &str, by: By, places: &mut Vec<Place>) -> Result<Option<Place>> {
        let fitting = self.0.iter().filter_map(|(prefix, table)| Some((covers(prefix, whole)?, table)));
        let Some((length, Table { path, said })) = fitting.max_by_key(|(length, _)| *length) else { return Ok(None) };
        if said.blocked {
            return Err(UpstreamError::Forbidden { repository: whole.to_owned(), path: path.to_path_buf() });
        }
        for mirror in said.mirror.iter().filter(|m| said.may_ask(m, by)) {
            places.push(Place::mirror(&mirror.location, &whole[length..], path)?);
        }
        if said.location.is_empty() || said.location == whole[..length] {
            return Ok(None);
        }
        // It stands for the registry.
        let place = Place::mirror(&said.location, &whole[length..], path)?;
        Ok(Some(Place { mirror: false, ..place }))
    }

    /// The hosts of all locations that are said to be insecure.
    pub(super) fn insecure(&self) -> impl Iterator<Item = String> {
        let own = self.0.values().filter(|t| t.said.insecure).map(|t| t.said.place());
        let mirrors = self.0.values().flat_map(|t| t.said.mirror.iter()).filter(|m| m.insecure).map(|m| m.location.as_str());
        own.chain(mirrors).map(|location| location.split('/').next().unwrap_or_default().to_owned())
    }
}

impl Registry {
    fn prefix(&self) -> &str {
        if self.prefix.is_empty() { &self.location } else { &self.prefix }
    }

    fn place(&self) -> &str {
        if self.location.is_empty() { &self.prefix } else { &self.location }
    }

    fn may_ask(&self, mirror: &Mirror, by: By) -> bool {
        match mirror.pull_from_mirror {
            PullFrom::All => by == By::Digest || !self.mirror_by_digest_only,
            PullFrom::DigestOnly => by == By::Digest,
            PullFrom::TagOnly => by == By::Tag,
        }
    }
}

fn parse(text: &str, path: &Path) -> Result<Vec<Registry>> {
    let wrong = |why: String| UpstreamError::SettingsMalformed { path: path.to_owned(), why };
    let file: File = toml::from_str(text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
    if file.registries.is_some_and(|old| !old.insecure.registries.is_empty() || !old.block.registries.is_empty()) {
        return Err(wrong("it names registries in the format of version 1; write [[registry]] tables".to_owned()));
    }
    if file.registry.iter().any(|registry| registry.prefix().is_empty()) {
        return Err(wrong("a [[registry]] has neither a prefix nor a location".to_owned()));
    }
    Ok(file.registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Registries {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.conf");
        std::fs::write(&path, text).unwrap();
        Registries::read(&["/nonexistent/registries.conf".into(), path]).unwrap()
    }

    /// The places of a repository, its own last.
    fn places(registries: &Registries, whole: &str, by: By) -> Vec<String> {
        let mut places = Vec::new();
        let own = registries.of(whole, by, &mut places).unwrap();
        let own = own.map_or(whole.to_owned(), |place| place.to_string());
        places.iter().map(ToString::to_string).chain([own]).collect()
    }

    #[test]
    fn mirrors_are_for_tags_or_digests_as_the_file_says() {
        let registries = registries(
            r#"
            unqualified-search-registries = ["docker.io", "quay.io"]
            short-name-mode = "enforcing"
            [aliases]
            "nginx" = "docker.io/library/nginx"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "all.io/hub"
            [[registry.mirror]]
            location = "digests.io"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tags.io"
            pull-from-mirror = "tag-only"
            insecure = true
            [[registry]]
            prefix = "quay.io/team"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "all.io/quay"
            "#,
        );
        let hub = "docker.io/library/redis";
        assert_eq!(places(&registries, hub, By::Digest), ["all.io/hub/library/redis", "digests.io/library/redis", hub]);
        assert_eq!(places(&registries, hub, By::Tag), ["all.io/hub/library/redis", "tags.io/library/redis", hub]);
        assert_eq!(places(&registries, "quay.io/team/x", By::Digest), ["all.io/quay/x", "quay.io/team/x"]);
        assert_eq!(places(&registries, "quay.io/team/x", By::Tag), ["quay.io/team/x"]);
        assert_eq!(places(&registries, "quay.io/teams/x", By::Digest), ["quay.io/teams/x"]);
        assert_eq!(registries.insecure().collect::<Vec<_>>(), ["tags.io"]);
    }

    #[test]
    fn the_longest_prefix_decides_and_a_location_takes_its_place() {
        let registries = registries(
            r#"
            [[registry]]
            prefix = "example.com/foo"
            location = "internal.net/bar"
            [[registry]]
            prefix = "example.com/foo/secret"
            blocked = true
            [[registry]]
            prefix = "*.example.com"
            insecure = true
            [[registry]]
            prefix = "*.corp.io"
            location = "cache.io/corp"
            "#,
        );
        assert_eq!(places(&registries, "example.com/foo/image", By::Tag), ["internal.net/bar/image"]);
        assert_eq!(places(&registries, "example.com/other", By::Tag), ["example.com/other"]);
        assert_eq!(places(&registries, "a.example.com/x", By::Tag), ["a.example.com/x"]);
        assert_eq!(places(&registries, "a.b.corp.io/x", By::Tag), ["cache.io/corp/x"]);
        let blocked = registries.of("example.com/foo/secret/x", By::Digest, &mut Vec::new());
        assert!(matches!(blocked, Err(UpstreamError::Forbidden { .. })));
        assert_eq!(registries.insecure().collect::<Vec<_>>(), ["*.example.com"]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "[[registry]]\nblocked = true",
            "[[registry]]\nlocation = 5",
            "[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\nlocation = \"b.io\"\npull-from-mirror = \"some\"",
            "[registries.block]\nregistries = [\"evil.io\"]",
            "registry",
        ] {
            assert!(parse(text, Path::new("f")).is_err(), "{text}");
        }
        assert!(parse("[registries.search]\nregistries = [\"docker.io\"]", Path::new("f")).is_ok());
    }
}
