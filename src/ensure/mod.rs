//! The main line: an image into engines, and the proof that it is there.
//!
//! ```text
//! parse     text         -> Reference
//! resolve   Reference    -> Descriptor    the pin; or the registry, and then pinned
//! describe  Descriptor   -> Image         manifests first, they name the rest
//! ask       Engine       -> does it hold the pin? then report
//! plan      Image        -> Plan          what the store lacks; plain data
//! fetch     Plan         -> blobs         stream, hash, compare, sync, name
//! ask       Engine       -> Lacking       which layers it lacks; plain data
//! load      Lacking      -> the engine    hashed again on the way out; one reading for all engines
//! prove     Engine, Pin  -> proof
//! report
//! ```
//!
//! Always true: an image is reported as held only after the engine was asked and showed it, whatever it
//! answered to the load; and an engine that fails or takes long keeps the others from nothing.

mod relatives;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;

use crate::digest::Digest;
use crate::engine::proof::{self, Proof, Standing};
use crate::engine::{Engine, EngineError, Parcel, Seat, Shown};
use crate::event::Event;
use crate::oci::{Image, Platform};
use crate::pin::Pin;
use crate::plan::{Lacking, Plan};
use crate::pull::{Cache, Platforms, PullError, Pulled, TagNow, Unpinned, Want};
use crate::reference::{Name, Reference, Repository};
use crate::store::{Shared, Store, StoreError};

/// An image that an engine is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What it is asked for by.
    pub reference: Reference,
    /// The name it is to bear.
    pub name: Name,
    /// For which platform; the engine's if not said.
    pub platform: Option<Platform>,
    /// Other repositories that may have it.
    pub from: Vec<Repository>,
    /// What to do when there is no digest, or the digest cannot be had.
    pub unpinned: Unpinned,
}

/// What became of an image in an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was pinned, with every identity.
    pub pin: Pin,
    /// What was done.
    pub done: Done,
    /// How it was proved that the engine holds it.
    pub proof: Proof,
    /// A reference that works offline in this very engine.
    pub usable: String,
    /// How many bytes came over the network.
    pub fetched: u64,
    /// How many bytes were sent to the engine.
    pub sent: u64,
    /// The layers that were sent, and those that the engine had; `None` where nothing was sent.
    pub lacked: Option<Lacking>,
    /// What the tag points to now, where a registry was asked.
    pub tag_now: Option<TagNow>,
}

/// What was done to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Nothing: it held the image.
    Held,
    /// The image was loaded; the name was free.
    Loaded,
    /// The image was loaded; the name was that of another image, or of an incomplete one.
    Replaced(Box<Shown>),
}

/// How an engine stands to a pin, and what it shows under the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The pin that was compared.
    pub pin: Pin,
    /// What came of it.
    pub standing: Standing,
    /// What the engine shows under that name, if anything.
    pub shown: Option<Shown>,
    /// The pin that the engine's image answers to, where it is another one of this store's.
    pub mistaken_for: Option<Box<Pin>>,
    /// A reference that works offline in this very engine, when it holds the pin.
    pub usable: Option<String>,
}

/// What `ensure` would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// How the engine stands to the image now; `None` where nothing is pinned yet, so nothing can be compared.
    pub checked: Option<Checked>,
    /// The image, what the store lacks of it and what the engine lacks of it; `None` when the engine holds it already.
    pub image: Option<(Box<Image>, Plan, Lacking)>,
}

/// An image on its way into an engine.
enum Brought {
    /// The engine holds it.
    Held(Box<Report>),
    /// It is in the store, and the engine lacks it.
    Order(Box<Order>),
}

/// Told what became of an image in each of several engines, by the engine's place among them, as soon as it is known.
pub type Told<'a> = dyn Fn(usize, Result<Report>) + Sync + 'a;

/// An image that is in the store and that an engine lacks.
struct Order {
    /// Held until the image is in the engine: what is on its way there is not removed.
    counted_on: Shared,
    pulled: Pulled,
    before: Option<Shown>,
    lacking: Lacking,
}

