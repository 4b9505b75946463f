//! Where an image would be asked for, and as whom, said before it is.

use larder::reference::Reference;
use larder::upstream::{CredentialsError, Route, Source, Upstream};
use serde_json::{Value, json};

use super::failure::Failure;
use super::session::Session;

/// Says where the parts of an image would be asked for, and returns it for programs.
pub(crate) async fn say(session: &Session<'_>, upstream: &Upstream, reference: &Reference) -> Result<Value, Failure> {
    let routes = upstream.routes(reference.repository()).await?;
    if !session.screen.quiet() {
        routes.iter().for_each(|route| session.screen.note(&line(route)));
    }
    Ok(routes.iter().map(json).collect())
}

fn line(route: &Route) -> String {
    let asked = match (route.by_tag, route.by_digest) {
        (true, true) => "tags and digests",
        (true, false) => "tags",
        _ => "digests",
    };
    let mut text = format!("{asked} from {}\n  credentials: {}", route.url, credentials(&route.credentials));
    if let Some(proxy) = &route.proxy {
        text.push_str(&format!("\n  by way of:   {proxy}"));
    }
    for path in &route.certificates {
        text.push_str(&format!("\n  certificate: {}", path.display()));
    }
    if let Some(path) = route.place.named() {
        text.push_str(&format!("\n  named in:    {}", path.display()));
    }
    text
}

fn credentials(found: &Result<Option<Source>, CredentialsError>) -> String {
    match found {
        Ok(Some(source)) => source.to_string(),
        Ok(None) => "none".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn json(route: &Route) -> Value {
    json!({
        "place": route.place.to_string(), "url": route.url.as_str(), "tags": route.by_tag, "digests": route.by_digest,
        "credentials": route.credentials.as_ref().map_or_else(|e| Some(e.to_string()), |found| found.as_ref().map(ToString::to_string)),
        "proxy": route.proxy.as_ref().map(ToString::to_string), "certificates": route.certificates, "named_in": route.place.named(),
    })
}
