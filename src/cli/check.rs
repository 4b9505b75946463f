//! `check`: does the engine hold what was pinned? No network, no change.

use larder::engine::Engine;
use larder::engine::proof::Standing;
use larder::ensure::Checked;
use larder::pull::Cache;
use larder::reference::{Name, Reference};
use serde_json::{Value, json};

use super::args;
use super::display;
use super::failure::{Exit, Failure};
use super::session::{self, Chosen, Session};

pub(crate) async fn check(session: &Session<'_>, args: &args::Check) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, Some(&args.naming))?;
    let Some(store) = session.existing_store()? else { return Ok(session.nothing_there(&references)) };
    let cache = Cache { store: &store, upstream: None, tell: &larder::event::silent };
    let mut exit = Exit::Done;
    for chosen in session.engines(&args.engines).await {
        for (reference, name) in &references {
            let engine = match &chosen {
                Ok(Chosen::Engine(engine)) => Ok(engine),
                Ok(Chosen::None) => Err(Failure::new(Exit::Usage, "no-engine", "check asks an engine, and --engine none names none")),
                Err(failure) => Err(failure.clone()),
            };
            let failed = match engine {
                Err(failure) => Some((None, failure)),
                Ok(engine) => match cache.check(reference, name, args.platform.platform.as_ref(), engine.as_ref()).await {
                    Ok(checked) => {
                        exit = exit.max(say(session, reference, engine.as_ref(), &checked));
                        None
                    }
                    Err(error) => Some((Some(engine.about().kind), Failure::from(error))),
                },
            };
            if let Some((kind, failure)) = failed {
                session.screen.failure(json!({ "reference": reference, "name": name, "engine": kind }), &failure);
                exit = exit.max(failure.exit);
            }
        }
    }
    Ok(exit)
}

fn say(session: &Session<'_>, reference: &Reference, engine: &dyn Engine, checked: &Checked) -> Exit {
    let (pin, kind) = (&checked.pin, engine.about().kind);
    let name = &pin.name;
    let (exit, status, proof, text) = match checked.standing {
        Standing::Held(proof) => {
            let text = format!("{name}: held by {}\n  proved: {}\n  pinned: {}", engine.about(), display::proof(proof, pin), pin.pinned());
            (Exit::Done, "held", display::proof_json(proof), text)
        }
        Standing::Absent => (Exit::NotThere, "absent", Value::Null, absent(name, engine, pin)),
        Standing::Another => (Exit::NotPinned, "another", Value::Null, another(name, engine, checked)),
        Standing::Incomplete => (Exit::NotPinned, "incomplete", Value::Null, incomplete(name, engine, checked)),
    };
    let json = display::merged(
        display::pin_json(pin),
        json!({
            "reference": reference, "engine": kind, "status": status, "proof": proof, "use": checked.usable,
            "found": checked.shown.as_ref().map(display::shown_json),
            "found_is": checked.mistaken_for.as_ref().map(|pin| pin.pinned()), "namespace": engine.about().namespace,
        }),
    );
    session.screen.result(json, &text, &name.to_string());
    exit
}

fn absent(name: &Name, engine: &dyn Engine, pin: &larder::pin::Pin) -> String {
    format!(
        "{name}: {} has nothing under that name\n  pinned: {}\n  hint:   `larder load {}` brings it there",
        engine.about(),
        pin.pinned(),
        pin.pinned()
    )
}

fn another(name: &Name, engine: &dyn Engine, checked: &Checked) -> String {
    let found = checked.shown.as_ref().map(display::shown).unwrap_or_default();
    let mut text = format!(
        "{name}: {} has another image under that name\n  expected: {}\n  found:    {found}",
        engine.about(),
        display::identities(&checked.pin).replace('\n', "\n            "),
    );
    if let Some(pin) = &checked.mistaken_for {
        text.push_str(&format!("\n  that is:  {} for {}", pin.pinned(), pin.platform));
    }
    text.push_str(&format!("\n  hint:     `larder load {}` puts it right", checked.pin.pinned()));
    text
}

fn incomplete(name: &Name, engine: &dyn Engine, checked: &Checked) -> String {
    format!(
        "{name}: {} has the right image under that name, but not all of its content\n  pinned: {}\n  hint:   `larder load {}` completes it",
        engine.about(),
        checked.pin.pinned(),
        checked.pin.pinned()
    )
}
