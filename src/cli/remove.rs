//! `remove`: images out of the store. What other images need stays.

use larder::pin::Pin;
use larder::reference::Reference;
use larder::store::{Freed, Store};
use serde_json::json;

use super::args;
use super::display;
use super::failure::{Exit, Failure};
use super::session::{self, Session};

pub(crate) fn remove(session: &Session<'_>, args: &args::Remove) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, None)?;
    let Some(store) = session.existing_store()? else { return Ok(session.nothing_there(&references)) };
    let mut exit = Exit::Done;
    for (reference, _) in &references {
        if let Err(failure) = one(session, &store, reference, args) {
            session.screen.failure(json!({ "reference": reference }), &failure);
            exit = exit.max(failure.exit);
        }
    }
    Ok(exit)
}

fn one(session: &Session<'_>, store: &Store, reference: &Reference, args: &args::Remove) -> Result<(), Failure> {
    let pins = store.find(reference, args.platform.platform.as_ref())?;
    if pins.is_empty() {
        // A removal that was cut off may have left the index to this run.
        store.mend_index();
        return Err(session::not_in_store(session, reference));
    }
    unambiguous(reference, &pins, args.all)?;
    let (status, did, freed) = if args.dry.dry_run {
        let bytes = session::sizes(store, &pins)?.iter().map(|s| s.own).sum();
        ("would-remove", "would be removed", Freed { bytes, ..Freed::default() })
    } else {
        let lock = store.exclude()?;
        ("removed", "removed", store.remove(&pins, &lock)?)
    };
    for pin in &pins {
        let text = format!("{} for {}: {did}", pin.pinned(), pin.platform);
        let json =
            display::merged(display::pin_json(pin), json!({ "reference": reference, "status": status, "dry_run": args.dry.dry_run }));
        session.screen.result(json, &text, &pin.pinned().to_string());
    }
    if !session.screen.quiet() {
        let would = if args.dry.dry_run { "at least would be freed" } else { "freed" };
        session.screen.note(&format!("{reference}: {} {would}", display::size(freed.bytes)));
    }
    Ok(())
}

/// A bare tag may stand for several images; which of them is meant is not guessed.
fn unambiguous(reference: &Reference, pins: &[Pin], all: bool) -> Result<(), Failure> {
    let mut pinned: Vec<String> = pins.iter().map(|p| p.pinned().to_string()).collect();
    pinned.sort();
    pinned.dedup();
    if pinned.len() < 2 || all {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "ambiguous", format!("{reference} has {} digests in the store", pinned.len()))
        .with("they are", pinned.join("\n"))
        .hint("name one with its digest, or remove all with --all"))
}
