//! What engines unpacked: examined, and replaced where it is damaged.
//!
//! ```text
//! ask       Engine       -> does it hold the pin, by identity or content?
//! examine   Pin, Engine  -> what it unpacked, against the layers in the store
//! sure      Image        -> the store has it whole, every byte hashed
//! take out  Engine       -> the damaged image, if nobody else needs its layers
//! ensure    Pin, Engine  -> loaded and proved
//! examine   Pin, Engine  -> whole
//! ```
//!
//! An engine shows the same identity for an image whose unpacked files were damaged, by a power cut or a hand, and loading the image again
//! does not heal it, since the engine believes that it has the layers. Always true: examining changes nothing; nothing is taken out
//! before it is known that the store can bring it back and that no container and no other image needs it; what was asked for
//! and not reached is said.

mod replace;

use std::path::PathBuf;

use serde::Serialize;

use crate::digest::Digest;
use crate::engine::proof::{Proof, Standing};
use crate::engine::{Engine, EngineError, IdOf, OutOfReach, Shown, Unpacked, within_reach};
use crate::ensure::{Checked, EnsureError};
use crate::examine::{Examined, LayerError, compare_layer};
use crate::oci::Image;
use crate::pin::Pin;
use crate::pull::{Cache, Platforms, PullError, Unpinned, Want};
use crate::store::{Store, StoreError};

pub use replace::{Foreseen, Mended, Obstacles, TakenOut};

/// How much was proved of an image in an engine, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The engine shows one of the pin's digests.
    Identity,
    /// Config and layers were compared: by what the engine shows of them, or by the archive that it makes of them.
    Content,
    /// Every file that the engine unpacked was compared with the layers.
    Deep,
}

/// What came of examining an image that an engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// What was proved. Where damage was found, what had been proved before.
    pub level: Level,
    /// Why the engine's files were not compared; `None` if they were.
    pub out_of_reach: Option<OutOfReach>,
    /// Whether the archive that the engine makes of the image was compared.
    pub exported: bool,
    /// How many layers were compared with files.
    pub layers: usize,
    /// How many entries these layers have.
    pub entries: u64,
    /// How many bytes of files were compared.
    pub bytes: u64,
    /// The damaged layers, from the base up.
    pub damage: Vec<Damage>,
}

/// A layer that the engine does not have as it was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its place in the image, counted from the base, from 0.
    pub place: usize,
    /// The digest of the unpacked layer.
    pub diff_id: Digest,
    /// What is wrong with it.
    pub harm: Harm,
}

/// What is wrong with a layer in an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// These files are not as the layer has them.
    Files(Examined),
    /// The folder it was unpacked into is gone.
    Folder(PathBuf),
    /// It is not in the archive that the engine makes of the image, or not with these bytes.
    Export,
}

/// An image in an engine could not be examined, or not mended.
#[derive(Debug, thiserror::Error)]
pub enum DeepError {
    /// It could not be brought there, or not be proved.
    #[error(transparent)]
    Ensure(#[from] EnsureError),
    /// A layer could not be compared.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Something else needs what would have to be taken out.
    #[error("{name} is damaged in {engine}, and what is damaged is in use")]
    InUse {
        /// The engine.
        engine: String,
        /// The name.
        name: String,
        /// Who needs it.
        obstacles: Obstacles,
    },
    /// It was taken out, and the engine has parts of it still.
    #[error("{engine} keeps layers of {name} though nothing needs them")]
    Kept {
        /// The engine.
        engine: String,
        /// The name.
        name: String,
        /// The folders that are still there.
        folders: Vec<PathBuf>,
    },
    /// It is damaged though it was taken out and loaded again.
    #[error("{engine} has {name} damaged though it was just loaded")]
    Damaged {
        /// The engine.
        engine: String,
        /// The name.
        name: String,
        /// The damage.
        damage: Vec<Damage>,
    },
}

impl From<EngineError> for DeepError {
    fn from(error: EngineError) -> DeepError {
        DeepError::Ensure(error.into())
    }
}

impl From<PullError> for DeepError {
    fn from(error: PullError) -> DeepError {
        DeepError::Ensure(error.into())
    }
}

impl From<StoreError> for DeepError {
    fn from(error: StoreError) -> DeepError {
        DeepError::Ensure(error.into())
    }
}

type Result<T> = std::result::Result<T, DeepError>;

impl Examination {
    /// Whether nothing that was looked at is damaged.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Cache<'_> {
    /// Examines an image that was found held: compares what the engine unpacked with the layers in the store. Nothing where it is not
    /// held. Changes nothing and needs no network.
    ///
    /// Where the engine's files are out of reach, and where it keeps the blobs besides, it is asked for its own archive of the image
    /// instead, for which it reads its files again. That finds damaged content, but nothing that was added, and no changed permissions.
    pub async fn examine(&self, checked: &Checked, engine: &dyn Engine) -> Result<Option<Examination>> {
        let (Standing::Held(proof), Some(shown)) = (&checked.standing, &checked.shown) else { return Ok(None) };
        let mut examination = self.examine_files(&checked.pin, *proof, shown, engine).await?;
        // Docker 25 to 28 with the classic image store never frees layers again that it once made an archive of, so that is
        // asked for only where there is no better way.
        let keeps_blobs = shown.id_of == IdOf::Target;
        if (examination.out_of_reach.is_some() || keeps_blobs) && examination.is_whole() {
            self.examine_export(&checked.pin, engine, &mut examination).await?;
        }
        Ok(Some(examination))
    }

