//! `prune`: what nobody needs out of the store, and images by age or size.

use jiff::Timestamp;
use larder::store::Pruning;
use serde_json::json;

use super::args;
use super::display;
use super::failure::{Exit, Failure};
use super::session::Session;

pub(crate) fn prune(session: &Session<'_>, args: &args::Prune) -> Result<Exit, Failure> {
    let dry = args.dry.dry_run;
    let Some(store) = session.existing_store()? else {
        session.screen.note(&format!("nothing to prune: there is no store at {}", session.settings.store.display()));
        return Ok(Exit::Done);
    };
    let rules = Pruning {
        unused_since: args.unused_for.map(before).transpose()?,
        keep_bytes: args.keep_size.map(|size| size.as_u64()),
        parts_since: Some(before(args.parts_older_than)?),
        damaged: args.damaged,
    };
    let gone = if dry { store.to_prune(&rules)? } else { store.prune(&rules, &store.exclude()?)? };
    let (status, did) = if dry { ("would-remove", "would be removed") } else { ("removed", "removed") };
    for pin in &gone.pins {
        let text = format!("{} for {}: {did}", pin.pinned(), pin.platform);
        let json = display::merged(display::pin_json(pin), json!({ "status": status, "dry_run": dry }));
        session.screen.result(json, &text, &pin.pinned().to_string());
    }
    for (path, bytes) in gone.files.iter().filter(|_| session.screen.verbose) {
        session.screen.note(&format!("{}, {}: {did}", path.display(), display::size(*bytes)));
    }
    let (freed, would) = (gone.bytes(), if dry { "would be freed" } else { "freed" });
    let (images, blobs, files) = (gone.pins.len(), gone.blobs.len(), gone.files.len());
    let text = format!(
        "{}, {}, {}: {} {would}",
        display::count(images, "image"),
        display::count(blobs, "blob"),
        display::count(files, "leftover file"),
        display::size(freed),
    );
    let status = if dry { "would-prune" } else { "pruned" };
    let json = json!({ "status": status, "dry_run": dry, "images": images, "blobs": blobs, "files": files, "freed_bytes": freed });
    session.screen.summary(json, &text);
    Ok(Exit::Done)
}

/// The moment that lies so long before now.
fn before(ago: args::Duration) -> Result<Timestamp, Failure> {
    let then = Timestamp::now().checked_sub(ago.0);
    then.map_err(|_| Failure::new(Exit::Usage, "duration", "the length of time reaches back before all calendars"))
}
