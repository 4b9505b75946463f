//! `inspect`: everything about an image in the store, and which engines hold it.

use larder::engine::proof::Standing;
use larder::engine::{self, Candidate};
use larder::ensure::Checked;
use larder::pin::Pin;
use larder::plan::Plan;
use larder::pull::{Cache, Platforms, Unpinned, Want};
use larder::reference::Reference;
use larder::store::Store;
use serde_json::{Value, json};

use super::args;
use super::display;
use super::failure::{Exit, Failure};
use super::session::{self, Session};

pub(crate) async fn inspect(session: &Session<'_>, args: &args::Inspect) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, None)?;
    let Some(store) = session.existing_store()? else { return Ok(session.nothing_there(&references)) };
    let candidates = if args.no_engines { Vec::new() } else { engine::survey(&session.environment(session::SHORT)).await };
    let mut exit = Exit::Done;
    for (reference, _) in &references {
        let shown = one(session, &store, reference, args.platform.platform.as_ref(), &candidates).await;
        if let Err(failure) = shown {
            session.screen.failure(json!({ "reference": reference }), &failure);
            exit = exit.max(failure.exit);
        }
    }
    Ok(exit)
}

async fn one(
    session: &Session<'_>,
    store: &Store,
    reference: &Reference,
    platform: Option<&larder::oci::Platform>,
    candidates: &[Candidate],
) -> Result<(), Failure> {
    let pins = store.find(reference, platform)?;
    if pins.is_empty() {
        return Err(session::not_in_store(session, reference));
    }
    for (pin, size) in pins.iter().zip(session::sizes(store, &pins)?) {
        let cache = Cache { store, upstream: None, tell: &larder::event::silent };
        let want = Want {
            reference: pin.pinned(),
            name: pin.name.clone(),
            platforms: Platforms::These(vec![pin.platform.clone()]),
            from: Vec::new(),
            unpinned: Unpinned::Resolve,
            referrers: false,
        };
        let images = cache.plan(&want).await?.0;
        let plan = Plan::of(pin.blobs(), store);
        let mut held = Vec::new();
        for candidate in candidates {
            if let Ok(engine) = &candidate.answer {
                let checked = cache.check(&pin.pinned(), &pin.name, Some(&pin.platform), engine.as_ref()).await;
                held.push((engine.about().kind, checked));
            }
        }
        let engines: Vec<(String, String)> = held.into_iter().map(|(kind, c)| (kind.to_string(), standing(c))).collect();
        let layers = images.first().map(|i| i.layers.as_slice()).unwrap_or_default();
        let json = json!({
            "status": if plan.missing.is_empty() { "present" } else { "incomplete" }, "reference": reference, "asked": pin.asked,
            "media_type": pin.root.media_type, "layers": layers, "diff_ids": pin.diff_ids, "missing": plan.missing,
            "own_bytes": size.own, "shared_bytes": size.shared, "last_used": store.last_used(pin),
            "engines": engines.iter().map(|(kind, state)| json!({ "engine": kind, "status": state })).collect::<Vec<Value>>(),
        });
        let text = text(pin, layers, plan.missing.len(), &engines);
        session.screen.result(display::merged(display::pin_json(pin), json), &text, &pin.pinned().to_string());
    }
    Ok(())
}

fn standing(checked: Result<Checked, larder::ensure::EnsureError>) -> String {
    let word = match checked.map(|c| c.standing) {
        Ok(Standing::Held(_)) => "held",
        Ok(Standing::Absent) => "absent",
        Ok(Standing::Another) => "another",
        Ok(Standing::Incomplete) => "incomplete",
        Err(_) => "unknown",
    };
    word.to_owned()
}

fn text(pin: &Pin, layers: &[larder::oci::Descriptor], missing: usize, engines: &[(String, String)]) -> String {
    let mut lines = vec![
        pin.pinned().to_string(),
        match &pin.artifact {
            Some(kind) => format!("  artifact:  {kind}"),
            None => format!("  platform:  {}", pin.platform),
        },
        match pin.unproved {
            true => format!("  root:      {}", display::UNPROVED),
            false => format!("  root:      {}  {}\n  manifest:  {}", pin.root.digest, pin.root.media_type, pin.manifest.digest),
        },
        match &pin.artifact {
            Some(_) => format!("  config:    {}", pin.config.digest),
            None => format!("  image ID:  {}", pin.image_id()),
        },
        format!("  size:      {} in {}", display::size(pin.size), display::count(layers.len(), "layer")),
        format!("  asked as:  {}", pin.asked),
        format!("  pinned:    {}{}", pin.pinned_at, pin.from.as_ref().map(|f| format!(" from {f}")).unwrap_or_default()),
    ];
    if missing > 0 {
        lines.push(format!("  missing:   {} in the store", display::count(missing, "blob")));
    }
    if pin.pin_not_met {
        lines.push("  PIN NOT MET: this is what the tag meant instead".to_owned());
    }
    lines.extend(engines.iter().map(|(kind, state)| format!("  {:10} {state}", format!("{kind}:"))));
    lines.extend(layers.iter().map(|l| format!("  layer:     {}  {}", l.digest, display::size(l.size))));
    let referrers = pin.referrers.iter().flatten();
    lines.extend(referrers.map(|r| format!("  referrer:  {}  {}, {}", r.manifest.digest, r.kind, display::size(r.size()))));
    lines.join("\n")
}
