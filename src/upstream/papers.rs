//! Certificates for single hosts: who may vouch for them, and what they are shown.
//!
//! Reads the folders of [docker](https://docs.docker.com/engine/security/certificates/) and of
//! [podman](https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md), `certs.d/HOST:PORT`: `*.crt` are authorities that are
//! trusted for this host besides the system's, `NAME.cert` with `NAME.key` is what the host is shown. Always true: a client certificate
//! is for the one host and port that its folder names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity, Url};

use super::error::{Result, UpstreamError};

/// What settings say of the certificates of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Papers {
    /// Files of authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// What the host is shown: certificate, and key if that is a file of its own.
    pub(super) client: Option<(PathBuf, Option<PathBuf>)>,
    /// Whoever answers is believed.
    pub(super) unverified: bool,
}

impl Papers {
    /// What the folders have for a host, the first folder before the others.
    pub(super) fn in_folders(folders: &[PathBuf], url: &Url) -> Result<Papers> {
        let mut papers = Papers::default();
        for folder in folders.iter().flat_map(|folder| names(url).into_iter().map(|name| folder.join(name))) {
            papers.and(Papers::in_folder(&folder)?);
        }
        Ok(papers)
    }

    fn in_folder(folder: &Path) -> Result<Papers> {
        let failed = |source| UpstreamError::Roots { path: folder.to_owned(), source };
        let mut files = match std::fs::read_dir(folder) {
            Ok(entries) => entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed)?,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Papers::default()),
            Err(e) => return Err(failed(e)),
        };
        files.sort();
        let with = |extension: &str| files.iter().filter(|f| f.extension().is_some_and(|e| e == extension)).cloned().collect::<Vec<_>>();
        let client = with("cert").into_iter().next().map(|certificate| {
            let key = certificate.with_extension("key");
            (certificate, Some(key))
        });
        Ok(Papers { authorities: with("crt"), client, unverified: false })
    }

    /// Takes what the other has besides; of two client certificates the first stays.
    pub(super) fn and(&mut self, other: Papers) {
        self.authorities.extend(other.authorities);
        self.client = self.client.take().or(other.client);
        self.unverified |= other.unverified;
    }

    /// The authorities, read.
    pub(super) fn roots(&self) -> Result<Vec<Certificate>> {
        let read = self.authorities.iter().map(|path| read_roots(path)).collect::<Result<Vec<_>>>()?;
        Ok(read.into_iter().flatten().collect())
    }

    /// What the host is shown, read.
    pub(super) fn identity(&self) -> Result<Option<Identity>> {
        let Some((certificate, key)) = &self.client else { return Ok(None) };
        let mut pem = Vec::new();
        for path in [Some(certificate), key.as_ref()].into_iter().flatten() {
            let text = std::fs::read(path).map_err(|source| UpstreamError::Roots { path: path.clone(), source })?;
            pem.extend(text);
            pem.push(b'\n');
        }
        // What is wrong with a key is not repeated.
        Identity::from_pem(&pem).map(Some).map_err(|_| UpstreamError::NoIdentity { path: certificate.clone() })
    }
}

/// The certificates in a file.
pub(super) fn read_roots(path: &Path) -> Result<Vec<Certificate>> {
    let text = std::fs::read(path).map_err(|source| UpstreamError::Roots { path: path.to_owned(), source })?;
    let found = Certificate::from_pem_bundle(&text).unwrap_or_default();
    if found.is_empty() { Err(UpstreamError::NoRoots { path: path.to_owned() }) } else { Ok(found) }
}

/// What a host's folder may be called: with its port, or without if that is the usual one.
fn names(url: &Url) -> Vec<String> {
    let Some(host) = url.host_str() else { return Vec::new() };
    let hosts = if host == "registry-1.docker.io" { vec![host, "docker.io"] } else { vec![host] };
    let port = url.port_or_known_default().unwrap_or_default();
    let bare = if url.port().is_none() { hosts.clone() } else { Vec::new() };
    hosts.iter().map(|host| format!("{host}:{port}")).chain(bare.into_iter().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_host_and_port() {
        let root = tempfile::tempdir().unwrap();
        for file in ["h.io/a.crt", "h.io:443/b.crt", "h.io:5000/c.crt", "h.io:5000/d.cert", "h.io:5000/d.key", "docker.io/e.crt"] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let cases: [(&str, &[&str], Option<&str>); 5] = [
            ("https://h.io/v2/", &["b.crt", "a.crt"], None),
            ("https://h.io:5000/v2/", &["c.crt"], Some("d.cert")),
            ("https://h.io:5001/v2/", &[], None),
            ("https://registry-1.docker.io/v2/", &["e.crt"], None),
            ("https://x.h.io/", &[], None),
        ];
        for (url, authorities, client) in cases {
            let papers = Papers::in_folders(&["/nonexistent".into(), root.path().into()], &Url::parse(url).unwrap()).unwrap();
            let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(papers.authorities.iter().map(name).collect::<Vec<_>>(), authorities, "{url}");
            assert_eq!(papers.client.as_ref().map(|(c, _)| name(c)).as_deref(), client, "{url}");
        }
    }
}
