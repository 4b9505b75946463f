//! Results on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytesize::ByteSize;
use indicatif::MultiProgress;
use larder::engine::Shown;
use larder::engine::proof::Proof;
use larder::oci::Referrer;
use larder::pin::{Identity, Pin};
use larder::plan::Lacking;
use larder::pull::TagNow;
use serde_json::{Value, json};

use super::args::Global;
use super::failure::{Exit, Failure};

/// Where results and messages go, and in which form.
pub(crate) struct Screen {
    form: Form,
    pub(crate) verbose: bool,
    /// Whether standard output took all that was written.
    broken: AtomicBool,
    /// Who draws bars now, if anybody.
    bars: Arc<Mutex<Option<MultiProgress>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Quiet,
}

impl Screen {
    pub(crate) fn new(global: &Global) -> Screen {
        let form = match (global.json, global.quiet) {
            (true, _) => Form::Json,
            (_, true) => Form::Quiet,
            _ => Form::Text,
        };
        Screen { form, verbose: global.verbose, broken: AtomicBool::new(false), bars: Arc::default() }
    }

    /// Whether progress may be shown at all.
    pub(crate) fn quiet(&self) -> bool {
        self.form == Form::Quiet
    }

    /// Whether results are JSON objects.
    pub(crate) fn json(&self) -> bool {
        self.form == Form::Json
    }

    /// Whether results are shown as text, so that a table can be made of them.
    pub(crate) fn table(&self) -> bool {
        self.form == Form::Text
    }

    /// Whether bars may be drawn.
    pub(crate) fn bars(&self) -> bool {
        self.form != Form::Quiet && io::stderr().is_terminal()
    }

    /// A result: a JSON object, a text, or only a name.
    pub(crate) fn result(&self, json: Value, text: &str, name: &str) {
        match self.form {
            Form::Json => self.line(&json.to_string()),
            Form::Text => self.line(text),
            Form::Quiet => self.line(name),
        }
    }

    /// What all came to: for scripts a last object, for people a remark.
    pub(crate) fn summary(&self, json: Value, text: &str) {
        match self.form {
            Form::Json => self.line(&json.to_string()),
            Form::Text => self.note(text),
            Form::Quiet => {}
        }
    }

    /// A failure of one item: people read it on standard error, scripts on standard output with what it is about.
    pub(crate) fn failure(&self, about: Value, failure: &Failure) {
        self.note(failure.text().trim_end());
        if self.form == Form::Json {
            let mut object = about;
            object["status"] = json!("failed");
            object["error"] = failure.json();
            self.line(&object.to_string());
        }
    }

    /// A remark for people.
    pub(crate) fn note(&self, text: &str) {
        remark(&self.bars, text);
    }

    /// Makes remarks for as long as anybody likes; none where only names are wanted.
    pub(crate) fn remarks(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let bars = (!self.quiet()).then(|| self.bars.clone());
        move |text| bars.iter().for_each(|bars| remark(bars, text))
    }

    /// A warning for people.
    pub(crate) fn warning(&self, text: &str) {
        self.note(&format!("warning: {text}"));
    }

    /// Lets remarks pass through whoever draws bars, so that they do not tear each other.
    pub(crate) fn through(&self, bars: Option<MultiProgress>) {
        if let Ok(mut now) = self.bars.lock() {
            *now = bars;
        }
    }

    /// Plain text on standard output, whatever the form.
    pub(crate) fn line(&self, text: &str) {
        let write = || {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        };
        let bars = self.bars.lock().map(|bars| bars.clone()).unwrap_or_default();
        let written = match bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        };
        if written.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// The exit code, given whether all that had to be said was said.
    pub(crate) fn finish(&self, exit: Exit) -> Exit {
        if self.broken.load(Ordering::Relaxed) { exit.max(Exit::Failed) } else { exit }
    }
}

fn remark(bars: &Mutex<Option<MultiProgress>>, text: &str) {
    match bars.lock().map(|bars| bars.clone()) {
        // A terminal that is gone takes no remarks.
        Ok(Some(bars)) => bars.println(text).unwrap_or_default(),
        _ => to_stderr(text),
    }
}

