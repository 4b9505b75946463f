//! `export`: images from the store into files that other tools read.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use larder::archive::{Archive, Form, Item};
use larder::export::{self, Chosen, ExportError, Scope, Wish, Wrap, Written};
use larder::oci::Platform;
use larder::pin::Pin;
use larder::reference::Reference;
use larder::store::Store;
use serde_json::{Value, json};

use super::args::{self, Compress, Format, PlatformOrAll};
use super::display;
use super::failure::{Exit, Failure};
use super::progress::Progress;
use super::session::{self, Session};

/// A file or folder, and what goes into it.
struct Parcel {
    path: PathBuf,
    images: Vec<(Reference, Chosen)>,
}

pub(crate) fn export(session: &Session<'_>, args: &args::Export) -> Result<Exit, Failure> {
    let references = session::references(&args.references.references, Some(&args.naming))?;
    sensible(session, args)?;
    let scope = scope(args)?;
    let Some(store) = session.existing_store()? else { return Ok(session.nothing_there(&references)) };
    // Nothing that is read is removed meanwhile.
    let _counted_on = store.share()?;
    let mut exit = Exit::Done;
    let mut images: Vec<(Reference, Chosen)> = Vec::new();
    for (reference, name) in references {
        let name = args.naming.name.is_some().then_some(name);
        match export::choose(&store, &Wish { reference: reference.clone(), name, scope: scope.clone() }) {
            Ok(chosen) if images.iter().any(|(_, known)| known.item == chosen.item) => {}
            Ok(chosen) => images.push((reference, chosen)),
            Err(error) => {
                let failure = mended(&error, None, &reference);
                session.screen.failure(json!({ "reference": reference }), &failure);
                exit = exit.max(failure.exit);
            }
        }
    }
    // A file without some of the images would look like one with all of them.
    if exit != Exit::Done {
        return Ok(exit);
    }
    for parcel in parcels(args, images) {
        if let Err(failure) = one(session, args, &store, &parcel) {
            let references: Vec<&Reference> = parcel.images.iter().map(|(reference, _)| reference).collect();
            session.screen.failure(json!({ "references": references, "file": { "path": parcel.path } }), &failure);
            exit = exit.max(failure.exit);
        }
    }
    Ok(exit)
}

/// What cannot be meant is refused before anything is looked at.
fn sensible(session: &Session<'_>, args: &args::Export) -> Result<(), Failure> {
    let usage = |code, message: &str| Err(Failure::new(Exit::Usage, code, message));
    let folder = matches!(args.format, Format::Layout | Format::Minikube);
    let streamed = to_stdout(args) && !args.dry.dry_run;
    let several = args.platforms.len() > 1 || args.platforms.contains(&PlatformOrAll::All);
    if to_stdout(args) && folder {
        return usage("output", "the formats layout and minikube are folders, which standard output is not");
    }
    if streamed && session.screen.json() {
        return usage("output", "--json and an archive cannot share standard output");
    }
    if streamed && io::stdout().is_terminal() {
        let failure = Failure::new(Exit::Usage, "terminal", "an archive is nothing for a terminal");
        return Err(failure.hint("name a file with -o, or send it on through a pipe"));
    }
    if args.compress != Compress::None && folder {
        return usage("compress", "--compress is for archives: a layout and minikube's cache are not compressed as a whole");
    }
    if matches!(args.format, Format::Docker | Format::Minikube) && several {
        return usage("platform", "the formats docker and minikube hold an image for one platform");
    }
    Ok(())
}

fn to_stdout(args: &args::Export) -> bool {
    args.output == Path::new("-")
}

fn scope(args: &args::Export) -> Result<Scope, Failure> {
    let one = |platform: &PlatformOrAll| match platform {
        PlatformOrAll::One(platform) => Some(platform.clone()),
        PlatformOrAll::All => None,
    };
    let these: Option<Vec<Platform>> = args.platforms.iter().map(one).collect();
    Ok(match (these, args.format) {
        (Some(these), _) if !these.is_empty() => Scope::These(these),
        (_, Format::Docker | Format::Minikube) => Scope::One(session::default_platform()?),
        _ => Scope::Kept,
    })
}

/// minikube has a file for each image; everything else has all in one, in an order that does not depend on the command line.
fn parcels(args: &args::Export, mut images: Vec<(Reference, Chosen)>) -> Vec<Parcel> {
    images.sort_by(|(_, a), (_, b)| a.item.name.cmp(&b.item.name));
    if args.format != Format::Minikube {
        return vec![Parcel { path: args.output.clone(), images }];
    }
    let path = |of: &Chosen| export::minikube_path(&args.output, &of.item.name, &of.pins[0].root.digest, &of.pins[0].platform);
    images.into_iter().map(|image| Parcel { path: path(&image.1), images: vec![image] }).collect()
}

