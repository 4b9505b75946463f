//! Image references: what a person writes, and the name an image bears in an engine.
//!
//! The grammar is that of [distribution/reference](https://github.com/distribution/reference), and so are the
//! short names of Docker Hub; `index.docker.io` and `registry-1.docker.io` mean `docker.io` and are never
//! printed. Stricter in one point: a registry host in upper case is refused, since engines would take it
//! for another registry than the one it names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

const HUB: &str = "docker.io";

/// What a person writes to name an image: `[host[:port]/]path[:tag][@sha256:…]`.
///
/// Tag and digest may stand together: then the digest decides which image is meant, and the tag is
/// the name that it is to bear. Shown canonically, with registry and full path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A registry and a path in it: where an image is asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

/// The name an image bears in an engine: repository and tag, never a digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    repository: Repository,
    tag: String,
}

/// A text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing to parse.
    #[error("an image reference is empty")]
    Empty,
    /// A part of it is not as the grammar wants it.
    #[error("`{text}` is not an image reference")]
    Malformed {
        /// What was written, cut to 300 characters.
        text: String,
        /// What the grammar allows there.
        expected: &'static str,
        /// The character that is not allowed; `None` at the end of the text.
        found: Option<char>,
        /// Position of that character in the text, from 1.
        position: usize,
        /// A reference that may have been meant.
        suggestion: Option<String>,
    },
    /// The part behind the `@` is not a digest.
    #[error("`{text}` is not an image reference")]
    Digest {
        /// What was written, cut to 300 characters.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// 64 hexadecimal digits alone are an image ID.
    #[error("`{text}` is an image ID, not an image reference")]
    ImageId {
        /// What was written.
        text: String,
    },
    /// A name in an engine has a tag and no digest.
    #[error("`{text}` cannot be the name of an image in an engine")]
    NotAName {
        /// What was written.
        text: String,
    },
}

impl Repository {
    /// The registry's host, with its port if one was written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry, such as `library/redis`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As docker prints it: Docker Hub's images without registry, official ones without `library/`. Those whose path would be read as a
    /// registry's keep theirs.
    pub fn familiar(&self) -> String {
        if self.registry != HUB || split_host(&self.path).0.is_some() {
            return self.to_string();
        }
        self.path.strip_prefix("library/").filter(|p| !p.contains('/')).unwrap_or(&self.path).to_owned()
    }
}

impl Reference {
    /// The registry and path.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written: this is then what the image is pinned to.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The tag to ask a registry for when there is no digest: the one written, else `latest`.
    pub fn tag_or_latest(&self) -> &str {
        self.tag().unwrap_or("latest")
    }

    /// The same repository and tag, pinned to this digest. A reference that had neither gets the tag `latest`.
    pub fn pinned_to(&self, digest: Digest) -> Reference {
        let tag = if self.digest.is_none() { Some(self.tag_or_latest().to_owned()) } else { self.tag.clone() };
        Reference { repository: self.repository.clone(), tag, digest: Some(digest) }
    }

    /// The same repository and tag without the digest.
    pub fn without_digest(&self) -> Reference {
        Reference { digest: None, ..self.clone() }
    }

    /// The name that the image is to bear in an engine.
    ///
    /// A reference with only a digest gets a tag made of the digest's first 16 hexadecimal digits, so that engines do
    /// not prune the image as dangling: `redis@sha256:0123…` becomes `docker.io/library/redis:pinned-0123…`.
    pub fn name(&self) -> Name {
        let tag = match (&self.tag, &self.digest) {
            (Some(tag), _) => tag.clone(),
            (None, Some(digest)) => format!("pinned-{}", &digest.hex()[..16]),
            (None, None) => self.tag_or_latest().to_owned(),
        };
        Name { repository: self.repository.clone(), tag }
    }
}

impl Name {
    /// The registry and path.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// As docker prints it: `redis:7` for `docker.io/library/redis:7`.
    pub fn familiar(&self) -> String {
        format!("{}:{}", self.repository.familiar(), self.tag)
    }