    async fn examine_files(&self, pin: &Pin, proof: Proof, shown: &Shown, engine: &dyn Engine) -> Result<Examination> {
        let level = match proof {
            Proof::Identity(_) => Level::Identity,
            Proof::Content => Level::Content,
        };
        let mut examination =
            Examination { level, out_of_reach: None, exported: false, layers: 0, entries: 0, bytes: 0, damage: Vec::new() };
        let folders = match engine.unpacked(shown).await? {
            Unpacked::Folders(folders) => folders,
            Unpacked::OutOfReach(why) => return Ok(Examination { out_of_reach: Some(why), ..examination }),
        };
        let image = match self.stored_image(pin).await? {
            (Some(image), 0) => image,
            (_, missing) => return Ok(Examination { out_of_reach: Some(OutOfReach::NotInStore { layers: missing }), ..examination }),
        };
        if let Some(why) = within_reach(&folders) {
            return Ok(Examination { out_of_reach: Some(why), ..examination });
        }
        examination.layers = folders.len();
        let store = self.store.clone();
        let compared = tokio::task::spawn_blocking(move || compare_layers(&store, &image, &folders, examination));
        let examination = compared.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        let level = if examination.is_whole() { Level::Deep } else { level };
        Ok(Examination { level, ..examination })
    }

    async fn examine_export(&self, pin: &Pin, engine: &dyn Engine, examination: &mut Examination) -> Result<()> {
        let found = engine.exported(&pin.name).await?;
        let (image, _) = self.stored_image(pin).await?;
        // Some engines put the layers into the archive as they unpacked them, others the blobs as they came.
        let blobs: Vec<Digest> = image.iter().flat_map(|image| &image.layers).map(|layer| layer.digest).collect();
        let is_there = |place: usize, diff_id: &Digest| found.contains(diff_id) || blobs.get(place).is_some_and(|b| found.contains(b));
        let missing = pin.diff_ids.iter().enumerate().filter(|(place, diff_id)| !is_there(*place, diff_id));
        examination.damage = missing.map(|(place, diff_id)| Damage { place, diff_id: *diff_id, harm: Harm::Export }).collect();
        examination.exported = true;
        if examination.is_whole() {
            examination.level = examination.level.max(Level::Content);
        }
        Ok(())
    }

    /// A pin's image, and how many of its blobs the store lacks. One that no registry is known to have is what the pin says.
    async fn stored_image(&self, pin: &Pin) -> Result<(Option<Image>, usize)> {
        if pin.unproved {
            let image = pin.image();
            let missing = image.blobs().into_iter().filter(|blob| !self.store.has(blob)).count();
            return Ok((Some(image), missing));
        }
        let (images, plan) = self.offline().plan(&want(pin)).await?;
        Ok((images.into_iter().next(), plan.missing.len()))
    }

    fn offline(&self) -> Cache<'_> {
        Cache { upstream: None, ..*self }
    }
}

/// Compares every layer with its folder, one after the other.
fn compare_layers(store: &Store, image: &Image, folders: &[PathBuf], mut sum: Examination) -> Result<Examination> {
    let layers = image.layers.iter().zip(&image.diff_ids).zip(folders);
    for (place, ((layer, diff_id), folder)) in layers.enumerate() {
        if !folder.exists() {
            sum.damage.push(Damage { place, diff_id: *diff_id, harm: Harm::Folder(folder.clone()) });
            continue;
        }
        let examined = compare_layer(store, layer, diff_id, folder)?;
        sum.entries += examined.entries;
        sum.bytes += examined.bytes;
        if !examined.is_same() {
            sum.damage.push(Damage { place, diff_id: *diff_id, harm: Harm::Files(examined) });
        }
    }
    Ok(sum)
}

fn want(pin: &Pin) -> Want {
    Want {
        reference: pin.pinned(),
        name: pin.name.clone(),
        platforms: Platforms::These(vec![pin.platform.clone()]),
        from: Vec::new(),
        unpinned: Unpinned::Refuse,
        referrers: false,
    }
}
