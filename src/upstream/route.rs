//! What would be asked where, and as whom, told before anything is asked.

use std::path::PathBuf;

use super::credentials::{CredentialsError, Source};
use super::error::Result;
use super::shown::ShownUrl;
use super::{At, By, Place, Upstream, authfile, wire};
use crate::reference::Repository;

/// One place, and all that settings say of the way there. It holds no secret.
#[derive(Debug)]
pub struct Route {
    /// The place.
    pub place: Place,
    /// Where its manifests and blobs are.
    pub url: ShownUrl,
    /// Whether it is asked what a tag means.
    pub by_tag: bool,
    /// Whether it is asked for digests.
    pub by_digest: bool,
    /// The proxy on the way.
    pub proxy: Option<ShownUrl>,
    /// Where the credentials are that it is told if it asks for some; none if there are none for it.
    pub credentials: std::result::Result<Option<Source>, CredentialsError>,
    /// Files of authorities that are trusted for this host, and the certificate that it is shown.
    pub certificates: Vec<PathBuf>,
}

impl Upstream {
    /// Where a repository is asked for, and as whom. Reads settings and asks credential helpers, but no registry.
    pub async fn routes(&self, of: &Repository) -> Result<Vec<Route>> {
        let (by_tag, by_digest) = (self.places(of, By::Tag)?, self.places(of, By::Digest)?);
        let mut places = by_digest.clone();
        // Those that are for tags alone stand where they are asked: before the registry itself.
        let only_tags = by_tag.iter().filter(|place| !by_digest.contains(place)).cloned();
        places.splice(places.len().saturating_sub(1)..places.len().saturating_sub(1), only_tags);
        let mut routes = Vec::new();
        for place in places {
            let url = place.url(&self.wire, "manifests", &At::Tag("latest").to_string())?;
            let proxy = (!wire::is_loopback(&url)).then(|| self.wire.settings.proxies.of(&url)).flatten();
            let papers = if url.scheme() == "https" { self.wire.papers(&url)? } else { Default::default() };
            let credentials = authfile::find(&self.wire.settings, place.repository()).await;
            routes.push(Route {
                url: ShownUrl::from(&url.join("..").unwrap_or(url.clone())),
                by_tag: by_tag.contains(&place),
                by_digest: by_digest.contains(&place),
                proxy: proxy.map(ShownUrl::from),
                credentials: credentials.map(|found| found.map(|(_, source)| *source)),
                certificates: papers.authorities.into_iter().chain(papers.client.map(|(certificate, _)| certificate)).collect(),
                place,
            });
        }
        Ok(routes)
    }
}
