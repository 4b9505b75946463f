//! What one run of the command works with: settings, screen, store, engines, registries.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder::engine::{self, Engine};
use larder::oci::Platform;
use larder::reference::{Name, Reference, Repository};
use larder::store::Store;
use larder::upstream;

use super::args::{self, EngineName, Global};
use super::display::Screen;
use super::failure::{Exit, Failure};
use super::settings::{Settings, variable};

/// How long an engine may take to answer where several are looked at.
pub(crate) const SHORT: Duration = Duration::from_secs(5);

/// One run of the command.
pub(crate) struct Session<'a> {
    pub(crate) settings: Settings,
    pub(crate) screen: &'a Screen,
}

/// An engine that was asked for: connected, none wanted, or what is wrong with it.
pub(crate) enum Chosen {
    Engine(Box<dyn Engine>),
    None,
}

impl Session<'_> {
    pub(crate) fn open<'a>(global: &Global, screen: &'a Screen) -> Result<Session<'a>, Failure> {
        Ok(Session { settings: Settings::read(global)?, screen })
    }

    /// Runs the main line to its end.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|e| Failure::new(Exit::Failed, "runtime", "the system gives no means to wait for input").with("it said", e))?;
        let done = runtime.block_on(work);
        // A thread that still writes must not keep a failed run from ending; what it leaves is a part.
        runtime.shutdown_background();
        done
    }

    pub(crate) fn store(&self) -> Result<Store, Failure> {
        Store::open(&self.settings.store).map_err(|e| Failure::from(&e))
    }

    /// The door to the registries; `None` is offline.
    pub(crate) fn upstream(&self, args: &args::Upstream) -> Result<Option<upstream::Upstream>, Failure> {
        if self.settings.offline {
            return Ok(None);
        }
        let file = &self.settings.file;
        let settings = upstream::Settings {
            insecure: args.insecure.iter().chain(&file.insecure).cloned().collect(),
            ca_files: args.ca_file.iter().chain(&file.ca_files).cloned().collect(),
            trusted_realms: file.trusted_realms.clone(),
            ..Default::default()
        };
        let _ = (Duration::from_secs(args.stall), args.tries, &args.creds, &args.authfile);
        upstream::Upstream::new(settings).map(Some).map_err(|e| Failure::from(&e))
    }

    /// The engines that were asked for, each once, in order.
    pub(crate) async fn engines(&self, args: &args::Engines) -> Vec<Result<Chosen, Failure>> {
        let environment = self.environment(Duration::from_secs(args.engine_timeout));
        let mut names: Vec<EngineName> = Vec::new();
        for name in &args.engines {
            if !names.contains(name) {
                names.push(*name);
            }
        }
        let mut chosen = Vec::new();
        for name in names {
            chosen.push(connect(name, &environment).await);
        }
        chosen
    }

    pub(crate) fn environment(&self, timeout: Duration) -> engine::Environment {
        let path = |name| variable(name).map(PathBuf::from);
        let _ = (timeout, path("DOCKER_CONFIG"), Path::new("/"));
        engine::Environment::default()
    }
}

async fn connect(name: EngineName, environment: &engine::Environment) -> Result<Chosen, Failure> {
    let choice = match name {
        EngineName::None => return Ok(Chosen::None),
        EngineName::Auto => engine::Choice::Auto,
        EngineName::Docker => engine::Choice::Docker,
        EngineName::Podman => engine::Choice::Podman,
    };
    engine::connect(&choice, environment).await.map(Chosen::Engine).map_err(|e| Failure::from(&e))
}

/// A reference as it was written on the command line.
pub(crate) fn reference(text: &str) -> Result<Reference, Failure> {
    let looks_like_a_file = text == "-" || text.starts_with(['/', '.']) || Path::new(text).is_file();
    if looks_like_a_file {
        return Err(Failure::new(Exit::Usage, "file", format!("`{text}` is a file, not an image reference"))
            .with("expected", "[host[:port]/]path[:tag][@sha256:…]"));
    }
    text.parse().map_err(|e| Failure::from(&e))
}

/// References with the names that their images are to bear. `--as` names one image only.
pub(crate) fn references(args: &args::References, naming: Option<&args::Naming>) -> Result<Vec<(Reference, Name)>, Failure> {
    let wanted = naming.and_then(|n| n.name.as_deref());
    if wanted.is_some() && args.references.len() > 1 {
        return Err(Failure::new(Exit::Usage, "as", "--as names one image, but several are asked for"));
    }
    let name: Option<Name> = wanted.map(|text| text.parse().map_err(|e| Failure::from(&e))).transpose()?;
    let one = |text: &String| {
        let reference = reference(text)?;
        let name = name.clone().unwrap_or_else(|| reference.name());
        Ok((reference, name))
    };
    args.references.iter().map(one).collect()
}

/// The repositories of `--from`; a tag or digest written there is of no account.
pub(crate) fn repositories(args: &args::Upstream) -> Result<Vec<Repository>, Failure> {
    args.from.iter().map(|text| Ok(reference(text)?.repository().clone())).collect()
}

/// The platform that people set for docker, else this machine's.
pub(crate) fn default_platform() -> Result<Platform, Failure> {
    match variable("DOCKER_DEFAULT_PLATFORM") {
        None => Ok(Platform::host()),
        Some(text) => text
            .parse()
            .map_err(|e| Failure::new(Exit::Usage, "platform", format!("{e}")).with("from", "the variable DOCKER_DEFAULT_PLATFORM")),
    }
}

pub(crate) fn not_in_store(session: &Session<'_>, reference: &Reference) -> Failure {
    Failure::new(Exit::NotThere, "not-in-store", format!("{reference} is not in the store"))
        .with("store", session.settings.store.display())
        .hint("`larder list` shows what is there")
}
