//! What a registry lists as referring to a manifest
//! ([distribution-spec, Listing Referrers](https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers)).
//!
//! Asked by the specification's interface, page after page, and of registries that have none by the tag that takes its place. No filter is
//! asked for, so that what comes is the whole list, whatever `OCI-Filters-Applied` says. Always true: the pages are those of one
//! origin, each is asked for once, and they are bounded in number and size. What they list is for others to read, and to doubt.

use std::collections::BTreeSet;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::error::{Result, UpstreamError};
use super::places::Place;
use super::refusal::Wanted;
use super::retry::Retry;
use super::shown::{ShownUrl, plain};
use super::wire::Ask;
use super::{At, Found, Upstream, link, success};
use crate::digest::{Digest, Verified};
use crate::event::Tell;
use crate::oci::{DOCUMENT_LIMIT, INDEX_TYPES, referrers_tag};

/// The most pages that a list may have.
const PAGES: usize = 32;

impl Upstream {
    /// The pages of the list of what refers to this digest, as they came; none if nothing does.
    pub async fn referrers(&self, of: &Place, subject: &Digest, tell: &Tell<'_>) -> Result<Vec<Found>> {
        let mut url = of.url(&self.wire, "referrers", &subject.to_string())?;
        let (mut asked, mut pages) = (BTreeSet::new(), Vec::new());
        loop {
            asked.insert(url.clone());
            let (page, next) = match self.page(of, &url, tell).await {
                Err(error) if pages.is_empty() && is_unknown(&error) => return self.by_tag(of, subject, tell).await,
                page => page?,
            };
            pages.push(page);
            let Some(next) = next else { return Ok(pages) };
            if pages.len() == PAGES || asked.contains(&next) {
                return Err(UpstreamError::EndlessList { url: ShownUrl::from(&url), pages: pages.len() });
            }
            url = next;
        }
    }

    /// One page, and where the next one is.
    async fn page(&self, of: &Place, url: &Url, tell: &Tell<'_>) -> Result<(Found, Option<Url>)> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(INDEX_TYPES[0]))]);
        let ask = Ask { method: Method::GET, url: url.clone(), headers, form: None };
        let mut retry = Retry::new(&self.wire.settings, tell).of(of);
        loop {
            match self.page_once(&ask, of).await {
                Ok(page) => return Ok(page),
                Err(error) => retry.pause(error).await?,
            }
        }
    }

    async fn page_once(&self, ask: &Ask, of: &Place) -> Result<(Found, Option<Url>)> {
        let mut answer = success(self.ask(ask, of, Wanted::Manifest).await?.plain()?)?;
        let media_type = answer.header(CONTENT_TYPE).map(|t| plain(t, 200));
        let lost = |_| UpstreamError::LostPage { url: answer.url.clone() };
        let next = link::next(answer.headers(), &ask.url).map_err(lost)?;
        let bytes = Verified::hash(answer.bytes(DOCUMENT_LIMIT).await?);
        Ok((Found { bytes, media_type }, next))
    }

    async fn by_tag(&self, of: &Place, subject: &Digest, tell: &Tell<'_>) -> Result<Vec<Found>> {
        match self.manifest(of, At::Tag(&referrers_tag(subject)), tell).await {
            Ok(list) => Ok(vec![list]),
            Err(UpstreamError::NoManifest { .. } | UpstreamError::NoRepository { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a registry does not know the interface: by the specification it says 404 then, and there are others.
fn is_unknown(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NoManifest { .. } | UpstreamError::NoRepository { .. } => true,
        UpstreamError::Status { status, .. } => [400, 405, 406].contains(status),
        _ => false,
    }
}
