//! Progress on standard error: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use larder::digest::Digest;
use larder::engine::Kind;
use larder::event::Event;
use serde_json::{Value, json};

use super::display::{self, Screen};

/// Watches the events of one image.
pub(crate) struct Progress<'a> {
    screen: &'a Screen,
    /// Lines and bars are drawn by one at a time.
    state: Mutex<State>,
    bars: Option<MultiProgress>,
}

struct State {
    all: Option<ProgressBar>,
    blobs: HashMap<Digest, ProgressBar>,
    /// Bytes counted in `all` for each blob on its way.
    came: HashMap<Digest, u64>,
    /// One for each engine.
    loads: HashMap<String, Load>,
    export: Option<ProgressBar>,
    /// Who was asked, in the order of the first time.
    asked: Vec<Asked>,
}

/// What a place was asked for, and why it did not give it.
struct Asked {
    place: String,
    requests: usize,
    failed: Vec<String>,
}

/// A load on its way.
struct Load {
    bar: ProgressBar,
    /// How many layers are sent.
    layers: usize,
    /// Bytes unpacked of each layer that the engine told of, and how many there are.
    unpacked: HashMap<String, (u64, u64)>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(screen: &'a Screen) -> Progress<'a> {
        let bars = screen.bars().then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        screen.through(bars.clone());
        let state =
            State { all: None, blobs: HashMap::new(), came: HashMap::new(), loads: HashMap::new(), export: None, asked: Vec::new() };
        Progress { screen, state: Mutex::new(state), bars }
    }

    pub(crate) fn tell(&self, event: Event) {
        let Ok(mut state) = self.state.lock() else { return };
        state.ask(&event);
        match &self.bars {
            Some(bars) => self.draw(bars, &mut state, event),
            None => self.say(event),
        }
    }

    /// Who was asked for how many things, and why it was passed over.
    pub(crate) fn asked(&self) -> Value {
        let Ok(state) = self.state.lock() else { return Value::Null };
        let one = |asked: &Asked| json!({ "place": asked.place, "asked_for": asked.requests, "failed": asked.failed });
        state.asked.iter().map(one).collect()
    }

    /// What became of the load into this engine is known.
    pub(crate) fn end(&self, engine: Kind) {
        let Ok(mut state) = self.state.lock() else { return };
        if let Some(load) = state.loads.remove(&engine.to_string()) {
            load.bar.finish_and_clear();
        }
    }

    fn say(&self, event: Event) {
        let quiet = self.screen.quiet();
        match event {
            Event::Asking { place, what } if self.screen.verbose => self.screen.note(&format!("asking {place} for {what}")),
            Event::Fetching { blobs, bytes, reference } if blobs > 0 && !quiet => {
                self.screen.note(&format!("{reference}: fetching {}, {}", display::count(blobs, "blob"), display::size(bytes)));
            }
            Event::BlobStarted { digest, size, resumed } if self.screen.verbose || resumed > 0 && !quiet => match resumed {
                0 => self.screen.note(&format!("fetching {digest}, {}", display::size(size))),
                _ => self.screen.note(&format!("resuming {digest} at {} of {}", display::size(resumed), display::size(size))),
            },
            Event::BlobFinished { digest } if self.screen.verbose => self.screen.note(&format!("verified {digest}")),
            Event::LoadStarted { engine, name, bytes, .. } if !quiet => {
                self.screen.note(&format!("{name}: loading into {engine}, {}", display::size(bytes)));
            }
            Event::LoadWaiting { engine, since } if !quiet => {
                self.screen.note(&format!("{engine} has had all of it for {} s, and unpacks", since.as_secs()));
            }
            other => self.remark(&other),
        }
    }

    /// What is said with bars and without.
    fn remark(&self, event: &Event) {
        if self.screen.quiet() {
            return;
        }
        match event {
            Event::Retrying { what, why, after } => {
                self.screen.note(&format!("trying again in {:.1} s: {what}: {why}", after.as_secs_f32()));
            }
            Event::PassedOver { place, what, why, next } => {
                self.screen.note(&format!("{place} does not give {what}, asking {next}: {why}"));
            }
            Event::SamePlatform { manifest, platform } => {
                self.screen.note(&format!("note: {manifest} is for {platform} too, and is left out: of equals the first is taken"));
            }
            Event::BlobRestarted { digest } => self.screen.note(&format!("{digest} did not verify; fetching it again from its beginning")),
            Event::LoadRefused { engine, name, why } => {
                self.screen.note(&format!("{name}: {engine} did not take a part of it, and is sent all: {why}"));
            }
            _ => {}
        }
    }

    fn draw(&self, bars: &MultiProgress, state: &mut State, event: Event) {
        match event {
            Event::Fetching { blobs, bytes, .. } if blobs > 0 => {
                let bar = bars.add(
                    ProgressBar::new(bytes)
                        .with_style(style("{msg:22} {bar:28} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left")),
                );
                state.all = Some(bar.with_message(format!("fetching {}", display::count(blobs, "blob"))));
            }
            Event::BlobStarted { digest, size, resumed } => {
                let bar = bars.add(ProgressBar::new(size).with_style(style("  {msg:20} {bar:28} {decimal_bytes}/{decimal_total_bytes}")));
                bar.set_position(resumed);
                state.all.iter().for_each(|all| all.inc(resumed));
                state.came.insert(digest, resumed);
                state.blobs.insert(digest, bar.with_message(format!("{:.12}", digest.hex())));
            }
            Event::BlobProgress { digest, bytes } => {
                state.blobs.get(&digest).iter().for_each(|bar| bar.inc(bytes));
                state.all.iter().for_each(|all| all.inc(bytes));
                *state.came.entry(digest).or_default() += bytes;
            }
            Event::BlobFinished { digest } => {
                state.came.remove(&digest);
                if let Some(bar) = state.blobs.remove(&digest) {
                    bar.finish_and_clear();
                }
            }
            Event::BlobRestarted { digest } => {
                let lost = state.came.remove(&digest).unwrap_or(0);
                state.all.iter().for_each(|all| all.set_position(all.position().saturating_sub(lost)));
                if let Some(bar) = state.blobs.remove(&digest) {
                    bar.finish_and_clear();
                }
                self.remark(&event);
            }
            other => self.draw_load(bars, state, other),
        }
    }

    fn draw_load(&self, bars: &MultiProgress, state: &mut State, event: Event) {
        match event {
            Event::LoadStarted { engine, bytes, layers, .. } => {
                state.all.take().iter().for_each(ProgressBar::finish_and_clear);
                let template = "{msg:30} {bar:28} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}";
                let bar = bars.add(ProgressBar::new(bytes).with_style(style(template))).with_message(format!("loading into {engine}"));
                state.loads.insert(engine, Load { bar, layers, unpacked: HashMap::new() });
            }
            Event::LoadProgress { engine, bytes } => state.loads.get(&engine).iter().for_each(|load| load.bar.inc(bytes)),
            Event::LoadSent { engine } => {
                if let Some(load) = state.loads.get(&engine) {
                    // From here on it is the engine that takes time.
                    load.bar.set_style(style("{msg:30} {elapsed}"));
                    match load.unpacked.is_empty() {
                        true => load.bar.set_message(format!("{engine} unpacks {}", display::count(load.layers, "layer"))),
                        false => load.tell_unpacked(&engine),
                    }
                    load.bar.enable_steady_tick(Duration::from_millis(100));
                }
            }
            Event::LoadUnpacking { engine, layer, bytes, of } => {
                if let Some(load) = state.loads.get_mut(&engine) {
                    load.unpacking(&engine, layer, bytes, of);
                }
            }
            Event::LoadFinished { engine } => {
                state.loads.get(&engine).iter().for_each(|load| load.bar.set_message(format!("{engine} is asked")));
            }
            Event::LoadRefused { ref engine, .. } => {
                state.loads.remove(engine).iter().for_each(|load| load.bar.finish_and_clear());
                self.remark(&event);
            }
            Event::ExportStarted { bytes } => {
                let bar = bars.add(
                    ProgressBar::new(bytes)
                        .with_style(style("{msg:22} {bar:28} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left")),
                );
                state.export = Some(bar.with_message("writing"));
            }
            Event::ExportProgress { bytes } => state.export.iter().for_each(|bar| bar.inc(bytes)),
            Event::ExportFinished => state.export.take().iter().for_each(ProgressBar::finish_and_clear),
            other => self.remark(&other),
        }
    }
}

/// A file that shows how much of it was read, on a terminal.
pub(crate) fn reading(screen: &Screen, file: impl Read + Send + 'static, size: Option<u64>) -> Box<dyn Read + Send> {
    if !screen.bars() {
        return Box::new(file);
    }
    let bar = match size {
        Some(size) => {
            ProgressBar::new(size).with_style(style("reading {bar:28} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}"))
        }
        None => ProgressBar::no_length().with_style(style("reading {decimal_bytes}  {decimal_bytes_per_sec}")),
    };
    Box::new(bar.with_finish(ProgressFinish::AndClear).wrap_read(file))
}

/// Shows how much was hashed, on a terminal.
pub(crate) struct Hashing {
    bar: Option<ProgressBar>,
}

impl Hashing {
    pub(crate) fn new(screen: &Screen) -> Hashing {
        let bar = screen.bars().then(|| ProgressBar::no_length().with_style(style("hashing {decimal_bytes}  {decimal_bytes_per_sec}")));
        Hashing { bar }
    }

