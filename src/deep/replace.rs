//! A damaged image, taken out of its engine and loaded again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Damage, DeepError, Examination, Level, Result, want};
use crate::archive::{Archive, Layers, Parts};
use crate::engine::{Engine, EngineError, Keepers, Shown, Unpacked};
use crate::ensure::{Report, Wish};
use crate::pin::Pin;
use crate::pull::{Cache, Want};

/// Who needs layers that are damaged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Obstacles {
    /// Containers that were made of the image.
    pub containers: Vec<String>,
    /// Other images that have the layers.
    pub images: Vec<String>,
}

/// What became of an image that was to be whole in an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// What was done last, and the proof.
    pub report: Report,
    /// What examining it said in the end.
    pub examination: Examination,
    /// What was taken out before; `None` if nothing had to be.
    pub taken_out: Option<TakenOut>,
}

/// What was taken out of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOut {
    /// The damage that was the reason; none where the engine's files could not be looked at.
    pub damage: Vec<Damage>,
    /// The image's other names, which it has again.
    pub names: Vec<String>,
    /// References by digest that the engine knew it by, and does not any more.
    pub lost: Vec<String>,
}

/// What would be taken out of an engine, and what stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// What examining the image said.
    pub examination: Examination,
    /// The names the image has.
    pub names: Vec<String>,
    /// Who needs the damaged layers.
    pub obstacles: Obstacles,
}

impl Cache<'_> {
    /// Makes sure that the engine holds the image and that what it unpacked is whole: an image that is damaged, or that cannot be
    /// looked at, is taken out and loaded again.
    pub async fn replace(&self, wish: &Wish, engine: &dyn Engine) -> Result<Mended> {
        let report = self.ensure(wish, engine).await?;
        let (shown, examination) = self.look(&report.pin, engine).await?;
        if examination.level == Level::Deep {
            return Ok(Mended { report, examination, taken_out: None });
        }
        let pin = report.pin;
        let keepers = keepers(&shown, &examination, engine).await?;
        let obstacles = Obstacles { containers: keepers.containers.clone(), images: keepers.images.clone() };
        if obstacles != Obstacles::default() {
            return Err(DeepError::InUse { engine: engine.about().kind.to_string(), name: pin.name.to_string(), obstacles });
        }
        self.is_sure_of(wish, &pin).await?;
        let folders = damaged_folders(engine.unpacked(&shown).await?, &examination);
        engine.take_out(&shown, &keepers).await?;
        let folders: Vec<PathBuf> = folders.into_iter().filter(|folder| folder.exists()).collect();
        if !folders.is_empty() {
            return Err(DeepError::Kept { engine: engine.about().kind.to_string(), name: pin.name.to_string(), folders });
        }
        let report = self.ensure(wish, engine).await?;
        let names: Vec<String> = keepers.names.into_iter().filter(|name| !is_called(&pin, name)).collect();
        engine.give_names(&pin.name, &names).await?;
        let (shown, after) = self.look(&pin, engine).await?;
        if !after.is_whole() {
            let (engine, name) = (engine.about().kind.to_string(), pin.name.to_string());
            return Err(DeepError::Damaged { engine, name, damage: after.damage });
        }
        let now = shown.raw["RepoDigests"].to_string();
        let lost = keepers.digests.into_iter().filter(|digest| !now.contains(digest)).collect();
        Ok(Mended { report, examination: after, taken_out: Some(TakenOut { damage: examination.damage, names, lost }) })
    }

    /// What [`Cache::replace`] would take out of an engine; nothing where the image is not held or is whole.
    pub async fn foresee(&self, wish: &Wish, engine: &dyn Engine) -> Result<Option<Foreseen>> {
        let checked = self.check(&wish.reference, &wish.name, wish.platform.as_ref(), engine).await?;
        let examination = self.examine(&checked, engine).await?;
        let (Some(shown), Some(examination)) = (checked.shown, examination) else { return Ok(None) };
        if examination.level == Level::Deep {
            return Ok(None);
        }
        let Keepers { names, images, containers, .. } = keepers(&shown, &examination, engine).await?;
        Ok(Some(Foreseen { examination, names, obstacles: Obstacles { containers, images } }))
    }

    /// What the engine shows under the pin's name, which was just proved, examined.
    async fn look(&self, pin: &Pin, engine: &dyn Engine) -> Result<(Shown, Examination)> {
        let checked = self.check(&pin.pinned(), &pin.name, Some(&pin.platform), engine).await?;
        let examination = self.examine(&checked, engine).await?;
        match (checked.shown, examination) {
            (Some(shown), Some(examination)) => Ok((shown, examination)),
            // Somebody moved the name in the moment between.
            (shown, _) => Err(crate::ensure::EnsureError::NotProved {
                engine: engine.about().kind.to_string(),
                name: pin.name.clone(),
                pin: Box::new(pin.clone()),
                found: shown.map(Box::new),
            }
            .into()),
        }
    }

    /// Reads all of the image in the store, and brings what is missing or damaged where there is a network: what is taken out of
    /// an engine can be put back.
    async fn is_sure_of(&self, wish: &Wish, pin: &Pin) -> Result<()> {
        for last in [false, true] {
            let image = match pin.unproved {
                true => pin.image(),
                false => self.pull(&Want { from: wish.from.clone(), ..want(pin) }).await?.images[0].clone(),
            };
            let (store, name) = (self.store.clone(), pin.name.clone());
            let reading = tokio::task::spawn_blocking(move || {
                let archive = Archive::new(&store, &image, &name, &Parts::all(Layers::AsStored)).map_err(Arc::new);
                archive.and_then(|archive| archive.write_to(&mut io::sink()))
            });
            let Err(error) = reading.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())) else { return Ok(()) };
            let error = EngineError::from(error);
            // What is damaged was set aside, and is fetched again.
            if last || error.damaged().is_none() || self.upstream.is_none() {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Who has the damaged layers. Where it is not known what is damaged, all of them may be.
async fn keepers(shown: &Shown, examination: &Examination, engine: &dyn Engine) -> Result<Keepers> {
    let lowest = examination.damage.first().map_or(0, |damage| damage.place);
    Ok(engine.keepers(shown, lowest).await?)
}

fn damaged_folders(unpacked: Unpacked, examination: &Examination) -> Vec<PathBuf> {
    match unpacked {
        Unpacked::Folders(folders) if examination.out_of_reach.is_none() => {
            examination.damage.iter().filter_map(|damage| folders.get(damage.place).cloned()).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a load gives this name by itself.
fn is_called(pin: &Pin, name: &str) -> bool {
    let by_digest = format!("{}@{}", pin.name.repository(), pin.root.digest);
    name == pin.name.to_string() || name == pin.name.familiar() || name == by_digest
}