/// An image did not get into an engine, or could not be proved to be there.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// It did not get into the store.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It is whole in the store, and nothing that an engine takes.
    #[error("{name} is no container image but an artifact of the kind {kind}")]
    Artifact {
        /// Its name.
        name: Name,
        /// What kind of artifact it is: a media type.
        kind: String,
    },
    /// The engine answered that it loaded the image, and does not have it.
    #[error("{engine} loaded {name} but does not hold what was pinned")]
    NotProved {
        /// The engine.
        engine: String,
        /// The name.
        name: Name,
        /// The pin.
        pin: Box<Pin>,
        /// What the engine shows under the name.
        found: Option<Box<Shown>>,
    },
    /// There is no pin to compare with.
    #[error("{reference} is not in the store, so there is nothing to compare with")]
    NotPinned {
        /// The reference.
        reference: Reference,
        /// The platform that was looked for.
        platform: Platform,
        /// Platforms of it that are pinned.
        offered: Vec<Platform>,
    },
}

/// What comes of asking for an image in an engine.
pub type Result<T> = std::result::Result<T, EnsureError>;

impl Cache<'_> {
    /// Makes sure that the engine holds the image under its name: pulls what is missing, loads what the engine
    /// lacks, and proves it.
    pub async fn ensure(&self, wish: &Wish, engine: &dyn Engine) -> Result<Report> {
        let told = Mutex::new(None);
        self.ensure_each(wish, &[engine], &|_, done| *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(done)).await;
        told.into_inner().unwrap_or_else(PoisonError::into_inner).expect("of every engine it is told what was done")
    }

    /// [`Cache::ensure`] for several engines at once: the store is read once for all that lack the image.
    pub async fn ensure_each(&self, wish: &Wish, engines: &[&dyn Engine], done: &Told<'_>) {
        let compared = engines.iter().map(|engine| self.compare(&wish.reference, &wish.name, wish.platform.as_ref(), *engine));
        let compared = join_all(compared).await;
        let mut orders = Vec::new();
        // One after the other: what one engine's image needs is there for the next.
        for (place, compared) in compared.into_iter().enumerate() {
            match self.bring(wish, engines[place], compared).await {
                Ok(Brought::Held(report)) => done(place, Ok(*report)),
                Ok(Brought::Order(order)) => orders.push((place, order)),
                Err(error) => done(place, Err(error)),
            }
        }
        let seats = Seat::at_one_reading(orders.len());
        let delivered = orders.iter().zip(seats).map(async |((place, order), seat)| {
            done(*place, self.deliver(wish, engines[*place], order, seat).await);
        });
        join_all(delivered).await;
    }

    /// Brings the image into the store, unless the engine holds it.
    async fn bring(&self, wish: &Wish, engine: &dyn Engine, compared: Result<(Option<Checked>, Platform)>) -> Result<Brought> {
        let (compared, platform) = compared?;
        if let Some(Checked { standing: Standing::Held(proof), pin, usable, shown, .. }) = compared {
            self.store.used(&pin);
            if let Some(shown) = shown {
                // What cannot be taken away now is no reason to fail; the next run finds it again.
                let _ = engine.tidy(&pin.name, &shown).await;
            }
            return Ok(Brought::Held(Box::new(report(pin, Done::Held, proof, usable, None))));
        }
        let known = compared.as_ref().map(|c| &c.pin);
        let counted_on = self.count_on().await?;
        let pulled = match known {
            Some(pin) if pin.unproved => self.imported(wish, pin)?,
            _ => self.pull_under(&counted_on, &want(wish, &platform, known)).await?,
        };
        let (pin, image) = one(&pulled);
        image_or_refuse(pin)?;
        self.store.used(pin);
        let before = match compared {
            // Without a network nothing was fetched since it was asked.
            Some(checked) if self.upstream.is_none() && checked.pin == *pin => checked,
            _ => self.ask(pin, engine).await?,
        };
        if let Standing::Held(proof) = before.standing {
            return Ok(Brought::Held(Box::new(report(pin.clone(), Done::Held, proof, before.usable, Some((&pulled, 0))))));
        }
        let lacking = self.lacking(image, before.shown.as_ref(), engine).await?;
        Ok(Brought::Order(Box::new(Order { counted_on, pulled, before: before.shown, lacking })))
    }

    /// Loads what the engine lacks. Where that will not do, since what it had is gone or was not what it needs, it is sent all.
    async fn deliver(&self, wish: &Wish, engine: &dyn Engine, order: &Order, seat: Seat) -> Result<Report> {
        let done = self.load(wish, engine, order, &order.lacking, seat).await;
        let why = match done {
            Err(EnsureError::Engine(EngineError::NotLoaded { ref said, .. })) => said.clone(),
            Err(EnsureError::NotProved { .. }) => "it loaded something else".to_owned(),
            done => return done,
        };
        if order.lacking.held.is_empty() {
            return done;
        }
        let (pin, image) = one(&order.pulled);
        (self.tell)(Event::LoadRefused { engine: engine.about().kind.to_string(), name: pin.name.clone(), why });
        self.load(wish, engine, order, &Lacking::new(image, &BTreeSet::new()), Seat::alone()).await
    }

    async fn load(&self, wish: &Wish, engine: &dyn Engine, order: &Order, lacking: &Lacking, seat: Seat) -> Result<Report> {
        let (pin, _) = one(&order.pulled);
        let sent = self.load_healing(wish, engine, order, &lacking.without(), seat).await?;
        let after = self.ask(pin, engine).await?;
        let Standing::Held(proof) = after.standing else { return Err(not_proved(engine, pin, after)) };
        let done = order.before.clone().map_or(Done::Loaded, |shown| Done::Replaced(Box::new(shown)));
        let report = report(pin.clone(), done, proof, after.usable, Some((&order.pulled, sent)));
        Ok(Report { lacked: Some(lacking.clone()), ..report })
    }

    /// What [`Cache::ensure`] would do with one engine, without doing it.
    pub async fn intend(&self, wish: &Wish, engine: &dyn Engine) -> Result<Intent> {
        let (checked, platform) = self.compare(&wish.reference, &wish.name, wish.platform.as_ref(), engine).await?;
        if let Some(Checked { standing: Standing::Held(_), .. }) = checked {
            return Ok(Intent { checked, image: None });
        }
        let known = checked.as_ref().map(|c| &c.pin);
        let (images, plan) = match known {
            Some(pin) if pin.unproved => self.imported(wish, pin).map(|pulled| (pulled.images, pulled.plan))?,
            _ => self.plan(&want(wish, &platform, known)).await?,
        };
        let Some(image) = images.into_iter().next() else { return Ok(Intent { checked, image: None }) };
        let shown = match &checked {
            Some(checked) => checked.shown.clone(),
            None => engine.inspect(&wish.name).await?,
        };
        let lacking = self.lacking(&image, shown.as_ref(), engine).await?;
        Ok(Intent { checked, image: Some((Box::new(image), plan, lacking)) })
    }

    async fn lacking(&self, image: &Image, shown: Option<&Shown>, engine: &dyn Engine) -> Result<Lacking> {
        let relatives = relatives::relatives(self.store, image)?;
        Ok(engine.lacks(image, shown, &relatives).await?)
    }

    /// Asks whether the engine holds what is pinned. Changes nothing and needs no network.
    pub async fn check(&self, reference: &Reference, name: &Name, platform: Option<&Platform>, engine: &dyn Engine) -> Result<Checked> {
        let (checked, platform) = self.compare(reference, name, platform, engine).await?;
        match checked {
            Some(checked) => Ok(checked),
            None => {
                let offered = self.store.find(reference, None)?.into_iter().map(|p| p.platform).collect();
                Err(EnsureError::NotPinned { reference: reference.clone(), platform, offered })
            }
        }
    }

    /// Compares what is pinned with what the engine shows; nothing where nothing is pinned for the platform, which comes with it.
    ///
    /// Where no platform is asked for it is the engine's. The engine is not asked for it if it holds the only platform that is
    /// pinned: it may take longer to tell than all the rest.
    async fn compare(
        &self,
        reference: &Reference,
        name: &Name,
        platform: Option<&Platform>,
        engine: &dyn Engine,
    ) -> Result<(Option<Checked>, Platform)> {
        let mut asked = None;
        if platform.is_none()
            && let Some(pin) = self.known_for_one_platform(reference, name)?
        {
            image_or_refuse(&pin)?;
            let checked = self.ask(&pin, engine).await?;
            if let Standing::Held(_) = checked.standing {
                return Ok((Some(checked), pin.platform));
            }
            asked = Some(checked);
        }
        let platform = match platform {
            Some(platform) => platform.clone(),
            None => engine.platform().await?,
        };
        let checked = match (self.known(reference, name, &platform)?, asked) {
            (Some(pin), Some(asked)) if asked.pin == pin => Some(asked),
            (Some(pin), _) => Some(self.ask(&pin, engine).await?),
            (None, _) => None,
        };
        Ok((checked, platform))
    }

    /// An image that came from a file and that no registry is known to have: there is nothing to pull it by.
    fn imported(&self, wish: &Wish, pin: &Pin) -> Result<Pulled> {
        let images = vec![pin.image()];
        let plan = Plan::new(&images, self.store);
        if plan.missing.is_empty() {
            return Ok(Pulled { pins: vec![pin.clone()], images, plan, fetched: 0, tag_now: None, left_out: Vec::new() });
        }
        let (reference, Plan { present, missing, .. }) = (wish.reference.clone(), plan);
        self.store.missing_not_damaged(&missing)?;
        Err(PullError::Incomplete { reference, present, missing }.into())
    }

    async fn ask(&self, pin: &Pin, engine: &dyn Engine) -> Result<Checked> {
        let shown = engine.inspect(&pin.name).await?;
        let mut standing = proof::prove(pin, shown.as_ref(), None);
        if standing == Standing::Another {
            // Only now is the config read: an engine may have rewritten the manifest and kept the content.
            let config = self.store.document(&pin.config.digest)?;
            standing = proof::prove(pin, shown.as_ref(), config.as_ref());
        }
        let mistaken_for = match (&standing, &shown) {
            (Standing::Another, Some(shown)) => pinned_as(self.store, pin, shown)?.map(Box::new),
            _ => None,
        };
        let usable = match (&standing, &shown) {
            // A digest that no registry has is nothing to name an image by.
            (Standing::Held(_), Some(_)) if pin.unproved => Some(pin.name.to_string()),
            (Standing::Held(_), Some(shown)) => Some(engine.usable(pin, shown)),
            _ => None,
        };
        Ok(Checked { pin: pin.clone(), standing, shown, mistaken_for, usable })
    }

    /// Loads the image. A blob that turns out damaged on its way out was set aside by then: with a network it is fetched
    /// again, and the load tried once more.
    async fn load_healing(&self, wish: &Wish, engine: &dyn Engine, order: &Order, held: &BTreeSet<Digest>, seat: Seat) -> Result<u64> {
        let (pin, image) = one(&order.pulled);
        let parcel = |seat| Parcel { store: self.store, image, name: &pin.name, held, seat };
        match engine.load(parcel(seat), self.tell).await {
            Err(error) if error.damaged().is_some() && self.upstream.is_some() && !pin.unproved => {
                self.pull_under(&order.counted_on, &want(wish, &pin.platform, Some(pin))).await?;
                Ok(engine.load(parcel(Seat::alone()), self.tell).await?)
            }
            other => Ok(other?),
        }
    }
}

