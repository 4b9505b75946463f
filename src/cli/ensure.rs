//! `ensure` and `load`: images into engines, proved. `load` is `ensure` without the network.

use std::sync::{Mutex, PoisonError};

use larder::deep::{Foreseen, Mended};
use larder::engine::Engine;
use larder::ensure::{self, Done, Intent, Report, Wish};
use larder::oci::Platform;
use larder::pull::{Cache, Platforms, Unpinned, Want};
use larder::reference::{Name, Reference, Repository};
use larder::upstream::Upstream;
use serde_json::{Value, json};

use super::args;
use super::deadline::Deadline;
use super::deep;
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
    replace: bool,
    upstream: Option<Upstream>,
    deadline: Deadline,
}

pub(crate) async fn ensure(session: &Session<'_>, args: &args::Ensure) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, Some(&args.naming))?;
    let deadline = session.deadline(&args.upstream.registry);
    let order = Order {
        engines: &args.engines,
        platform: args.platform.platform.as_ref(),
        from: session::repositories(&args.upstream.from)?,
        unpinned: pull::unpinned(&args.upstream),
        dry_run: args.dry.dry_run,
        replace: args.replace.replace,
        upstream: session.upstream(&args.upstream.registry, &references, deadline)?,
        deadline,
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
        replace: args.replace.replace,
        upstream: None,
        deadline: Deadline::default(),
        references,
    };
    all(session, &order).await
}

