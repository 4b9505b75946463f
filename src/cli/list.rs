//! `list`: what is in the store.

use std::mem::ManuallyDrop;

use larder::pin::Pin;
use serde_json::json;

use super::args;
use super::display;
use super::failure::{Exit, Failure};
use super::session::Session;

pub(crate) fn list(session: &Session<'_>, args: &args::List) -> Result<Exit, Failure> {
    let Some(store) = session.existing_store()? else {
        if session.screen.table() {
            session.screen.note(&format!("no images: there is no store at {}", session.settings.store.display()));
        }
        return Ok(Exit::Done);
    };
    // The process ends after this; to free a hundred thousand small pieces one by one would take longer than to print them.
    let pins = ManuallyDrop::new(store.dated_pins()?);
    // What is shared is shared with all, also with those that are not shown.
    let sizes = store.sizes(pins.iter().map(|(pin, _)| &**pin));
    let wanted = |pin: &Pin| args.filter.as_ref().is_none_or(|text| pin.name.to_string().contains(text.as_str()));
    let mut rows = Vec::with_capacity(pins.len() + 1);
    rows.push(["NAME", "PLATFORM", "SIZE", "SHARED", "PINNED", "USED", "DIGEST"].map(str::to_owned));
    for ((pin, used), size) in pins.iter().zip(&sizes).filter(|((pin, _), _)| wanted(pin)) {
        if !session.screen.table() {
            let json = json!({ "own_bytes": size.own, "shared_bytes": size.shared, "last_used": used, "status": "present" });
            session.screen.result(display::merged(display::pin_json(pin), json), "", &pin.pinned().to_string());
            continue;
        }
        rows.push([
            pin.name.to_string(),
            pin.artifact.as_ref().map_or_else(|| pin.platform.to_string(), |_| "artifact".to_owned()),
            display::size(size.own.saturating_add(size.shared)),
            display::size(size.shared),
            day(pin.pinned_at),
            used.map(day).unwrap_or_default(),
            if pin.unproved { display::UNPROVED.to_owned() } else { pin.root.digest.to_string() },
        ]);
    }
    if rows.len() > 1 {
        session.screen.line(display::table(&rows).trim_end());
    } else if session.screen.table() {
        session.screen.note(&format!("no images in {}", store.root().display()));
    }
    Ok(Exit::Done)
}

pub(crate) fn day(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}