    /// The reference that means this name without a digest.
    pub fn to_reference(&self) -> Reference {
        Reference { repository: self.repository.clone(), tag: Some(self.tag.clone()), digest: None }
    }

    /// The reference that means this name pinned to this digest.
    pub fn pinned_to(&self, digest: Digest) -> Reference {
        Reference { repository: self.repository.clone(), tag: Some(self.tag.clone()), digest: Some(digest) }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        parse(text)
    }
}

impl FromStr for Name {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Name, ReferenceError> {
        let reference: Reference = text.parse()?;
        match (reference.tag, reference.digest) {
            (Some(tag), None) => Ok(Name { repository: reference.repository, tag }),
            (None, None) => Ok(Name { repository: reference.repository, tag: "latest".to_owned() }),
            _ => Err(ReferenceError::NotAName { text: cut(text) }),
        }
    }
}

fn parse(text: &str) -> Result<Reference, ReferenceError> {
    if text.is_empty() {
        return Err(ReferenceError::Empty);
    }
    if text.len() == 64 && Digest::from_hex(text).is_ok() {
        return Err(ReferenceError::ImageId { text: text.to_owned() });
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|source| ReferenceError::Digest { text: cut(text), source })?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon behind the last slash starts the tag; before it, it belongs to the port.
    let path_start = rest.rfind('/').map_or(0, |i| i + 1);
    let (full_path, tag) = match rest[path_start..].find(':') {
        Some(i) => (&rest[..path_start + i], Some(&rest[path_start + i + 1..])),
        None => (rest, None),
    };
    let (host, path) = split_host(full_path);
    let at = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    let fail = |expected, part: &str, offset: usize| malformed(text, expected, at(part) + offset);
    if let Some(host) = host {
        check_host(host).map_err(|(expected, offset)| fail(expected, host, offset))?;
    }
    check_path(path).map_err(|(expected, offset)| fail(expected, path, offset))?;
    if let Some(tag) = tag {
        check_tag(tag).map_err(|(expected, offset)| fail(expected, tag, offset))?;
    }
    let repository = canonical(host, path);
    // Docker Hub's `library/` counts too, or the canonical form would be none.
    if repository.path.len() > 255 {
        return Err(fail("at most 255 characters in the repository", path, path.len()));
    }
    Ok(Reference { repository, tag: tag.map(str::to_owned), digest })
}

/// The first component is a host if it cannot be one of a path, as docker decides it.
fn split_host(full: &str) -> (Option<&str>, &str) {
    match full.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_uppercase()) => {
            (Some(first), rest)
        }
        _ => (None, full),
    }
}

fn canonical(host: Option<&str>, path: &str) -> Repository {
    let registry = match host {
        None | Some("docker.io" | "index.docker.io" | "registry-1.docker.io") => HUB,
        Some(host) => host,
    };
    let official = registry == HUB && !path.contains('/');
    let path = if official { format!("library/{path}") } else { path.to_owned() };
    Repository { registry: registry.to_owned(), path }
}

type Part = Result<(), (&'static str, usize)>;

fn check_host(host: &str) -> Part {
    const HOST: &str = "lower-case letters, digits, `.` and `-` in the registry host";
    const PORT: &str = "a port from 1 to 65535";
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let end = rest.find(']').ok_or(("`]` after an IPv6 address", host.len()))?;
        if rest[..end].parse::<std::net::Ipv6Addr>().is_err() {
            return Err(("an IPv6 address in brackets", 1));
        }
        let after = &rest[end + 1..];
        let port = match after.strip_prefix(':') {
            None if after.is_empty() => None,
            None => return Err(("`:` and a port, or `/`", end + 2)),
            port => port,
        };
        ("", port)
    } else {
        host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)))
    };
    if !host.starts_with('[') {
        let mut from = 0;
        for component in name.split('.') {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if let Some(i) = component.find(|c| !allowed(c)) {
                return Err((HOST, from + i));
            }
            if component.is_empty() || component.starts_with('-') {
                return Err((HOST, from));
            }
            if component.ends_with('-') {
                return Err((HOST, from + component.len() - 1));
            }
            from += component.len() + 1;
        }
    }
    let Some(port) = port else { return Ok(()) };
    let good = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0);
    if good { Ok(()) } else { Err((PORT, host.len() - port.len())) }
}