async fn all(session: &Session<'_>, order: &Order<'_>) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let chosen = order.deadline.keep(async { Ok(session.engines(order.engines).await) }).await?;
    for (reference, name) in &order.references {
        let mut engines: Vec<&dyn Engine> = Vec::new();
        for chosen in &chosen {
            let done = match chosen {
                Ok(Chosen::Engine(engine)) => {
                    engines.push(engine.as_ref());
                    Ok(())
                }
                Ok(Chosen::None) => order.deadline.keep(into_store(session, order, reference, name)).await,
                Err(failure) => Err(failure.clone()),
            };
            exit = exit.max(judge(session, (reference, name, None), done));
        }
        if engines.is_empty() {
            continue;
        }
        let worst = Mutex::new(Exit::Done);
        let done = order.deadline.keep(into_engines(session, order, (reference, name), &engines, &worst)).await;
        exit = exit.max(judge(session, (reference, name, None), done));
        exit = exit.max(worst.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(exit)
}

/// Says what went wrong, if anything did, and what that means for the exit code.
fn judge(session: &Session<'_>, about: (&Reference, &Name, Option<&dyn Engine>), done: Result<(), Failure>) -> Exit {
    let Err(failure) = done else { return Exit::Done };
    let ((reference, name, engine), exit) = (about, failure.exit);
    let about = json!({ "reference": reference, "name": name, "engine": engine.map(|engine| engine.about().kind) });
    session.screen.failure(about, &failure.naming(reference));
    exit
}

/// An image into all engines at once. What came of each is said as soon as it is known, and `worst` is the worst of it.
async fn into_engines(
    session: &Session<'_>,
    order: &Order<'_>,
    of: (&Reference, &Name),
    engines: &[&dyn Engine],
    worst: &Mutex<Exit>,
) -> Result<(), Failure> {
    let (reference, name) = of;
    let store = session.store()?;
    let progress = Progress::new(session.screen);
    let tell = |event| progress.tell(event);
    let cache = Cache { store: &store, upstream: order.upstream.as_ref(), tell: &tell };
    let wish = Wish {
        reference: reference.clone(),
        name: name.clone(),
        platform: order.platform.cloned(),
        from: order.from.clone(),
        unpinned: order.unpinned,
    };
    let said = |engine, done| {
        let exit = judge(session, (reference, name, Some(engine)), done);
        let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
        *worst = worst.max(exit);
    };
    if order.dry_run {
        for engine in engines {
            said(*engine, intend(session, order, &cache, &wish, *engine).await);
        }
    } else if order.replace {
        for engine in engines {
            let mended = cache.replace(&wish, *engine).await;
            progress.end(engine.about().kind);
            said(*engine, mended.map(|mended| say_mended(session, reference, *engine, &mended)).map_err(Failure::from));
        }
    } else {
        let done = |place: usize, report: ensure::Result<Report>| {
            let engine = engines[place];
            progress.end(engine.about().kind);
            said(engine, report.map(|report| say(session, reference, engine, &report, &progress.asked())).map_err(Failure::from));
        };
        cache.ensure_each(&wish, engines, &done).await;
    }
    Ok(())
}

/// Says what would be done.
async fn intend(session: &Session<'_>, order: &Order<'_>, cache: &Cache<'_>, wish: &Wish, engine: &dyn Engine) -> Result<(), Failure> {
    let intent = cache.intend(wish, engine).await?;
    let foreseen = match (&intent.image, order.replace) {
        (None, true) => cache.foresee(wish, engine).await?,
        _ => None,
    };
    match foreseen {
        Some(foreseen) => say_foreseen(session, wish, engine, &foreseen),
        None => say_intent(session, (&wish.reference, &wish.name), engine, &intent),
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
        from: order.from.clone(),
        unpinned: order.unpinned,
        referrers: false,
    };
    pull::one(session, order.upstream.as_ref(), &want, order.dry_run).await
}

fn say(session: &Session<'_>, reference: &Reference, engine: &dyn Engine, report: &Report, asked: &Value) {
    say_with(session, reference, engine, report, (None, String::new(), json!({ "asked": asked })));
}

/// What was done, and what more there is to say of it: another status, lines under the proof, fields.
fn say_with(
    session: &Session<'_>,
    reference: &Reference,
    engine: &dyn Engine,
    report: &Report,
    more: (Option<(&str, String)>, String, Value),
) {
    let (pin, kind) = (&report.pin, engine.about().kind);
    let about = engine.about();
    warn(session, reference, report);
    let (status, did) = match &report.done {
        Done::Held => ("held", format!("held by {about}")),
        Done::Loaded => ("loaded", format!("loaded into {about}")),
        Done::Replaced(_) => ("replaced", format!("loaded into {about}, in place of another image")),
    };
    let (instead, lines, fields) = more;
    let (status, did) = instead.unwrap_or((status, did));
    let mut text = format!("{}: {did}\n  proved: {}{lines}", pin.name, display::proof(report.proof, pin));
    if let Done::Replaced(before) = &report.done {
        text.push_str(&format!("\n  before: {}", display::shown(before)));
    }
    if let Some(lacked) = &report.lacked {
        text.push_str(&format!("\n  sent:   {}", display::sent(report.sent, lacked)));
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
            "replaced": replaced, "fetched_bytes": report.fetched, "sent_bytes": report.sent,
            "sent_layers": report.lacked.as_ref().map(|lacked| lacked.layers.len()),
            "held_layers": report.lacked.as_ref().map(|lacked| lacked.held.len()), "tag_now": display::tag_now_json(report.tag_now),
            "namespace": about.namespace,
        }),
    );
    session.screen.result(display::merged(json, fields), &text, &report.usable);
}

fn say_mended(session: &Session<'_>, reference: &Reference, engine: &dyn Engine, mended: &Mended) {
    let about = engine.about();
    if let Some(why) = &mended.examination.out_of_reach {
        session.screen.warning(&format!("{}: the files that {about} unpacked were not compared: {why}", mended.report.pin.name));
    }
    let mut lines = format!("\n  {}", deep::compared(&mended.examination, about));
    let proof = display::merged(display::proof_json(mended.report.proof), json!({ "level": mended.examination.level }));
    let mut fields = json!({ "proof": proof, "deep": deep::json(&mended.examination) });
    let Some(out) = &mended.taken_out else {
        return say_with(session, reference, engine, &mended.report, (None, lines, fields));
    };
    if !out.damage.is_empty() {
        lines.push_str(&format!("\n  was damaged:\n  {}", deep::damage(&out.damage, mended.report.pin.diff_ids.len())));
    }
    for (label, names) in [("named again", &out.names), ("names lost", &out.lost)] {
        lines.extend(names.iter().map(|name| format!("\n  {label}: {name}")));
    }
    let damage: Vec<Value> = out.damage.iter().map(deep::damage_json).collect();
    fields["taken_out"] = json!({ "damage": damage, "names": out.names, "lost": out.lost });
    let did = format!("taken out of {about} and loaded again");
    say_with(session, reference, engine, &mended.report, (Some(("mended", did)), lines, fields));
}