fn one(session: &Session<'_>, args: &args::Export, store: &Store, parcel: &Parcel) -> Result<(), Failure> {
    let items: Vec<Item> = parcel.images.iter().map(|(_, chosen)| chosen.item.clone()).collect();
    let form = match args.format {
        Format::Archive => Form::Both,
        Format::Docker => Form::Docker,
        Format::Oci | Format::Layout => Form::Oci,
        Format::Minikube => Form::Crane,
    };
    let first = &parcel.images[0].0;
    let failed = |error: ExportError| mended(&error, at_fault(&error, &parcel.images), first);
    let archive = Archive::of(store, &items, form).map_err(|e| failed(e.into()))?;
    remark(session, args, &parcel.images);
    if args.dry.dry_run {
        say(session, args, parcel, None, archive.size());
        return Ok(());
    }
    let written = write(session, args, store, (&archive, &parcel.path)).map_err(failed)?;
    parcel.images.iter().flat_map(|(_, chosen)| &chosen.pins).for_each(|pin| store.used(pin));
    say(session, args, parcel, Some(written), written.bytes);
    Ok(())
}

fn write(session: &Session<'_>, args: &args::Export, store: &Store, (archive, path): (&Archive, &Path)) -> Result<Written, ExportError> {
    let progress = Progress::new(session.screen);
    let tell = |event| progress.tell(event);
    let wrap = match args.compress {
        Compress::None => Wrap::Plain,
        Compress::Gzip => Wrap::Gzip,
        Compress::Zstd => Wrap::Zstd,
    };
    match args.format {
        Format::Layout => export::to_layout(store, archive, path, &tell),
        Format::Minikube => export::to_minikube(archive, path, &tell),
        _ if to_stdout(args) => {
            // Not through the buffer of lines that `stdout` has.
            let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|source| ExportError::Stream { source })?;
            export::to_stream(archive, wrap, &mut File::from(stdout), &tell)
        }
        _ => export::to_file(archive, wrap, path, &tell),
    }
}

/// The image that has the blob which is at fault.
fn at_fault<'a>(error: &ExportError, images: &'a [(Reference, Chosen)]) -> Option<&'a Pin> {
    let blob = error.blob()?;
    let mut pairs = images.iter().flat_map(|(_, chosen)| chosen.item.images.iter().zip(&chosen.pins));
    pairs.find(|(image, _)| image.blobs().iter().any(|of| of.digest == blob)).map(|(_, pin)| pin)
}

/// A failure, with the image that it is about and what mends it where a blob is at fault.
fn mended(error: &ExportError, pin: Option<&Pin>, reference: &Reference) -> Failure {
    let failure = Failure::from(error);
    let (image, again) = match pin {
        Some(pin) => (format!("{} for {}", pin.pinned(), pin.platform), pin.pinned()),
        None => (reference.to_string(), reference.clone()),
    };
    match error.blob() {
        Some(_) => failure.with("image", image).hint(format!("`larder verify --repair {again}` brings it again; nothing was exported")),
        None => failure,
    }
}

/// What readers will make of it that people may not expect.
fn remark(session: &Session<'_>, args: &args::Export, images: &[(Reference, Chosen)]) {
    if session.screen.quiet() || !matches!(args.format, Format::Archive | Format::Oci) {
        return;
    }
    for (_, chosen) in images.iter().filter(|(_, chosen)| chosen.lacks > 0) {
        session.screen.note(&format!(
            "{}: its index lists {} more, and `ctr images import --all-platforms`, kind and k3d want them all\n  hint: --platform {} writes that platform alone",
            chosen.item.name,
            display::count(chosen.lacks, "manifest"),
            chosen.pins[0].platform,
        ));
    }
    match (images.len(), args.format) {
        (0 | 1, _) => {}
        (_, Format::Oci) => session.screen.note("podman loads no OCI archive of several images\n  hint: leave out --format, or write a file for each"),
        _ => session.screen.note("podman keeps the image IDs of several images in one archive, and not their digests\n  hint: write a file for each if those are needed"),
    }
}

fn say(session: &Session<'_>, args: &args::Export, parcel: &Parcel, written: Option<Written>, bytes: u64) {
    let path = parcel.path.display();
    let sha256 = written.and_then(|written| written.digest);
    if session.screen.json() {
        let format = json!(format!("{:?}", args.format).to_lowercase());
        let file = json!({ "path": parcel.path, "format": format, "bytes": bytes, "sha256": sha256 });
        for (reference, chosen) in &parcel.images {
            chosen.pins.iter().for_each(|pin| {
                let status = if written.is_some() { "exported" } else { "would-export" };
                let more: Value = json!({
                    "reference": reference, "name": chosen.item.name, "status": status, "dry_run": written.is_none(),
                    "archived_root": chosen.item.root.digest, "lacking_manifests": chosen.lacks, "file": file,
                });
                session.screen.line(&display::merged(display::pin_json(pin), more).to_string());
            });
        }
        return;
    }
    let would = if written.is_some() { "" } else { "would be written, " };
    let mut text = format!("{path}: {would}{}", display::size(bytes));
    for pin in parcel.images.iter().flat_map(|(_, chosen)| &chosen.pins) {
        text.push_str(&format!("\n  {} {}", pin.platform, pin.pinned()));
    }
    if let Some(digest) = sha256 {
        text.push_str(&format!("\n  file:   {digest}"));
    }
    if !to_stdout(args) {
        session.screen.result(Value::Null, &text, &path.to_string());
    } else if !session.screen.quiet() {
        session.screen.note(&text);
    }
}
