//! `check`: does the engine hold what was pinned? No network, no change.

use larder::deep::Examination;
use larder::engine::proof::{Proof, Standing};
use larder::engine::{About, Engine};
use larder::ensure::Checked;
use larder::pin::Pin;
use larder::pull::Cache;
use larder::reference::{Name, Reference};
use serde_json::{Value, json};

use super::args;
use super::deep;
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
                Ok(engine) => match one(&cache, (reference, name), args, engine.as_ref()).await {
                    Ok((checked, examination)) => {
                        exit = exit.max(say(session, reference, engine.as_ref(), &checked, examination.as_ref()));
                        None
                    }
                    Err(failure) => Some((Some(engine.about().kind), failure)),
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

async fn one(
    cache: &Cache<'_>,
    (reference, name): (&Reference, &Name),
    args: &args::Check,
    engine: &dyn Engine,
) -> Result<(Checked, Option<Examination>), Failure> {
    let checked = cache.check(reference, name, args.platform.platform.as_ref(), engine).await?;
    let examination = if args.deep { cache.examine(&checked, engine).await? } else { None };
    Ok((checked, examination))
}

fn say(session: &Session<'_>, reference: &Reference, engine: &dyn Engine, checked: &Checked, examination: Option<&Examination>) -> Exit {
    let (pin, kind) = (&checked.pin, engine.about().kind);
    let name = &pin.name;
    let (exit, status, proof, text) = match checked.standing {
        Standing::Held(proof) => held(proof, engine.about(), pin, examination),
        Standing::Absent => (Exit::NotThere, "absent", Value::Null, absent(name, engine, pin)),
        Standing::Another => (Exit::NotPinned, "another", Value::Null, another(name, engine, checked)),
        Standing::Incomplete => (Exit::NotPinned, "incomplete", Value::Null, incomplete(name, engine, checked)),
    };
    if let Some(why) = examination.and_then(|examination| examination.out_of_reach.as_ref()) {
        session.screen.warning(&format!("{name}: the files that {} unpacked were not compared: {why}", engine.about()));
    }
    let json = display::merged(
        display::pin_json(pin),
        json!({
            "reference": reference, "engine": kind, "status": status, "proof": proof, "use": checked.usable,
            "found": checked.shown.as_ref().map(display::shown_json),
            "found_is": checked.mistaken_for.as_ref().map(|pin| pin.pinned()), "namespace": engine.about().namespace,
            "deep": examination.map(deep::json),
        }),
    );
    session.screen.result(json, &text, &name.to_string());
    exit
}

fn held(proof: Proof, about: &About, pin: &Pin, examination: Option<&Examination>) -> (Exit, &'static str, Value, String) {
    let (name, pinned) = (&pin.name, pin.pinned());
    let (proved, json) = (display::proof(proof, pin), display::proof_json(proof));
    match examination {
        None => (Exit::Done, "held", json, format!("{name}: held by {about}\n  proved: {proved}\n  pinned: {pinned}")),
        Some(whole) if whole.is_whole() => {
            let json = display::merged(json, json!({ "level": whole.level }));
            let compared = deep::compared(whole, about);
            (Exit::Done, "held", json, format!("{name}: held by {about}\n  proved: {proved}\n  {compared}\n  pinned: {pinned}"))
        }
        Some(damaged) => {
            let damage = deep::damage(&damaged.damage, pin.diff_ids.len());
            let text = format!(
                "{name}: {about} has it damaged\n  proved: {proved}, and no more\n  {damage}\n  pinned: {pinned}\n  hint:   `larder load --replace {pinned}` puts it right"
            );
            (Exit::NotPinned, "damaged", json, text)
        }
    }
}

fn absent(name: &Name, engine: &dyn Engine, pin: &Pin) -> String {
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
