//! `import`: images from files into the store.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use larder::event;
use larder::import::{self, Doubt, Imported, Proof, Source, Wish};
use larder::pull::Cache;
use larder::reference::{Name, Reference};
use larder::upstream::Upstream;
use serde_json::{Value, json};

use super::args;
use super::display;
use super::failure::{Exit, Failure};
use super::progress;
use super::session::{self, Session};

/// How standard input is written as a file.
const STDIN: &str = "-";

pub(crate) async fn import(session: &Session<'_>, args: &args::Import) -> Result<Exit, Failure> {
    let reference = args.reference.as_deref().map(session::reference).transpose()?;
    let files = files(args)?;
    if reference.is_some() && files.len() > 1 {
        return Err(Failure::new(Exit::Usage, "as", "--as is for one image, and several files are given"));
    }
    let asked: Vec<(Reference, Name)> = reference.iter().map(|reference| (reference.clone(), reference.name())).collect();
    let deadline = session.deadline(&args.registry);
    let upstream = session.upstream(&args.registry, &asked, deadline)?;
    let mut exit = Exit::Done;
    for file in &files {
        if let Err(failure) = deadline.keep(one(session, args, reference.as_ref(), upstream.as_ref(), file)).await {
            let failure = Failure { details: [vec![("file", shown(file))], failure.details].concat(), ..failure };
            session.screen.failure(json!({ "file": shown(file), "reference": reference }), &failure);
            exit = exit.max(failure.exit);
        }
    }
    Ok(exit)
}

/// The files that are meant: of a folder that is no layout, those that minikube's cache has.
fn files(args: &args::Import) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for file in args.files.iter().map(PathBuf::from) {
        match file.is_dir() && !file.join("oci-layout").exists() {
            true => files.extend(import::cached_in(&file)?),
            false => files.push(file),
        }
    }
    match files.iter().filter(|file| file.as_os_str() == STDIN).count() {
        0 | 1 => Ok(files),
        _ => Err(Failure::new(Exit::Usage, "stdin", "standard input can be read once only")),
    }
}

async fn one(
    session: &Session<'_>,
    args: &args::Import,
    reference: Option<&Reference>,
    upstream: Option<&Upstream>,
    file: &Path,
) -> Result<(), Failure> {
    let source = source(session, file)?;
    let store = session.store()?;
    let wish = Wish {
        from: session::repositories(&args.from)?,
        reference: reference.cloned(),
        accept_names: args.accept_names,
        platform: args.platform.clone(),
        told: import::told_by(file),
    };
    let cache = Cache { store: &store, upstream, tell: &event::silent };
    let imported = cache.import(source, &wish).await?;
    for image in &imported {
        say(session, file, image);
    }
    if reference.is_none() && !args.accept_names {
        say_names(session, &imported);
    }
    Ok(())
}

fn source(session: &Session<'_>, file: &Path) -> Result<Source, Failure> {
    if file.as_os_str() == STDIN {
        if io::stdin().is_terminal() {
            return Err(Failure::new(Exit::Usage, "stdin", "standard input is a terminal, and no file")
                .hint("`docker save IMAGE | larder import -`"));
        }
        return Ok(Source::Stream(progress::reading(session.screen, io::stdin(), None)));
    }
    if file.is_dir() {
        return Ok(Source::Folder(file.to_owned()));
    }
    let opened = File::open(file).and_then(|opened| Ok((opened.metadata()?.len(), opened)));
    match opened {
        Ok((size, opened)) => Ok(Source::Stream(progress::reading(session.screen, opened, Some(size)))),
        Err(error) => {
            let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotThere } else { Exit::Failed };
            Err(Failure::new(exit, "unreadable", "the file cannot be read").with("it said", error))
        }
    }
}

fn say(session: &Session<'_>, file: &Path, image: &Imported) {
    let Imported { pin, names, proof, added } = image;
    let (level, words) = in_words(proof);
    let mut text = format!("{}\n  {} {}, from {}: {words}", pin.pinned(), pin.platform, display::size(pin.size), shown(file));
    if pin.unproved {
        text.push_str(&format!("\n  image ID: {}", pin.image_id()));
    }
    let json = json!({
        "file": shown(file), "status": if *added > 0 { "imported" } else { "present" }, "added_bytes": added,
        "proof": { "level": level, "doubt": doubt(proof) }, "names_in_file": names,
    });
    session.screen.result(display::merged(display::pin_json(pin), json), &text, &pin.pinned().to_string());
    if let Proof::ImageId(doubt) = proof {
        warn(session, image, doubt);
    }
}

/// What proves it, as a word for scripts and in words for people.
fn in_words(proof: &Proof) -> (&'static str, &'static str) {
    match proof {
        Proof::InFile => ("file", "its manifest is in the file, and all digests hold"),
        Proof::Registry => ("registry", "config and layers are those of the registry's manifest"),
        Proof::Rebuilt => ("rebuilt", "the manifest over its config and layers has the digest that was asked for"),
        Proof::Known => ("known", "the same image is pinned already"),
        Proof::ImageId(_) => ("image-id", display::UNPROVED),
    }
}

fn doubt(proof: &Proof) -> Value {
    match proof {
        Proof::ImageId(Doubt::NotAsked) => json!("not-asked"),
        Proof::ImageId(Doubt::OtherBlobs) => json!("other-blobs"),
        Proof::ImageId(Doubt::NotAnswered(_)) => json!("not-answered"),
        Proof::ImageId(Doubt::Offline) => json!("offline"),
        _ => Value::Null,
    }
}

/// What was asked for and is not proved should not be missed.
fn warn(session: &Session<'_>, image: &Imported, doubt: &Doubt) {
    let Imported { pin, .. } = image;
    let asked = &pin.asked;
    let why = match doubt {
        Doubt::NotAsked => return,
        Doubt::OtherBlobs => "its config is the very one that the registry's manifest names, but the file has the layers in another form",
        Doubt::NotAnswered(why) => why,
        Doubt::Offline => "the file has no manifest, and the network is off",
    };
    session.screen.warning(&format!(
        "{asked} is not proved: {why}\n  instead: {} is kept under its image ID, {}",
        pin.name,
        pin.image_id()
    ));
}

fn say_names(session: &Session<'_>, imported: &[Imported]) {
    let mut names: Vec<&String> = imported.iter().flat_map(|image| &image.names).collect();
    names.dedup();
    if !names.is_empty() && !session.screen.quiet() {
        let names: Vec<String> = names.into_iter().map(|name| name.escape_debug().to_string()).collect();
        session.screen.note(&format!("note: names in the file: {}; --accept-names or --as gives them", names.join(", ")));
    }
}

fn shown(file: &Path) -> String {
    if file.as_os_str() == STDIN { "standard input".to_owned() } else { file.display().to_string() }
}