fn check_path(path: &str) -> Part {
    const PATH: &str = "lower-case letters, digits and . _ - / in the repository";
    const EDGE: &str = "a lower-case letter or digit at both ends of each part of the repository";
    const SEPARATOR: &str = "single `.` or `_`, `__` or dashes between letters and digits";
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut from = 0;
    for component in path.split('/') {
        let bytes = component.as_bytes();
        if let Some(i) = component.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))) {
            return Err((PATH, from + i));
        }
        if !bytes.first().is_some_and(|b| word(*b)) {
            return Err((EDGE, from));
        }
        if !bytes.last().is_some_and(|b| word(*b)) {
            return Err((EDGE, from + bytes.len() - 1));
        }
        let mut i = 0;
        while i < bytes.len() {
            let run = bytes[i..].iter().take_while(|b| !word(**b)).count();
            let separator = &component[i..i + run];
            if !(matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')) {
                return Err((SEPARATOR, from + i));
            }
            i += run.max(1);
        }
        from += bytes.len() + 1;
    }
    if path.len() > 255 {
        return Err(("at most 255 characters in the repository", 255));
    }
    Ok(())
}

fn check_tag(tag: &str) -> Part {
    const TAG: &str = "letters, digits and _ . - in the tag, 1 to 128 characters, not starting with . or -";
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let later = |c: char| first(c) || c == '.' || c == '-';
    if !tag.starts_with(first) {
        return Err((TAG, 0));
    }
    match tag.find(|c| !later(c)) {
        Some(i) => Err((TAG, i)),
        None if tag.len() > 128 => Err((TAG, 128)),
        None => Ok(()),
    }
}

fn malformed(text: &str, expected: &'static str, offset: usize) -> ReferenceError {
    let lower = text.to_ascii_lowercase();
    let repaired = lower.strip_prefix("https://").or(lower.strip_prefix("http://")).or(lower.strip_prefix("docker://")).unwrap_or(&lower);
    // With another scheme in it, it is none either: said here, so that this does not go deeper with every one.
    let suggestion = (repaired != text && !repaired.contains("://") && parse(repaired).is_ok()).then(|| repaired.to_owned());
    let found = text[offset..].chars().next();
    let position = text[..offset].chars().count() + 1;
    ReferenceError::Malformed { text: cut(text), expected, found, position, suggestion }
}

