//! The files in which docker and podman keep credentials.
//!
//! Reads docker's `config.json` and the `auth.json` of podman, skopeo and buildah
//! ([containers-auth.json(5)](https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md)). The first
//! place that has something for a registry decides, in this order: what the settings hold, logins before the text of a file; then each file as listed, and in
//! it the helper for this registry (`credHelpers`), the helper for all (`credsStore`), the file's own entries
//! (`auths`, the longest key that fits). Nothing is kept or written.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::credentials::{Credential, CredentialsError, Given, Login, Secret, Source};
use super::{Settings, helper};
use crate::json;
use crate::reference::Repository;

/// Credentials and where they were found.
pub(super) type Found = Option<(Credential, Box<Source>)>;
type Result<T> = std::result::Result<T, CredentialsError>;

/// Larger than any file of credentials.
const FILE_LIMIT: u64 = 4 << 20;

/// Docker Hub's key in the files and for the helpers, from the days of its first protocol.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What there is for this repository; none if there is nothing for it anywhere.
pub(super) async fn find(settings: &Settings, of: &Repository) -> Result<Found> {
    let names = names(of);
    let login = names.iter().find_map(|name| settings.logins.iter().find(|l| canonical(&l.registry) == *name));
    if let Some(Login { username, password, .. }) = login {
        return Ok(Some((Credential::Basic { username: username.clone(), password: password.clone() }, Box::new(Source::Settings))));
    }
    if let Some(Given { name, text }) = &settings.credentials {
        let path = Path::new(name);
        let file = parse(text.expose().as_bytes(), path)?;
        if let Some(found) = in_file(settings, of, &names, file, path).await? {
            return Ok(Some(found));
        }
    }
    for path in &settings.credential_files {
        let Some(file) = read(path).await? else { continue };
        if let Some(found) = in_file(settings, of, &names, file, path).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn in_file(settings: &Settings, of: &Repository, names: &[String], file: File, path: &Path) -> Result<Found> {
    let own = file.cred_helpers.iter().find(|(key, _)| canonical(key) == of.registry()).map(|(_, name)| name);
    let helpers = own.or(file.creds_store.as_ref()).filter(|name| !name.is_empty());
    if let Some(name) = helpers {
        let server = if of.registry() == "docker.io" { HUB_KEY } else { of.registry() };
        let program = helper::program(name).ok_or_else(|| CredentialsError::HelperName { path: path.to_owned() })?;
        if let Some(credential) = helper::ask(settings, &program, server).await? {
            return Ok(Some((credential, Box::new(Source::Helper { program, path: path.to_owned() }))));
        }
    }
    for name in names {
        // Two keys may mean the same; then the one that is written as references are.
        let exact = file.auths.get_key_value(name.as_str());
        let entry = exact.into_iter().chain(file.auths.iter().filter(|(key, _)| canonical(key) == *name));
        for (key, entry) in entry {
            let source = || Box::new(Source::File { path: path.to_owned(), key: key.clone() });
            if let Some(credential) =
                entry.credential().ok_or_else(|| CredentialsError::Entry { path: path.to_owned(), key: key.clone() })?
            {
                return Ok(Some((credential, source())));
            }
        }
    }
    Ok(None)
}

/// What a key may be to fit this repository, the most special first: `ghcr.io/team/app`, `ghcr.io/team`, `ghcr.io`.
fn names(of: &Repository) -> Vec<String> {
    let whole = of.to_string();
    let mut names: Vec<String> = whole.match_indices('/').map(|(at, _)| whole[..at].to_owned()).collect();
    names.push(whole);
    names.reverse();
    names
}

/// A key as references write it. One with a scheme is of the old kind and means the whole host, whatever its path is.
fn canonical(key: &str) -> String {
    let old = ["https://", "http://"].iter().find_map(|scheme| key.strip_prefix(scheme));
    let key = match old {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => ["/v1", "/v2"].iter().fold(key.trim_end_matches('/'), |k, version| k.strip_suffix(version).unwrap_or(k)),
    };
    let (host, path) = key.split_once('/').map_or((key, None), |(host, path)| (host, Some(path)));
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    path.map_or(host.to_owned(), |path| format!("{host}/{path}"))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    #[serde(deserialize_with = "json::null_is_default")]
    auths: BTreeMap<String, Entry>,
    #[serde(deserialize_with = "json::null_is_default")]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl Entry {
    /// What the entry holds: `None` if that cannot be read, `Some(None)` if it is empty, as beside a helper.
    fn credential(&self) -> Option<Option<Credential>> {
        let filled = |s: &Option<Secret>| s.clone().filter(|s| !s.expose().is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Some(Some(Credential::Identity(token)));
        }
        if let Some(token) = filled(&self.registrytoken) {
            return Some(Some(Credential::Token(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            return decode(&auth).map(Some);
        }
        match (&self.username, filled(&self.password)) {
            (Some(username), Some(password)) => Some(Some(Credential::Basic { username: username.clone(), password })),
            _ => Some(None),
        }
    }
}

fn decode(auth: &Secret) -> Option<Credential> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.expose().trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Some writers fill up with zero bytes, and docker's reader takes them off.
    let password = Secret::from(password.trim_end_matches('\0').to_owned());
    Some(Credential::Basic { username: username.to_owned(), password })
}

async fn read(path: &Path) -> Result<Option<File>> {
    let failed = |source| CredentialsError::Read { path: path.to_owned(), source };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut text = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut text).await.map_err(failed)?;
    parse(&text, path).map(Some)
}

fn parse(text: &[u8], path: &Path) -> Result<File> {
    // What podman leaves behind when it logs out of everything.
    if text.trim_ascii().is_empty() {
        return Ok(File::default());
    }
    // The reader's own message may repeat what it read.
    let parsed = json::parse(text, &["auths", "credHelpers", "credsStore"]);
    parsed.map_err(|e| CredentialsError::Malformed { path: path.to_owned(), line: e.line() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Reference;

    /// What is found for `image` in a file that holds `text`.
    async fn found(text: &str, image: &str) -> Result<Option<Credential>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        std::fs::write(&path, text).unwrap();
        let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/helper.sh");
        std::os::unix::fs::symlink(helper, folder.path().join("docker-credential-server")).unwrap();
        let settings = Settings { credential_files: vec![path], helper_folders: vec![folder.path().into()], ..Settings::default() };
        let reference: Reference = image.parse().unwrap();
        Ok(find(&settings, reference.repository()).await?.map(|(credential, _)| credential))
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { username: username.into(), password: Secret::from(password.to_owned()) })
    }

    // `a:1`, `b:2`, `c:3` in base64.
    const A: &str = r#"{"auth":"YTox"}"#;
    const B: &str = r#"{"auth":"Yjoy"}"#;
    const C: &str = r#"{"auth":"Yzoz"}"#;

    #[tokio::test]
    async fn the_longest_key_that_fits_is_taken() {
        let text = format!(r#"{{"auths":{{"h.io":{A},"h.io/team":{B},"h.io/team/app":{C},"h.io/tea":{A}}}}}"#);
        let cases = [
            ("h.io/x", basic("a", "1")),
            ("h.io/team/y", basic("b", "2")),
            ("h.io/team/app", basic("c", "3")),
            ("h.io/team/app/z", basic("c", "3")),
            ("h.io/teams/x", basic("a", "1")),
            ("h.io:5000/x", None),
            ("other.io/team/app", None),
        ];
        for (image, expected) in cases {
            assert_eq!(found(&text, image).await.unwrap(), expected, "{image}");
        }
    }

    #[tokio::test]
    async fn a_text_goes_before_the_files_where_it_has_something() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        std::fs::write(&path, format!(r#"{{"auths":{{"h.io":{A},"other.io":{B}}}}}"#)).unwrap();
        let given = |text: &str| Some(Given { name: "VARIABLE".to_owned(), text: Secret::from(text.to_owned()) });
        let own = format!(r#"{{"auths":{{"h.io/team":{C}}}}}"#);
        for (text, image, expected) in [
            (own.as_str(), "h.io/team/x", "VARIABLE"),
            (&own, "h.io/x", "auth.json"),
            (&own, "other.io/x", "auth.json"),
            ("", "h.io/x", "auth.json"),
        ] {
            let settings = Settings { credentials: given(text), credential_files: vec![path.clone()], ..Settings::default() };
            let (_, source) = find(&settings, image.parse::<Reference>().unwrap().repository()).await.unwrap().unwrap();
            assert!(source.to_string().ends_with(expected), "{image}: {source}");
        }
        let settings = Settings { credentials: given(r#"{"auths":{"h.io":"s3cret"}}"#), ..Settings::default() };
        let error = find(&settings, "h.io/x".parse::<Reference>().unwrap().repository()).await.unwrap_err();
        assert!(!format!("{settings:?} {error:?} {error}").contains("s3cret"), "{error:?}");
    }

    #[tokio::test]
    async fn docker_hub_is_known_by_all_its_names() {
        for key in [
            "https://index.docker.io/v1/",
            "index.docker.io",
            "docker.io",
            "registry-1.docker.io",
            "https://registry-1.docker.io/v2/",
            "index.docker.io/v1/",
            "docker.io/library",
            "docker.io/library/redis",
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{A}}}}}"#);
            assert_eq!(found(&text, "redis").await.unwrap(), basic("a", "1"), "{key}");
        }
        for key in ["https://docker.io.evil.io/v1/", "hub.docker.io", "docker.io/team", "evil.io/docker.io"] {
            let text = format!(r#"{{"auths":{{"{key}":{A}}}}}"#);
            assert_eq!(found(&text, "redis").await.unwrap(), None, "{key}");
        }
        let text = r#"{"credHelpers":{"docker.io":"server"}}"#;
        assert_eq!(found(text, "redis").await.unwrap(), basic("https://index.docker.io/v1/", "s3cret"));
        let text = r#"{"credsStore":"server"}"#;
        assert_eq!(found(text, "ghcr.io/a/b").await.unwrap(), basic("ghcr.io", "s3cret"));
    }

    #[tokio::test]
    async fn entries_are_read_as_docker_and_podman_write_them() {
        let token = |t: &str| Secret::from(t.to_owned());
        let cases = [
            (r#"{"auth":"YTox"}"#, basic("a", "1")),
            (r#"{"auth":"YTpwYXNzOndvcmQ="}"#, basic("a", "pass:word")),
            (r#"{"auth":"YToxAAAA"}"#, basic("a", "1")),
            (r#"{"username":"a","password":"1"}"#, basic("a", "1")),
            (r#"{"auth":"YTo=","identitytoken":"t"}"#, Some(Credential::Identity(token("t")))),
            (r#"{"registrytoken":"t"}"#, Some(Credential::Token(token("t")))),
            (r#"{"auth":"YTox","identitytoken":"","email":"x"}"#, basic("a", "1")),
            (r#"{"auth":null}"#, None),
            ("{}", None),
        ];
        for (entry, expected) in cases {
            let text = format!(r#"{{"auths":{{"h.io":{entry}}},"HttpHeaders":{{"User-Agent":"x"}},"detachKeys":"ctrl-e,e"}}"#);
            assert_eq!(found(&text, "h.io/x").await.unwrap(), expected, "{entry}");
        }
        for empty in ["", "\n", "{}", r#"{"auths":null,"credHelpers":null,"credsStore":""}"#] {
            assert_eq!(found(empty, "h.io/x").await.unwrap(), None, "{empty}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_an_error_that_tells_no_secret() {
        let texts = [
            r#"{"auths":{"h.io":{"auth":"s3cret"}}}"#,
            r#"{"auths":{"h.io":{"auth":"czNjcmV0"}}}"#,
            r#"{"auths":{"h.io":"s3cret"}}"#,
            r#"{"auths":{"h.io":{"password":["s3cret"]}}}"#,
            r#"{"s3cret"#,
            r#"{"credsStore":"s3cret/../x"}"#,
        ];
        for text in texts {
            let error = found(text, "h.io/x").await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3cret") && !shown.contains("czNjcmV0"), "{shown}");
        }
    }
}
