//! `engines`: what is there, how it was found, and why one cannot be used.

use larder::engine::{self, Candidate, EngineError};
use serde_json::json;

use super::display;
use super::failure::{Exit, Failure};
use super::session::{self, Session};

pub(crate) async fn engines(session: &Session<'_>) -> Result<Exit, Failure> {
    let candidates = engine::survey(&session.environment(session::SHORT)).await;
    let mut usable = false;
    let mut nowhere = Vec::new();
    for candidate in &candidates {
        usable |= candidate.answer.is_ok();
        // On most machines most of the places are empty: people are told so once, scripts of each.
        if session.screen.table() && candidate.usual && candidate.answer.as_ref().is_err_and(EngineError::nothing_there) {
            nowhere.push(candidate.address.as_str());
            continue;
        }
        one(session, candidate).await;
    }
    if !nowhere.is_empty() {
        session.screen.note(&format!("nothing at the usual places {}", nowhere.join(", ")));
    }
    if usable {
        return Ok(Exit::Done);
    }
    session
        .screen
        .note("no engine answered; start docker, podman or containerd, or set DOCKER_HOST, CONTAINER_HOST or CONTAINERD_ADDRESS; `larder pull` works without one");
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
                "{}: cannot be used\n  address:     {}\n  found by:    {}\n  why:         {}{}",
                candidate.kind,
                candidate.address,
                candidate.found_by,
                failure.in_one_line(),
                failure.hint.as_ref().map(|hint| format!("\n  hint:        {hint}")).unwrap_or_default()
            );
            let json = display::merged(place, json!({ "status": "unusable", "error": failure.json() }));
            if !session.screen.quiet() {
                session.screen.result(json, &text, "");
            }
        }
    }
}