/// The start of a text that may be anything, fit to be shown in a message.
fn cut(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

macro_rules! shown_as_text {
    ($($type:ty),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
shown_as_text!(Repository, Reference, Name);

macro_rules! text_in_serde {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = ReferenceError;

            fn try_from(text: String) -> Result<$type, ReferenceError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}
text_in_serde!(Reference, Name);

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn canonical_forms() {
        let table = [
            ("redis", "docker.io/library/redis"),
            ("redis:7", "docker.io/library/redis:7"),
            ("library/redis:7", "docker.io/library/redis:7"),
            ("docker.io/redis:7", "docker.io/library/redis:7"),
            ("index.docker.io/library/redis:7", "docker.io/library/redis:7"),
            ("registry-1.docker.io/redis", "docker.io/library/redis"),
            ("bitnami/redis", "docker.io/bitnami/redis"),
            ("localhost/foo:1", "localhost/foo:1"),
            ("localhost:5000/foo/bar:1", "localhost:5000/foo/bar:1"),
            ("127.0.0.1:5000/k8s-minikube/kicbase:v0.0.22", "127.0.0.1:5000/k8s-minikube/kicbase:v0.0.22"),
            ("[::1]:5000/x", "[::1]:5000/x"),
            ("[fd00::1]/x:y", "[fd00::1]/x:y"),
            ("gcr.io/a/b/c/d:T_1.2-3", "gcr.io/a/b/c/d:T_1.2-3"),
            ("a__b/c--d/e.f_g", "docker.io/a__b/c--d/e.f_g"),
            ("docker.io:443/redis", "docker.io:443/redis"),
            ("foo:5000", "docker.io/library/foo:5000"),
            ("localhost", "docker.io/library/localhost"),
        ];
        for (text, canonical) in table {
            let parsed: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.to_string(), canonical);
            assert_eq!(canonical.parse::<Reference>().unwrap(), parsed);
            let pinned: Reference = format!("{text}@{D}").parse().unwrap();
            assert_eq!(pinned.to_string(), format!("{canonical}@{D}"));
            assert_eq!(pinned.tag(), parsed.tag());
        }
    }

    #[test]
    fn refusals_say_where() {
        let table = [
            ("Redis:7", 1, Some('R')),
            ("foo/Bar", 5, Some('B')),
            ("GHCR.io/x", 1, Some('G')),
            ("Foo/bar", 1, Some('F')),
            ("docker.io./x", 11, Some('/')),
            ("foo//bar", 5, Some('/')),
            ("foo/", 5, None),
            ("/foo", 1, Some('/')),
            ("foo:", 5, None),
            ("foo:-x", 5, Some('-')),
            ("foo:a b", 6, Some(' ')),
            ("foo..bar", 4, Some('.')),
            ("foo___bar", 4, Some('_')),
            ("foo-", 4, Some('-')),
            ("é", 1, Some('é')),
            ("redis：7", 6, Some('：')),
            ("localhost:/x", 11, Some('/')),
            ("localhost:99999/x", 11, Some('9')),
            ("[::1/x", 5, Some('/')),
            ("https://ghcr.io/x:1", 7, Some('/')),
            ("a\u{1b}b", 2, Some('\u{1b}')),
        ];
        for (text, at, what) in table {
            match text.parse::<Reference>() {
                Err(ReferenceError::Malformed { position, found, .. }) => assert_eq!((position, found), (at, what), "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in [
            "",
            &D[7..],
            "foo@",
            "foo@sha256:12",
            "foo@sha512:00",
            &format!("foo@{D}@{D}"),
            &format!("@{D}"),
            &format!("foo@{}", D.to_uppercase()),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        for long in [format!("foo:{}", "a".repeat(129)), "a".repeat(256), "a".repeat(248), format!("foo/{}", "é".repeat(1 << 20))] {
            assert!(long.parse::<Reference>().is_err());
        }
    }

    #[test]
    fn suggestions_can_be_used() {
        let nested = "https://".repeat(100_000);
        let texts = [("Redis:7", Some("redis:7")), ("https://ghcr.io/x:1", Some("ghcr.io/x:1")), ("foo//bar", None), (&nested, None)];
        for (text, meant) in texts {
            let Err(ReferenceError::Malformed { suggestion, .. }) = text.parse::<Reference>() else { panic!("{text}") };
            assert_eq!(suggestion.as_deref(), meant);
        }
    }

    #[test]
    fn names_in_engines() {
        let name = |text: &str| text.parse::<Reference>().unwrap().name().to_string();
        assert_eq!(name("redis"), "docker.io/library/redis:latest");
        assert_eq!(name(&format!("redis:7@{D}")), "docker.io/library/redis:7");
        assert_eq!(name(&format!("redis@{D}")), "docker.io/library/redis:pinned-e3b0c44298fc1c14");
        assert_eq!("redis:7".parse::<Name>().unwrap().familiar(), "redis:7");
        assert_eq!("bitnami/redis:7".parse::<Name>().unwrap().familiar(), "bitnami/redis:7");
        assert_eq!("gcr.io/library/redis:7".parse::<Name>().unwrap().familiar(), "gcr.io/library/redis:7");
        assert_eq!("docker.io/a.io/b:7".parse::<Name>().unwrap().familiar(), "docker.io/a.io/b:7");
        assert!(format!("redis@{D}").parse::<Name>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn accepted_is_canonical_after_one_round(text in "\\PC{0,80}|[a-zA-Z0-9./:_@-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let shown = reference.to_string();
                let again: Reference = shown.parse().unwrap();
                proptest::prop_assert_eq!(again, reference);
            }
        }
    }
}
