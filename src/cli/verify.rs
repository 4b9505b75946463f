//! `verify`: everything in the store hashed, and with `--repair` what is wrong brought again.

mod problem;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use larder::import::donor;
use larder::oci::Descriptor;
use larder::pin::Pin;
use larder::pull::{Cache, Platforms, PullError, Unpinned, Want};
use larder::reference::{Name, Reference, Repository};
use larder::store::{Checkup, Finding, Store, Tally, Watch};
use serde_json::json;

use super::args;
use super::deadline::Deadline;
use super::display;
use super::failure::{Exit, Failure};
use super::progress::{Hashing, Progress};
use super::session::{self, Session};
use problem::{Fault, Problem};

pub(crate) async fn verify(session: &Session<'_>, args: &args::Verify) -> Result<Exit, Failure> {
    let deadline = session.deadline(&args.registry);
    let references: Vec<(Reference, Name)> = session::references(&args.references, None)?;
    let Some(store) = session.existing_store()? else {
        if references.is_empty() {
            session.screen.note(&format!("nothing to verify: there is no store at {}", session.settings.store.display()));
        }
        return Ok(if references.is_empty() { Exit::Done } else { session.nothing_there(&references) });
    };
    let (asked_for, mut exit) = pins_of(session, &store, &references)?;
    let checkup = Checkup { of: (!references.is_empty()).then_some(&asked_for[..]), hash: !args.quick };
    let (findings, tally) = look(session, &store, checkup)?;
    let mut problems = problem::put_together(findings, &store, &tally.pins);
    if args.repair {
        repair(session, &store, args, deadline, &tally.pins, &mut problems).await?;
    }
    for problem in &problems {
        say(session, problem);
        exit = exit.max(problem.exit());
    }
    sum_up(session, &tally, &problems, args);
    Ok(exit)
}

/// The pins that were asked for; one that is not there is a failure of its own.
fn pins_of(session: &Session<'_>, store: &Store, references: &[(Reference, Name)]) -> Result<(Vec<Pin>, Exit), Failure> {
    let (mut pins, mut exit) = (Vec::new(), Exit::Done);
    for (reference, _) in references {
        let found = store.find(reference, None)?;
        if found.is_empty() {
            let failure = session::not_in_store(session, reference);
            session.screen.failure(json!({ "reference": reference }), &failure);
            exit = exit.max(failure.exit);
        }
        pins.extend(found);
    }
    Ok((pins, exit))
}

/// Keeps what is found, and shows how much was hashed.
struct Ear {
    findings: Mutex<Vec<Finding>>,
    hashing: Hashing,
}

impl Watch for Ear {
    fn found(&self, finding: Finding) {
        if let Ok(mut findings) = self.findings.lock() {
            findings.push(finding);
        }
    }

    fn hashed(&self, bytes: u64) {
        self.hashing.tell(bytes);
    }
}

fn look(session: &Session<'_>, store: &Store, checkup: Checkup<'_>) -> Result<(Vec<Finding>, Tally), Failure> {
    let ear = Ear { findings: Mutex::default(), hashing: Hashing::new(session.screen) };
    let tally = store.verify(checkup, &ear)?;
    Ok((ear.findings.into_inner().unwrap_or_default(), tally))
}

/// Brings again what is wrong: exactly that, and from whoever has it.
async fn repair(
    session: &Session<'_>,
    store: &Store,
    args: &args::Verify,
    deadline: Deadline,
    pins: &[Pin],
    problems: &mut [Problem],
) -> Result<(), Failure> {
    let (files, repositories): (Vec<String>, Vec<String>) = args.from.iter().cloned().partition(|from| is_file(from));
    let repositories = session::repositories(&repositories)?;
    let affected: Vec<&Pin> = pins.iter().filter(|pin| problems.iter().any(|problem| problem.is_of(pin))).collect();
    let asked: Vec<(Reference, Name)> = affected.iter().map(|pin| (pin.asked.clone(), pin.name.clone())).collect();
    let upstream = session.upstream(&args.registry, &asked, deadline)?;
    let progress = Progress::new(session.screen);
    let tell = |event| progress.tell(event);
    let cache = Cache { store, upstream: upstream.as_ref(), tell: &tell };
    for problem in problems.iter_mut() {
        if let Fault::Unreadable { digest, .. } = &problem.fault {
            let aside = store.set_unreadable_aside(digest);
            problem.failed = aside.err().map(|error| Failure::from(&error));
        }
    }
    take_from_files(session, store, &files, &affected);
    for pin in affected {
        let (failure, unsettled) = match deadline.keep(async { Ok(cache.mend(pin, &repositories).await) }).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => (Failure::from(&error), matches!(error, PullError::Store(_))),
            Err(late) => (late, false),
        };
        problems.iter_mut().filter(|problem| problem.is_of(pin)).for_each(|problem| problem.failed_with(&failure, unsettled));
    }
    deadline.keep(repair_pins(&cache, &repositories, problems)).await?;
    problems.iter_mut().for_each(|problem| problem.look_again(store));
    Ok(())
}

