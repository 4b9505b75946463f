//! The mirrors of Docker Hub in docker's `daemon.json`
//! ([Registry as a pull through cache](https://docs.docker.com/docker-hub/image-library/mirror/)). Nothing else in it is followed.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use reqwest::Url;
use serde::Deserialize;

use super::{Place, base, without_user};
use crate::json;
use crate::upstream::error::{Result, UpstreamError};
use crate::upstream::hosts::Host;
use crate::upstream::wire::Wire;

/// The only registry that they are for.
const HUB: &str = "docker.io";

#[derive(Deserialize)]
struct File {
    #[serde(rename = "registry-mirrors", default, deserialize_with = "json::null_is_default")]
    mirrors: Vec<String>,
}

/// The mirrors that the first file names that is there, for repositories of Docker Hub.
pub(super) fn places(wire: &Wire, origin: &Place) -> Result<Vec<Place>> {
    if origin.repository.registry() != HUB {
        return Ok(Vec::new());
    }
    for path in &wire.settings.daemon_files {
        match std::fs::read(path) {
            Ok(text) => return Ok(named(&text, path)?.iter().filter_map(|mirror| place(wire, mirror, origin, path)).collect()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(source) => return Err(UpstreamError::SettingsRead { path: path.clone(), source }),
        }
    }
    Ok(Vec::new())
}

fn named(text: &[u8], path: &Path) -> Result<Vec<Url>> {
    let wrong = |why: String| UpstreamError::SettingsMalformed { path: path.to_path_buf(), why };
    if text.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    // The reader's own message may repeat what it read.
    let file: File = json::parse(text, &["registry-mirrors"]).map_err(|e| wrong(format!("it is no such file, see line {}", e.line())))?;
    let mirror = |text: &String| base(text, false).ok_or_else(|| wrong(format!("`{}` is no mirror", without_user(text))));
    file.mirrors.iter().map(mirror).collect()
}

fn place(wire: &Wire, mirror: &Url, origin: &Place, path: &Path) -> Option<Place> {
    let place = Place::through(mirror, origin, None, Arc::new(path.to_path_buf()))?;
    if mirror.scheme() == "http" {
        wire.learn(mirror, Host { insecure: true, ..wire.hosts.of(mirror) });
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Reference;
    use crate::upstream::Settings;

    fn urls(text: &str, image: &str) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        std::fs::write(&path, text).unwrap();
        let wire = Wire::new(Settings { daemon_files: vec!["/nonexistent/daemon.json".into(), path], ..Settings::default() });
        let origin = Place::from(image.parse::<Reference>().unwrap().repository());
        Ok(places(&wire, &origin)?.iter().map(|place| place.url(&wire, "manifests", "7").unwrap().to_string()).collect())
    }

    #[test]
    fn mirrors_are_for_docker_hub_alone() {
        let text = r#"{"registry-mirrors":["https://a.example","http://b.lan:5000/","https://c.example/hub"],"data-root":"/x","tls":null}"#;
        let expected = [
            "https://a.example/v2/library/redis/manifests/7",
            "http://b.lan:5000/v2/library/redis/manifests/7",
            "https://c.example/hub/v2/library/redis/manifests/7",
        ];
        assert_eq!(urls(text, "redis").unwrap(), expected);
        assert_eq!(urls(text, "ghcr.io/a/b").unwrap(), [""; 0]);
        for empty in ["", "{}", r#"{"registry-mirrors":null}"#] {
            assert_eq!(urls(empty, "redis").unwrap(), [""; 0], "{empty}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_its_secrets() {
        for text in [
            r#"{"registry-mirrors":"https://u:s3cret@h.io"}"#,
            r#"{"registry-mirrors":["https://u:s3cret@h.io"]}"#,
            r#"{"registry-mirrors":["ftp://h.io"]}"#,
            "{",
        ] {
            let error = urls(text, "redis").unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
            assert_eq!(urls(text, "ghcr.io/a/b").unwrap(), [""; 0]);
        }
    }
}