/// The wish as a pull understands it; a pin that is known already is not asked for again by its tag.
fn want(wish: &Wish, platform: &Platform, known: Option<&Pin>) -> Want {
    let reference = match (wish.reference.digest(), known) {
        (None, Some(pin)) => wish.reference.pinned_to(pin.root.digest),
        _ => wish.reference.clone(),
    };
    let platforms = Platforms::These(vec![platform.clone()]);
    Want { reference, name: wish.name.clone(), platforms, from: wish.from.clone(), unpinned: wish.unpinned, referrers: false }
}

fn image_or_refuse(pin: &Pin) -> Result<()> {
    match &pin.artifact {
        Some(kind) => Err(EnsureError::Artifact { name: pin.name.clone(), kind: kind.clone() }),
        None => Ok(()),
    }
}

fn one(pulled: &Pulled) -> (&Pin, &Image) {
    (&pulled.pins[0], &pulled.images[0])
}

/// The pin that what an engine shows answers to: another digest under the same tag, or another platform.
fn pinned_as(store: &Store, not: &Pin, shown: &Shown) -> Result<Option<Pin>> {
    let others = store.find(&not.name.to_reference(), None)?;
    Ok(others.into_iter().find(|pin| matches!(proof::prove(pin, Some(shown), None), Standing::Held(_))))
}

fn not_proved(engine: &dyn Engine, pin: &Pin, after: Checked) -> EnsureError {
    let engine = engine.about().kind.to_string();
    EnsureError::NotProved { engine, name: pin.name.clone(), pin: Box::new(pin.clone()), found: after.shown.map(Box::new) }
}

fn report(pin: Pin, done: Done, proof: Proof, usable: Option<String>, pulled: Option<(&Pulled, u64)>) -> Report {
    let usable = usable.unwrap_or_else(|| pin.name.to_string());
    let (fetched, sent, tag_now) = pulled.map_or((0, 0, None), |(pulled, sent)| (pulled.fetched, sent, pulled.tag_now));
    Report { pin, done, proof, usable, fetched, sent, lacked: None, tag_now }
}