    pub(crate) fn tell(&self, bytes: u64) {
        self.bar.iter().for_each(|bar| bar.inc(bytes));
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl State {
    /// Counts what is asked where.
    fn ask(&mut self, event: &Event) {
        let (Event::Asking { place, .. } | Event::PassedOver { place, .. }) = event else { return };
        let known = self.asked.iter().position(|asked| asked.place == *place);
        let at = known.unwrap_or_else(|| {
            self.asked.push(Asked { place: place.clone(), requests: 0, failed: Vec::new() });
            self.asked.len() - 1
        });
        match event {
            Event::PassedOver { what, why, .. } => self.asked[at].failed.push(format!("{what}: {why}")),
            _ => self.asked[at].requests += 1,
        }
    }
}

impl Load {
    fn unpacking(&mut self, engine: &str, layer: String, bytes: u64, of: u64) {
        self.unpacked.insert(layer, (bytes, of));
        self.tell_unpacked(engine);
    }

    fn tell_unpacked(&self, engine: &str) {
        let layers = self.unpacked.values().filter(|(bytes, of)| bytes >= of).count();
        // One that was there already may be unpacked besides.
        let all = self.layers.max(layers);
        self.bar.set_message(format!("{engine} unpacked {layers} of {}", display::count(all, "layer")));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            // What cannot be cleared is left as it is.
            let _ = bars.clear();
            self.screen.through(None);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well-formed").progress_chars("=> ")
}
