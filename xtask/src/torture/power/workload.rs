//! What larder does while the power is on, and what it has said by when.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use larder::digest::Digest;

use super::disk::Recorded;
use crate::run::Result;
use crate::torture::judge::{self, Held};
use crate::torture::operations::LONG_AGO;
use crate::torture::scene::Scene;

/// The store's folder on the disk.
pub(super) const STORE: &str = "store";

/// What larder had acknowledged by some moment.
#[derive(Clone, Default)]
pub(super) struct Said {
    /// How many requests the disk had been told by then.
    after: usize,
    /// What is there.
    pub(super) held: Vec<Held>,
    /// Names of what was removed.
    pub(super) gone: Vec<String>,
    /// What a hand damaged, and larder has not mended yet.
    pub(super) damaged: Option<Digest>,
}

/// Pulls, pulls a tag that moved, mends what was damaged, removes, and pulls again what was removed, prunes; what was said, in order.
pub(super) fn run(scene: &Scene, disk: &Recorded, system: &str) -> Result<Vec<Said>> {
    let moving = format!("moving-on-{system}");
    scene.serve(&scene.first, &moving);
    let mut work = Work { scene, disk, said: vec![Said::default()] };
    work.pull("first")?;
    work.pull("second")?;
    work.pull(&moving)?;
    work.remove("first")?;
    scene.serve(&scene.second, &moving);
    work.pull_moved(&moving)?;
    work.pull("first")?;
    let one = &scene.first.platforms[0];
    work.mend(&one.manifest.digest, &scene.pull("first"))?;
    work.mend(&one.layers[0].digest, &["verify".to_owned(), "--repair".to_owned()])?;
    work.remove("second")?;
    work.pull("second")?;
    work.prune("first")?;
    Ok(work.said)
}

/// When something was said, as the number of requests by then.
pub(super) fn moments(said: &[Said]) -> Vec<usize> {
    said.iter().map(|said| said.after).filter(|after| *after > 0).collect()
}

/// What had been said when the disk had been told so many requests.
pub(super) fn at(said: &[Said], requests: usize) -> &Said {
    let said_by_then = said.iter().take_while(|said| said.after <= requests);
    said_by_then.last().expect("nothing is said at first, and that is the first of them")
}

struct Work<'a> {
    scene: &'a Scene,
    disk: &'a Recorded,
    said: Vec<Said>,
}

impl Work<'_> {
    fn pull(&mut self, tag: &str) -> Result {
        let image = if tag == "second" { &self.scene.second } else { &self.scene.first };
        let held = self.scene.held(tag, &[image]);
        // It may be there from when the pull begins.
        self.say(|said| said.gone.retain(|name| *name != held.name))?;
        self.larder(&self.scene.pull(tag))?;
        self.say(|said| said.held.push(held))
    }

    /// The tag means the second image now; its pin for the first one stays.
    fn pull_moved(&mut self, tag: &str) -> Result {
        self.larder(&self.scene.pull(tag))?;
        let held = self.scene.held(tag, &[&self.scene.second]);
        self.say(|said| said.held.push(held))
    }

    /// Makes it look as if an image had not been used for long, and prunes it.
    fn prune(&mut self, tag: &str) -> Result {
        let file = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{tag}@")));
        for path in judge::files(&self.disk.path().join(STORE).join("pins"))?.into_iter().filter(file) {
            File::options().write(true).open(path)?.set_modified(SystemTime::now() - LONG_AGO)?;
        }
        self.take_away(tag, &["prune".to_owned(), "--unused-for".to_owned(), "30d".to_owned()])
    }

    fn remove(&mut self, tag: &str) -> Result {
        self.take_away(tag, &["remove".to_owned(), self.scene.name(tag)])
    }

    fn take_away(&mut self, tag: &str, arguments: &[String]) -> Result {
        let name = self.scene.name(tag);
        // It may be gone from when the removal begins.
        self.say(|said| said.held.retain(|held| held.name != name))?;
        self.larder(arguments)?;
        self.say(|said| said.gone.push(name))
    }

    /// A hand puts something shorter in the place of a blob of the first image, and this brings it again.
    fn mend(&mut self, digest: &Digest, arguments: &[String]) -> Result {
        let held = self.said.last().map(|said| said.held.clone()).unwrap_or_default();
        let (first, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| held.roots == [self.scene.first.root.digest]);
        self.say(|said| (said.held, said.damaged) = (others.clone(), Some(*digest)))?;
        let blobs = self.disk.path().join(STORE).join("blobs/sha256");
        let (other, blob) = (self.disk.path().join("other"), blobs.join(digest.hex()));
        let mut short = File::create(&other)?;
        short.write_all(b"short")?;
        short.sync_all()?;
        fs::rename(other, blob)?;
        File::open(blobs)?.sync_all()?;
        self.larder(arguments)?;
        self.say(|said| (said.held, said.damaged) = ([others, first].concat(), None))
    }

    fn larder(&self, arguments: &[String]) -> Result {
        self.scene.must(&self.disk.path().join(STORE), arguments)
    }

    fn say(&mut self, change: impl FnOnce(&mut Said)) -> Result {
        let mut said = self.said.last().cloned().unwrap_or_default();
        said.after = self.disk.position()?;
        change(&mut said);
        self.said.push(said);
        Ok(())
    }
}