fn to_stderr(text: &str) {
    // Nobody is left to be told that nobody can be told.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A size as people read it: 41.2 MB.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

/// A count with its noun.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// What an engine was sent, in words.
pub(crate) fn sent(bytes: u64, lacked: &Lacking) -> String {
    let (layers, all) = (lacked.layers.len(), lacked.layers.len() + lacked.held.len());
    match lacked.held.len() {
        0 => format!("{}, {}", size(bytes), count(all, "layer")),
        _ => format!("{}, {layers} of {}", size(bytes), count(all, "layer")),
    }
}

/// How it was proved, in words.
pub(crate) fn proof(proof: Proof, pin: &Pin) -> String {
    match proof {
        Proof::Identity(Identity::ImageId) => format!("image ID {}", pin.image_id()),
        Proof::Identity(Identity::Root | Identity::Manifest) if pin.unproved => {
            format!("manifest {} (made by larder)", pin.manifest.digest)
        }
        Proof::Identity(Identity::Manifest) => format!("manifest {}", pin.manifest.digest),
        Proof::Identity(Identity::Root) => format!("digest {}", pin.root.digest),
        Proof::Content => "content: config and diff IDs compared in full".to_owned(),
    }
}

pub(crate) fn proof_json(proof: Proof) -> Value {
    match proof {
        Proof::Identity(which) => json!({ "level": "identity", "by": which }),
        Proof::Content => json!({ "level": "content" }),
    }
}

pub(crate) fn pin_json(pin: &Pin) -> Value {
    // What larder made is no digest to ask a registry for.
    let known = |digest| (!pin.unproved).then_some(digest);
    json!({
        "name": pin.name, "pinned": pin.pinned(), "platform": pin.platform,
        "root": known(pin.root.digest), "manifest": known(pin.manifest.digest), "image_id": pin.image_id(),
        "size": pin.size, "from": pin.from, "pinned_at": pin.pinned_at, "pin_not_met": pin.pin_not_met, "proved": !pin.unproved,
        "artifact": pin.artifact, "referrers": pin.referrers.as_ref().map(|all| all.iter().map(referrer_json).collect::<Vec<_>>()),
    })
}

fn referrer_json(referrer: &Referrer) -> Value {
    json!({
        "digest": referrer.manifest.digest, "kind": referrer.kind, "subject": referrer.subject, "media_type": referrer.manifest.media_type,
        "layers": referrer.layers, "size": referrer.size(),
    })
}

/// What is said of an image whose pin is not proved.
pub(crate) const UNPROVED: &str = "image ID known, pin not proved";

pub(crate) fn shown_json(shown: &Shown) -> Value {
    json!({ "id": shown.id, "digests": shown.digests, "platform": shown.platform, "complete": shown.complete })
}

/// What an engine shows under a name, in words.
pub(crate) fn shown(shown: &Shown) -> String {
    match &shown.platform {
        Some(platform) => format!("{} ({platform})", shown.id),
        None => shown.id.to_string(),
    }
}

/// Any of these would have been the pinned image.
pub(crate) fn identities(pin: &Pin) -> String {
    let made = if pin.unproved { ", made by larder" } else { "" };
    let mut lines = vec![format!("{} (image ID)", pin.image_id()), format!("{} (manifest{made})", pin.manifest.digest)];
    if pin.root.digest != pin.manifest.digest {
        lines.push(format!("{} (index)", pin.root.digest));
    }
    lines.join("\n")
}

pub(crate) fn tag_now_json(tag_now: Option<TagNow>) -> Value {
    match tag_now {
        None => Value::Null,
        Some(TagNow::Same) => json!({ "state": "same" }),
        Some(TagNow::Moved(to)) => json!({ "state": "moved", "to": to }),
        Some(TagNow::Gone) => json!({ "state": "gone" }),
    }
}

/// Adds the entries of one object to another.
pub(crate) fn merged(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

/// Rows in columns, as wide as they need to be.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let spaces = " ".repeat(widths.into_iter().max().unwrap_or(0) + 2);
    let mut text = String::with_capacity(rows.len() * widths.into_iter().map(|width| width + 2).sum::<usize>());
    for row in rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(cell);
            text.push_str(&spaces[..width - cell.chars().count() + 2]);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}
