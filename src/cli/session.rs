//! What one run of the command works with: settings, screen, store, engines, registries.

use std::collections::HashSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder::engine::{self, Engine};
use larder::oci::Platform;
use larder::pin::Pin;
use larder::reference::{Name, Reference, Repository};
use larder::store::{Sizes, Store};
use larder::upstream::{self, Login, Upstream};

use super::args::{self, EngineName, Global};
use super::deadline::Deadline;
use super::display::Screen;
use super::failure::{Exit, Failure};
use super::settings::{self, Settings, variable};

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

    /// The store; made if there is none.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        Ok(self.patient(Store::open(&self.settings.store)?))
    }

    /// The store if there is one: who only asks makes none.
    pub(crate) fn existing_store(&self) -> Result<Option<Store>, Failure> {
        Ok(Store::open_existing(&self.settings.store)?.map(|store| self.patient(store)))
    }

    /// The store, waiting for other processes as long as was said, and saying so.
    fn patient(&self, store: Store) -> Store {
        let remark = self.screen.remarks();
        let store = store.with_lock_timeout(self.settings.lock_timeout);
        store.with_waiting(move |path, holder| {
            let who = holder.map_or("another process".to_owned(), |holder| format!("process {holder}"));
            remark(&format!("waiting for {who}, which holds {}", path.display()));
        })
    }

    /// Says of each image that it is not there, since there is no store.
    pub(crate) fn nothing_there(&self, references: &[(Reference, Name)]) -> Exit {
        for (reference, name) in references {
            self.screen.failure(serde_json::json!({ "reference": reference, "name": name }), &not_in_store(self, reference));
        }
        Exit::NotThere
    }

    /// The time that there is from now on: what was asked for, else what the settings file says.
    pub(crate) fn deadline(&self, args: &args::Registry) -> Deadline {
        Deadline::after(args.deadline.or(self.settings.file.deadline))
    }

    /// The door to the registries; `None` is offline.
    pub(crate) fn upstream(
        &self,
        args: &args::Registry,
        references: &[(Reference, Name)],
        deadline: Deadline,
    ) -> Result<Option<Upstream>, Failure> {
        let logins = logins(args, references)?;
        if self.settings.offline {
            return Ok(None);
        }
        let file = &self.settings.file;
        let mut settings = upstream::Settings {
            logins,
            credentials: self.settings.credentials(args.authfile.as_deref()),
            credential_files: self.settings.credential_files(args.authfile.as_deref()),
            insecure: args.insecure.iter().chain(&file.insecure).cloned().collect(),
            https: file.https.clone(),
            roots: args.ca_file.iter().chain(&file.ca_files).cloned().collect(),
            certificate_folders: self.settings.certificate_folders(),
            trusted_realms: file.trusted_realms.clone(),
            allowed_addresses: file.allowed_addresses.clone(),
            proxies: settings::proxies()?,
            at_once: args.jobs,
            connections: args.connections,
            limit_rate: args.limit_rate,
            tries: args.tries,
            read_timeout: Duration::from_secs(args.stall),
            connect_timeout: Duration::from_secs(args.connect_timeout.or(file.connect_timeout.map(u64::from)).unwrap_or(10)),
            deadline: deadline.at(),
            ..upstream::Settings::default()
        };
        if !args.no_mirrors {
            settings.mirrors = self.settings.mirrors();
            settings.registries_files = self.settings.registries_files()?;
            settings.daemon_files = self.settings.daemon_files();
            settings.hosts_folders = self.settings.hosts_folders();
        }
        Ok(Some(Upstream::new(settings)?))
    }

    /// The engines that were asked for, each once, in order.
    pub(crate) async fn engines(&self, args: &args::Engines) -> Vec<Result<Chosen, Failure>> {
        let mut environment = self.environment(Duration::from_secs(args.engine_timeout));
        environment.containerd_namespace = args.namespace.clone().or(environment.containerd_namespace);
        let mut names: Vec<EngineName> = Vec::new();
        for name in &args.engines {
            if !names.contains(name) {
                names.push(*name);
            }
        }
        let mut chosen = Vec::new();
        for name in names {
            match name {
                EngineName::All => match engine::connect_all(&environment).await {
                    Ok(engines) => chosen.extend(engines.into_iter().map(|engine| Ok(Chosen::Engine(engine)))),
                    Err(error) => chosen.push(Err(Failure::from(&error))),
                },
                name => chosen.push(connect(name, &environment).await),
            }
        }
        each_once(chosen)
    }

    pub(crate) fn environment(&self, timeout: Duration) -> engine::Environment {
        let path = |name| variable(name).map(PathBuf::from);
        engine::Environment {
            docker_host: variable("DOCKER_HOST"),
            docker_context: variable("DOCKER_CONTEXT"),
            docker_config: path("DOCKER_CONFIG"),
            docker_tls: variable("DOCKER_TLS").is_some(),
            docker_tls_verify: variable("DOCKER_TLS_VERIFY").is_some(),
            docker_cert_path: path("DOCKER_CERT_PATH"),
            container_host: variable("CONTAINER_HOST"),
            container_connection: variable("CONTAINER_CONNECTION"),
            container_sshkey: path("CONTAINER_SSHKEY"),
            containers_conf: path("CONTAINERS_CONF"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            containerd_address: variable("CONTAINERD_ADDRESS"),
            containerd_namespace: variable("CONTAINERD_NAMESPACE"),
            containerd_snapshotter: variable("CONTAINERD_SNAPSHOTTER"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
            home: self.settings.home.clone(),
            uid: rustix::process::getuid().as_raw(),
            root: PathBuf::from("/"),
            timeout,
        }
    }
}

async fn connect(name: EngineName, environment: &engine::Environment) -> Result<Chosen, Failure> {
    let choice = match name {
        EngineName::None => return Ok(Chosen::None),
        EngineName::Auto | EngineName::All => engine::Choice::Auto,
        EngineName::Docker => engine::Choice::Docker,
        EngineName::Podman => engine::Choice::Podman,
        EngineName::Containerd => engine::Choice::Containerd,
    };
    engine::connect(&choice, environment).await.map(Chosen::Engine).map_err(|e| Failure::from(&e))
}

/// An engine that is reached in two ways, by two of its names, is one engine.
fn each_once(mut chosen: Vec<Result<Chosen, Failure>>) -> Vec<Result<Chosen, Failure>> {
    let mut seen = HashSet::new();
    chosen.retain(|chosen| match chosen {
        Ok(Chosen::Engine(engine)) => seen.insert(address(engine.as_ref())),
        _ => true,
    });
    chosen
}

/// Where an engine listens, however that is written: `/var/run` leads to `/run`.
fn address(engine: &dyn Engine) -> String {
    let address = &engine.about().address;
    let socket = address.strip_prefix("unix://").and_then(|path| Path::new(path).canonicalize().ok());
    socket.map_or_else(|| address.clone(), |path| path.display().to_string())
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
pub(crate) fn references(texts: &[String], naming: Option<&args::Naming>) -> Result<Vec<(Reference, Name)>, Failure> {
    let wanted = naming.and_then(|n| n.name.as_deref());
    if wanted.is_some() && texts.len() > 1 {
        return Err(Failure::new(Exit::Usage, "as", "--as names one image, but several are asked for"));
    }
    let name: Option<Name> = wanted.map(|text| text.parse().map_err(|e| Failure::from(&e))).transpose()?;
    let one = |text: &String| {
        let reference = reference(text)?;
        let name = name.clone().unwrap_or_else(|| reference.name());
        Ok((reference, name))
    };
    texts.iter().map(one).collect()
}

/// The credentials of `--creds`: for the one registry that the images are asked of, and for no other.
fn logins(args: &args::Registry, references: &[(Reference, Name)]) -> Result<Vec<Login>, Failure> {
    let Some(args::Creds(creds)) = &args.creds else { return Ok(Vec::new()) };
    let usage = |message| Failure::new(Exit::Usage, "creds", message);
    let (username, password) = match (creds.split_once(':'), args.password_stdin) {
        (Some((username, password)), false) => (username.to_owned(), password.to_owned()),
        (None, true) => (creds.clone(), password_from_stdin()?),
        (None, false) => return Err(usage("--creds wants a user name, a colon and a password, or --password-stdin")),
        (Some(_), true) => return Err(usage("with --password-stdin, --creds wants a user name alone")),
    };
    let mut registries: Vec<&str> = references.iter().map(|(reference, _)| reference.repository().registry()).collect();
    registries.dedup();
    match registries[..] {
        [registry] => Ok(vec![Login { registry: registry.to_owned(), username, password: password.into() }]),
        _ => Err(usage("--creds is for one registry, and images of several are asked for")),
    }
}

/// One line of standard input.
fn password_from_stdin() -> Result<String, Failure> {
    const LONGEST: u64 = 64 << 10;
    let mut text = String::new();
    let read = std::io::Read::read_to_string(&mut std::io::Read::take(std::io::stdin().lock(), LONGEST), &mut text);
    read.map_err(|e| Failure::new(Exit::Usage, "creds", "the password cannot be read from standard input").with("it said", e))?;
    let password = text.trim_end_matches(['\n', '\r']);
    match password.is_empty() {
        true => Err(Failure::new(Exit::Usage, "creds", "there is no password on standard input")),
        false => Ok(password.to_owned()),
    }
}

/// The repositories of `--from`; a tag or digest written there is of no account.
pub(crate) fn repositories(from: &[String]) -> Result<Vec<Repository>, Failure> {
    from.iter().map(|text| Ok(reference(text)?.repository().clone())).collect()
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

/// How much of each image's bytes are its own, and how much it shares with any other in the store.
pub(crate) fn sizes(store: &Store, of: &[Pin]) -> Result<Vec<Sizes>, Failure> {
    let pins = store.pins()?;
    let sizes = store.sizes(&pins);
    let of_one = |wanted: &Pin| pins.iter().zip(&sizes).find(|(pin, _)| *pin == wanted).map(|(_, sizes)| *sizes).unwrap_or_default();
    Ok(of.iter().map(of_one).collect())
}