fn is_file(from: &str) -> bool {
    from.starts_with(['/', '.']) || Path::new(from).exists()
}

/// Takes what is missing out of layouts and archives. One that cannot be read is said; the registries are asked all the same.
fn take_from_files(session: &Session<'_>, store: &Store, files: &[String], affected: &[&Pin]) {
    for file in files {
        let blobs = affected.iter().flat_map(|pin| pin.blobs());
        let mut missing: Vec<Descriptor> = blobs.filter(|blob| !store.has(blob)).cloned().collect();
        missing.sort_by_key(|blob| blob.digest);
        missing.dedup_by_key(|blob| blob.digest);
        match donor::take(store, Path::new(file), &missing) {
            Ok(taken) if !session.screen.quiet() => session.screen.note(&format!("{file}: {} taken", display::count(taken.len(), "blob"))),
            Ok(_) => {}
            Err(error) => session.screen.note(Failure::from(&error).text().trim_end()),
        }
    }
}

/// Pins images again whose pins cannot be read; their names are those of the files.
async fn repair_pins(cache: &Cache<'_>, repositories: &[Repository], problems: &mut [Problem]) -> Result<(), Failure> {
    let mut aside: Vec<(&mut Problem, PathBuf, Want)> = Vec::new();
    for problem in problems {
        let Fault::BadPin { path, meant: Some((reference, platform)), .. } = &problem.fault else { continue };
        let want = Want {
            name: reference.name(),
            platforms: Platforms::These(vec![platform.clone()]),
            from: repositories.to_vec(),
            reference: reference.clone(),
            unpinned: Unpinned::Refuse,
            referrers: false,
        };
        // All of them first: as long as one cannot be read, no other of its name can be written.
        match cache.store.set_pin_aside(path) {
            Ok(moved) => aside.push((problem, moved, want)),
            Err(error) => problem.failed = Some(Failure::from(&error)),
        }
    }
    for (problem, moved, want) in aside {
        match (cache.pull(&want).await, &problem.fault) {
            (Ok(_), _) => problem.mended = true,
            (Err(error), Fault::BadPin { path, .. }) => {
                cache.store.put_pin_back(&moved, path)?;
                problem.failed = Some(Failure::from(&error));
            }
            (Err(error), _) => problem.failed = Some(Failure::from(&error)),
        }
    }
    Ok(())
}

fn say(session: &Session<'_>, problem: &Problem) {
    if problem.is_a_fault() || session.screen.verbose || !session.screen.table() {
        session.screen.result(problem.json(), &problem.text(), &problem.name());
    }
}

fn sum_up(session: &Session<'_>, tally: &Tally, problems: &[Problem], args: &args::Verify) {
    let faults = problems.iter().filter(|problem| problem.is_a_fault()).count();
    let mended = problems.iter().filter(|problem| problem.is_a_fault() && problem.mended).count();
    let lying_about: u64 = problems.iter().filter(|problem| !problem.is_a_fault()).map(|problem| problem.bytes).sum();
    let looked = match args.quick {
        true => "names and sizes looked at, content not".to_owned(),
        false => format!("{} hashed", display::size(tally.bytes)),
    };
    let came_of_it = match (faults, mended) {
        (0, _) => "nothing is wrong".to_owned(),
        (faults, 0) => format!("{} found", display::count(faults, "fault")),
        (faults, mended) => format!("{} found, {mended} mended", display::count(faults, "fault")),
    };
    let mut text =
        format!("{}, {}, {looked}: {came_of_it}", display::count(tally.pins.len(), "image"), display::count(tally.blobs, "blob"));
    if lying_about > 0 {
        text.push_str(&format!("\n  {} lie about that no image needs; `larder prune` removes them", display::size(lying_about)));
    }
    if faults > mended && !args.repair {
        text.push_str("\n  hint: `larder verify --repair` brings again what is damaged or missing");
    }
    let json = json!({
        "status": "verified", "images": tally.pins.len(), "blobs": tally.blobs, "hashed_bytes": tally.bytes, "quick": args.quick,
        "faults": faults, "mended": mended, "unneeded_bytes": lying_about,
    });
    session.screen.summary(json, &text);
}
