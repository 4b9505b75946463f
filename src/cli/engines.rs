//! `engines`: what is there, how it was found, and why one cannot be used.

use larder::engine::{self, Candidate};
use serde_json::json;

use super::display;
use super::failure::{Exit, Failure};
use super::session::{self, Session};

pub(crate) async fn engines(session: &Session<'_>) -> Result<Exit, Failure> {
    let candidates = engine::survey(&session.environment(session::SHORT)).await;
    let mut usable = false;
    for candidate in &candidates {
        usable |= candidate.answer.is_ok();
        one(session, candidate).await;
    }
    if usable {
        return Ok(Exit::Done);
    }
    session.screen.note("no engine answered; `larder pull` works without one");
    Ok(Exit::Engine)
}

async fn one(session: &Session<'_>, candidate: &Candidate) {
    let place = json!({ "engine": candidate.kind, "address": candidate.address, "found_by": candidate.found_by });
    match &candidate.answer {
        Ok(engine) => {
            let about = engine.about();
            let store = engine.image_store().await.unwrap_or_else(|_| "unknown".to_owned());
            let platform = engine.platform().await.ok();
            let shown_platform = platform.as_ref().map_or("unknown".to_owned(), ToString::to_string);
            let mut text = format!(
                "{} {}\n  address:     {}\n  found by:    {}\n  platform:    {shown_platform}\n  image store: {store}\n  API:         {}",
                about.kind, about.version, about.address, about.found_by, about.api
            );
            if let Some(namespace) = &about.namespace {
                text.push_str(&format!("\n  namespace:   {namespace}"));
            }
            let more = json!({
                "engine": about.kind, "status": "usable", "version": about.version, "api": about.api, "platform": platform, "image_store": store,
                "namespace": about.namespace,
            });
            session.screen.result(display::merged(place, more), &text, &about.kind.to_string());
        }
        Err(error) => {
            let failure = Failure::from(error);
            let text = format!(
                "{}: cannot be used\n  address:     {}\n  found by:    {}\n  why:         {}",
                candidate.kind,
                candidate.address,
                candidate.found_by,
                failure.in_one_line()
            );
            let json = display::merged(place, json!({ "status": "unusable", "error": failure.json() }));
            if !session.screen.quiet() {
                session.screen.result(json, &text, "");
            }
        }
    }
}