fn say_foreseen(session: &Session<'_>, wish: &Wish, engine: &dyn Engine, foreseen: &Foreseen) {
    let (name, about) = (&wish.name, engine.about());
    let mut text = format!("{name}: would be taken out of {about} and loaded again\n  names:  {}", foreseen.names.join("\n          "));
    if let Some(why) = &foreseen.examination.out_of_reach {
        text.push_str(&format!("\n  why:    what is damaged is not known: {why}"));
    }
    if !foreseen.examination.is_whole() {
        text.push_str(&format!("\n  {}", deep::damage(&foreseen.examination.damage, foreseen.examination.layers)));
    }
    for (label, names) in deep::obstacles(&foreseen.obstacles) {
        text.push_str(&format!(
            "\n  but these {label} need what is damaged, so it would be refused:\n    {}",
            names.replace('\n', "\n    ")
        ));
    }
    let json = json!({
        "reference": wish.reference, "name": name, "engine": about.kind, "namespace": about.namespace, "status": "would-replace", "dry_run": true,
        "names": foreseen.names, "containers": foreseen.obstacles.containers, "images": foreseen.obstacles.images,
        "deep": deep::json(&foreseen.examination),
    });
    session.screen.result(json, &text, &name.to_string());
}

/// Facts that a person should not miss.
fn warn(session: &Session<'_>, reference: &Reference, report: &Report) {
    pull::warn_moved(session, reference, report.tag_now);
    if report.pin.pin_not_met {
        pull::warn_not_met(session, reference, &report.pin);
    }
}

fn say_intent(session: &Session<'_>, (reference, name): (&Reference, &Name), engine: &dyn Engine, intent: &Intent) {
    let (about, kind) = (engine.about(), engine.about().kind);
    let before = intent.checked.as_ref().and_then(|c| c.shown.as_ref());
    let Some((image, plan, lacking)) = &intent.image else {
        let json = json!({ "reference": reference, "name": name, "engine": kind, "status": "held", "dry_run": true });
        session.screen.result(json, &format!("{name}: held by {about}, nothing to do"), &name.to_string());
        return;
    };
    let mut text = format!(
        "{name}: would be loaded into {about}, {} in {}\n  fetch:  {}, {}\n  send:   {}, {}; {kind} has {}, {}",
        display::size(image.size()),
        display::count(lacking.layers.len() + lacking.held.len(), "layer"),
        display::count(plan.missing.len(), "blob"),
        display::size(plan.missing_bytes()),
        display::count(lacking.layers.len(), "layer"),
        display::size(lacking.bytes()),
        display::count(lacking.held.len(), "layer"),
        display::size(lacking.held_bytes()),
    );
    if let Some(before) = before {
        text.push_str(&format!("\n  before: {}", display::shown(before)));
    }
    let json = json!({
        "reference": reference, "name": name, "engine": kind, "status": "would-load", "dry_run": true, "platform": image.platform,
        "root": image.root.digest, "manifest": image.manifest.digest, "image_id": image.config.digest,
        "missing_in_store": plan.missing, "fetch_bytes": plan.missing_bytes(),
        "missing_in_engine": lacking.layers, "send_bytes": lacking.bytes(), "held_by_engine": lacking.held,
        "held_bytes": lacking.held_bytes(), "replaces": before.map(display::shown_json),
    });
    session.screen.result(json, &text, &name.to_string());
}
