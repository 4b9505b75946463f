//! `pull`: images from their registries into the store.

use larder::oci::Platform;
use larder::pin::Pin;
use larder::pull::{Cache, LeftOut, Platforms, Pulled, TagNow, Unpinned, Want};
use larder::reference::Reference;
use larder::upstream::Upstream;
use serde_json::{Value, json};

use super::args::{self, EngineName, PlatformOrAll};
use super::display;
use super::failure::{Exit, Failure};
use super::progress::Progress;
use super::routes;
use super::session::{self, Chosen, Session};

pub(crate) async fn pull(session: &Session<'_>, args: &args::Pull) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, Some(&args.naming))?;
    let from = session::repositories(&args.upstream.from)?;
    let deadline = session.deadline(&args.upstream.registry);
    let upstream = session.upstream(&args.upstream.registry, &references, deadline)?;
    let platforms = deadline.keep(platforms(session, args)).await?;
    let mut exit = Exit::Done;
    for (reference, name) in references {
        let (platforms, from, referrers) = (platforms.clone(), from.clone(), args.keep_referrers);
        let want = Want { reference, name, platforms, from, unpinned: unpinned(&args.upstream), referrers };
        if let Err(failure) = deadline.keep(one(session, upstream.as_ref(), &want, args.dry.dry_run)).await {
            let failure = failure.naming(&want.reference);
            session.screen.failure(json!({ "reference": want.reference, "name": want.name }), &failure);
            exit = exit.max(failure.exit);
        }
    }
    Ok(exit)
}

/// Pulls one image, or says what that would bring.
pub(crate) async fn one(session: &Session<'_>, upstream: Option<&Upstream>, want: &Want, dry_run: bool) -> Result<(), Failure> {
    let progress = Progress::new(session.screen);
    let tell = |event| progress.tell(event);
    let store = session.store()?;
    let cache = Cache { store: &store, upstream, tell: &tell };
    let mut routes = Value::Null;
    if let Some(upstream) = upstream.filter(|_| dry_run || session.screen.verbose) {
        routes = routes::say(session, upstream, &want.reference).await?;
    }
    if dry_run {
        let (images, plan) = cache.plan(want).await?;
        let asked = progress.asked();
        drop(progress);
        let platforms: Vec<_> = images.iter().map(|i| &i.platform).collect();
        let text = format!(
            "{}: would fetch {}, {}; {} there already",
            want.reference,
            display::count(plan.missing.len(), "blob"),
            display::size(plan.missing_bytes()),
            display::count(plan.present, "blob"),
        );
        let json = json!({
            "reference": want.reference, "name": want.name, "status": "would-pull", "dry_run": true, "platforms": platforms,
            "root": images.first().map(|i| i.root.digest), "missing_in_store": plan.missing, "fetch_bytes": plan.missing_bytes(),
            "asked": asked, "routes": routes,
        });
        session.screen.result(json, &text, &want.name.to_string());
    } else {
        let pulled = cache.pull(want).await?;
        let asked = progress.asked();
        drop(progress);
        say(session, want, &pulled, &asked);
    }
    Ok(())
}

fn say(session: &Session<'_>, want: &Want, pulled: &Pulled, asked: &Value) {
    warn_moved(session, &want.reference, pulled.tag_now);
    for LeftOut { digest, why } in &pulled.left_out {
        session.screen.note(&format!("note: {digest} is listed as referring to {} and is not kept: {why}", want.reference));
    }
    let status = if pulled.plan.missing.is_empty() { "present" } else { "pulled" };
    for pin in &pulled.pins {
        if pin.pin_not_met {
            warn_not_met(session, &want.reference, pin);
        }
        let did = match status {
            "present" => "all of it was in the store".to_owned(),
            _ => format!("{} fetched and verified", display::size(pulled.fetched)),
        };
        let beside = match &pin.referrers {
            Some(referrers) if want.referrers => format!("; {} kept", display::count(referrers.len(), "referrer")),
            _ => String::new(),
        };
        let text = format!("{}\n  {} {}, {did}{beside}", pin.pinned(), pin.platform, display::size(pin.size));
        let json = display::merged(
            display::pin_json(pin),
            json!({
                "reference": want.reference, "status": status, "fetched_bytes": pulled.fetched, "fetched_blobs": pulled.plan.missing.len(),
                "tag_now": display::tag_now_json(pulled.tag_now), "asked": asked,
                "referrers_left_out": pulled.left_out,
            }),
        );
        session.screen.result(json, &text, &pin.pinned().to_string());
    }
}

/// A tag that points elsewhere now is a fact that people want to know.
pub(crate) fn warn_moved(session: &Session<'_>, reference: &Reference, tag_now: Option<TagNow>) {
    let tag = reference.without_digest();
    match tag_now {
        Some(TagNow::Moved(to)) => {
            session.screen.note(&format!("note: the tag {tag} has moved to {to}; the digest that was asked for decides"))
        }
        Some(TagNow::Gone) => {
            session.screen.note(&format!("note: the tag {tag} is gone from its registry; the digest that was asked for decides"))
        }
        _ => {}
    }
}

/// The one case in which the image is not the one that was asked for.
pub(crate) fn warn_not_met(session: &Session<'_>, reference: &Reference, pin: &Pin) {
    session.screen.warning(&format!(
        "THE PIN WAS NOT MET: {reference} could not be had\n  instead: {} is what the tag means now (--allow-unpinned)",
        pin.pinned()
    ));
}

pub(crate) fn unpinned(args: &args::Upstream) -> Unpinned {
    match (args.pinned_only, args.allow_unpinned) {
        (true, _) => Unpinned::Refuse,
        (_, true) => Unpinned::Allow,
        _ => Unpinned::Resolve,
    }
}

/// What was asked for; else the platform of the engine that is there; else this machine's.
async fn platforms(session: &Session<'_>, args: &args::Pull) -> Result<Platforms, Failure> {
    if args.platforms.contains(&PlatformOrAll::All) {
        return Ok(Platforms::All);
    }
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in &args.platforms {
        if let PlatformOrAll::One(platform) = platform {
            platforms.push(platform.clone());
        }
    }
    if platforms.is_empty() {
        platforms = engines_platforms(session, args).await?;
    }
    platforms.sort();
    platforms.dedup();
    Ok(Platforms::These(platforms))
}

async fn engines_platforms(session: &Session<'_>, args: &args::Pull) -> Result<Vec<Platform>, Failure> {
    // Nobody asked for a certain engine: an image can be pulled without any.
    let any = args.engines.engines.iter().all(|name| matches!(name, EngineName::Auto | EngineName::All));
    let mut platforms = Vec::new();
    for chosen in session.engines(&args.engines).await {
        match chosen {
            Ok(Chosen::Engine(engine)) => platforms.push(engine.platform().await?),
            Ok(Chosen::None) => platforms.push(session::default_platform()?),
            Err(_) if any => platforms.push(session::default_platform()?),
            Err(failure) => return Err(failure),
        }
    }
    Ok(platforms)
}
