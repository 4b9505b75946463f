//! `ensure` and `load`: images into engines, proved. `load` is `ensure` without the network.

use larder::engine::Engine;
use larder::ensure::{Done, Intent, Report, Wish};
use larder::oci::Platform;
use larder::pull::{Cache, Platforms, Unpinned, Want};
use larder::reference::{Name, Reference, Repository};
use larder::upstream::Upstream;
use serde_json::{Value, json};

use super::args;
use super::display;
use super::failure::{Exit, Failure};
use super::progress::Progress;
use super::pull;
use super::session::{self, Chosen, Session};

/// What `ensure` and `load` share.
struct Order<'a> {
    references: Vec<(Reference, Name)>,
    engines: &'a args::Engines,
    platform: Option<&'a Platform>,
    from: Vec<Repository>,
    unpinned: Unpinned,
    dry_run: bool,
    upstream: Option<Upstream>,
}

pub(crate) async fn ensure(session: &Session<'_>, args: &args::Ensure) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, Some(&args.naming))?;
    let order = Order {
        engines: &args.engines,
        platform: args.platform.platform.as_ref(),
        from: session::repositories(&args.upstream.from)?,
        unpinned: pull::unpinned(&args.upstream),
        dry_run: args.dry.dry_run,
        upstream: session.upstream(&args.upstream.registry, &references)?,
        references,
    };
    all(session, &order).await
}

pub(crate) async fn load(session: &Session<'_>, args: &args::Load) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, Some(&args.naming))?;
    let order = Order {
        engines: &args.engines,
        platform: args.platform.platform.as_ref(),
        from: Vec::new(),
        unpinned: Unpinned::Resolve,
        dry_run: args.dry.dry_run,
        upstream: None,
        references,
    };
    all(session, &order).await
}

async fn all(session: &Session<'_>, order: &Order<'_>) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let chosen = session.engines(order.engines).await;
    for (reference, name) in &order.references {
        for engine in &chosen {
            let done = match engine {
                Ok(engine) => one(session, order, reference, name, engine).await,
                Err(failure) => Err(failure.clone()),
            };
            if let Err(failure) = done {
                let failure = failure.naming(reference);
                session.screen.failure(about(reference, name, engine.as_ref().ok()), &failure);
                exit = exit.max(failure.exit);
            }
        }
    }
    Ok(exit)
}

async fn one(session: &Session<'_>, order: &Order<'_>, reference: &Reference, name: &Name, chosen: &Chosen) -> Result<(), Failure> {
    let Chosen::Engine(engine) = chosen else { return into_store(session, order, reference, name).await };
    let progress = Progress::new(session.screen);
    let tell = |event| progress.tell(event);
    let store = session.store()?;
    let cache = Cache { store: &store, upstream: order.upstream.as_ref(), tell: &tell };
    let wish = Wish {
        reference: reference.clone(),
        name: name.clone(),
        platform: order.platform.cloned(),
        from: session.others(reference, &order.from)?,
        unpinned: order.unpinned,
    };
    if order.dry_run {
        let intent = cache.intend(&wish, engine.as_ref()).await?;
        drop(progress);
        say_intent(session, reference, name, engine.as_ref(), &intent);
    } else {
        let report = cache.ensure(&wish, engine.as_ref()).await?;
        drop(progress);
        say(session, reference, engine.as_ref(), &report);
    }
    Ok(())
}

/// `--engine none`: the image is brought into the store, and no further.
async fn into_store(session: &Session<'_>, order: &Order<'_>, reference: &Reference, name: &Name) -> Result<(), Failure> {
    let platforms = Platforms::These(vec![order.platform.cloned().unwrap_or_else(Platform::host)]);
    let want = Want {
        reference: reference.clone(),
        name: name.clone(),
        platforms,
        from: session.others(reference, &order.from)?,
        unpinned: order.unpinned,
    };
    pull::one(session, order.upstream.as_ref(), &want, order.dry_run).await
}

fn about(reference: &Reference, name: &Name, chosen: Option<&Chosen>) -> Value {
    let engine = match chosen {
        Some(Chosen::Engine(engine)) => Some(engine.about().kind),
        _ => None,
    };
    json!({ "reference": reference, "name": name, "engine": engine })
}

fn say(session: &Session<'_>, reference: &Reference, engine: &dyn Engine, report: &Report) {
    let (pin, kind) = (&report.pin, engine.about().kind);
    warn(session, reference, report);
    let (status, did) = match &report.done {
        Done::Held => ("held", format!("held by {kind}")),
        Done::Loaded => ("loaded", format!("loaded into {kind}")),
        Done::Replaced(_) => ("replaced", format!("loaded into {kind}, in place of another image")),
    };
    let mut text = format!("{}: {did}\n  proved: {}", pin.name, display::proof(report.proof, pin));
    if let Done::Replaced(before) = &report.done {
        text.push_str(&format!("\n  before: {}", display::shown(before)));
    }
    text.push_str(&format!("\n  pinned: {}\n  use:    {}", pin.pinned(), report.usable));
    let replaced = match &report.done {
        Done::Replaced(before) => display::shown_json(before),
        _ => Value::Null,
    };
    let json = display::merged(
        display::pin_json(pin),
        json!({
            "reference": reference, "engine": kind, "status": status, "proof": display::proof_json(report.proof), "use": report.usable,
            "replaced": replaced, "fetched_bytes": report.fetched, "sent_bytes": report.sent, "tag_now": display::tag_now_json(report.tag_now),
        }),
    );
    session.screen.result(json, &text, &report.usable);
}

/// Facts that a person should not miss.
fn warn(session: &Session<'_>, reference: &Reference, report: &Report) {
    pull::warn_moved(session, reference, report.tag_now);
    if report.pin.pin_not_met {
        pull::warn_not_met(session, reference, &report.pin);
    }
}

fn say_intent(session: &Session<'_>, reference: &Reference, name: &Name, engine: &dyn Engine, intent: &Intent) {
    let kind = engine.about().kind;
    let before = intent.checked.as_ref().and_then(|c| c.shown.as_ref());
    let Some((image, plan)) = &intent.image else {
        let json = json!({ "reference": reference, "name": name, "engine": kind, "status": "held", "dry_run": true });
        session.screen.result(json, &format!("{name}: held by {kind}, nothing to do"), &name.to_string());
        return;
    };
    let mut text = format!(
        "{name}: would be loaded into {kind}, {} in {}\n  fetch:  {}, {}",
        display::size(image.size()),
        display::count(image.layers.len(), "layer"),
        display::count(plan.missing.len(), "blob"),
        display::size(plan.missing_bytes()),
    );
    if let Some(before) = before {
        text.push_str(&format!("\n  before: {}", display::shown(before)));
    }
    let json = json!({
        "reference": reference, "name": name, "engine": kind, "status": "would-load", "dry_run": true, "platform": image.platform,
        "root": image.root.digest, "manifest": image.manifest.digest, "image_id": image.config.digest,
        "missing_in_store": plan.missing, "fetch_bytes": plan.missing_bytes(), "replaces": before.map(display::shown_json),
    });
    session.screen.result(json, &text, &name.to_string());
}
