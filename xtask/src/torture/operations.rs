//! What larder does to a store, from starts at which it is worth interrupting.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use larder::digest::Digest;

use super::judge::{self, Held};
use super::scene::{Scene, words};
use crate::run::{Message, Result};

/// A run of larder that is interrupted, and what that may not harm.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// A store as it is before; where there is none, the operation makes it.
    pub(super) start: PathBuf,
    pub(super) arguments: Vec<String>,
    /// How it ends when nothing happens to it.
    pub(super) code: i32,
    /// What is run when it was interrupted, and how that may end.
    pub(super) then: Vec<(Vec<String>, &'static [i32])>,
    /// What is there whatever happens.
    pub(super) during: Vec<Held>,
    /// What is there when all that succeeded, and nothing else.
    pub(super) after: Vec<Held>,
    /// What is wrong before, and may be until then.
    pub(super) damaged: Vec<Digest>,
}

/// Long enough ago for `prune` to take it.
pub(super) const LONG_AGO: Duration = Duration::from_secs(60 * 24 * 3600);

/// Pulls, removals, verifying, mending and pruning.
pub(super) fn all(scene: &Scene, folder: &Path) -> Result<Vec<Operation>> {
    let starts = Starts { scene, folder: folder.join("starts") };
    fs::create_dir_all(&starts.folder)?;
    let (first, second) = (scene.held("first", &[&scene.first]), scene.held("second", &[&scene.second]));
    let both = || vec![first.clone(), second.clone()];
    let pull = scene.pull("first");
    let remove = words(&["remove", &first.name]);
    let prune = words(&["prune", "--unused-for", "30d"]);
    let verify = words(&["verify"]);
    let repair = words(&["verify", "--repair"]);
    let (damaged, wrong) = starts.damaged()?;
    Ok(vec![
        Operation::of("pull into nothing", starts.folder.join("nothing"), &pull).after(vec![first.clone()]),
        Operation::of("pull from parts", starts.parts()?, &pull).during(vec![second.clone()]).after(both()),
        Operation::of("pull beside an image", starts.with("beside", &["second"])?, &pull).during(vec![second.clone()]).after(both()),
        Operation::of("pull of a damaged image", damaged.clone(), &pull).after(vec![first.clone()]).damaged(&wrong),
        starts.moved()?,
        Operation::of("remove one of two", starts.with("two", &["first", "second"])?, &remove)
            .then(&[(&remove, &[0, 3])])
            .during(vec![second.clone()])
            .after(vec![second.clone()]),
        Operation::of("remove the only one", starts.with("only", &["first"])?, &remove).then(&[(&remove, &[0, 3])]),
        Operation::of("verify", starts.with("sound", &["first", "second"])?, &verify).during(both()).after(both()),
        Operation::of("verify of a damaged image", damaged.clone(), &verify)
            .ends(4)
            .then(&[(&verify, &[3, 4]), (&pull, &[0])])
            .after(vec![first.clone()])
            .damaged(&wrong),
        Operation::of("verify --repair", damaged, &repair).after(vec![first.clone()]).damaged(&wrong),
        Operation::of("prune", starts.old()?, &prune).during(vec![second.clone()]).after(vec![second]),
    ])
}

/// Stores to begin with.
struct Starts<'a> {
    scene: &'a Scene,
    folder: PathBuf,
}

impl Starts<'_> {
    /// With these images.
    fn with(&self, name: &str, tags: &[&str]) -> Result<PathBuf> {
        let store = self.folder.join(name);
        tags.iter().try_for_each(|tag| self.scene.must(&store, &self.scene.pull(tag)))?;
        Ok(store)
    }

    /// With half of every blob of the first image, as a run that was cut off leaves them.
    fn parts(&self) -> Result<PathBuf> {
        let store = self.with("parts", &["second"])?;
        for (digest, bytes) in &self.scene.first.blobs {
            if !blob(&store, digest).exists() {
                fs::write(part(&store, digest), &bytes[..bytes.len() / 2])?;
            }
        }
        Ok(store)
    }

    /// With most of the largest layer and of the manifest cut off.
    fn damaged(&self) -> Result<(PathBuf, [Digest; 2])> {
        let store = self.with("damaged", &["first"])?;
        let one = &self.scene.first.platforms[0];
        let largest = one.layers.iter().max_by_key(|layer| layer.size).ok_or_else(|| Message("the image has no layers".into()))?;
        let wrong = [largest.digest, one.manifest.digest];
        for digest in &wrong {
            let bytes = fs::read(blob(&store, digest))?;
            fs::remove_file(blob(&store, digest))?;
            fs::write(blob(&store, digest), &bytes[..10])?;
        }
        Ok((store, wrong))
    }

    /// A pull by a tag that means another image than when it was pinned: there are two pins then, and the newer one answers.
    fn moved(&self) -> Result<Operation> {
        let (scene, start) = (self.scene, self.folder.join("moved"));
        scene.serve(&scene.first, "moved");
        scene.must(&start, &scene.pull("moved"))?;
        scene.serve(&scene.second, "moved");
        let (old, new) = (scene.held("moved", &[&scene.first]), scene.held("moved", &[&scene.second]));
        let operation = Operation::of("pull of a tag that moved", start, &scene.pull("moved"));
        Ok(operation.during(vec![old.clone()]).after(vec![old, new]))
    }

    /// With everything that `prune` takes: an image that was not used for long, a blob that no image needs, an old part, a file that a killed
    /// process was writing.
    fn old(&self) -> Result<PathBuf> {
        let store = self.with("old", &["first", "second"])?;
        let root = self.scene.first.root.digest.hex();
        let unneeded = Digest::of(b"unneeded");
        fs::write(blob(&store, &unneeded), b"unneeded")?;
        fs::write(part(&store, &Digest::of(b"part")), b"pa")?;
        fs::write(store.join("ingest/0123456789abcdef.tmp"), b"{")?;
        let pins = judge::files(&store.join("pins"))?.into_iter().filter(|path| path.to_string_lossy().contains(&root));
        for path in pins.chain([part(&store, &Digest::of(b"part"))]) {
            File::options().write(true).open(path)?.set_modified(SystemTime::now() - LONG_AGO)?;
        }
        Ok(store)
    }
}

fn blob(store: &Path, digest: &Digest) -> PathBuf {
    store.join("blobs/sha256").join(digest.hex())
}

fn part(store: &Path, digest: &Digest) -> PathBuf {
    store.join("ingest").join(format!("{}.part", digest.hex()))
}

impl Operation {
    /// Which ends well, and if it was interrupted is run once more.
    fn of(name: &'static str, start: PathBuf, arguments: &[String]) -> Operation {
        let (arguments, then) = (arguments.to_vec(), vec![(arguments.to_vec(), &[0][..])]);
        Operation { name, start, arguments, code: 0, then, during: vec![], after: vec![], damaged: vec![] }
    }

    fn ends(self, code: i32) -> Operation {
        Operation { code, ..self }
    }

    fn then(self, then: &[(&[String], &'static [i32])]) -> Operation {
        Operation { then: then.iter().map(|(arguments, codes)| (arguments.to_vec(), *codes)).collect(), ..self }
    }

    fn during(self, during: Vec<Held>) -> Operation {
        Operation { during, ..self }
    }

    fn after(self, after: Vec<Held>) -> Operation {
        Operation { after, ..self }
    }

    fn damaged(self, damaged: &[Digest]) -> Operation {
        Operation { damaged: damaged.to_vec(), ..self }
    }
}
