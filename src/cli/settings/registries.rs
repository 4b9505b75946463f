//! Where settings of registries are: larder's own, those of podman, docker and containerd, and the proxies of the environment.

use std::path::{Path, PathBuf};

use larder::upstream::{Given, Mirror, Mirrored, Proxies};
use serde::Deserialize;

use super::super::failure::{Exit, Failure};
use super::{Settings, variable};

/// A mirror as it is written: `host[:port][/path]`, or a table that says more of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Written {
    Place(String),
    Table(Table),
}

/// A mirror of which more is said.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    location: String,
    /// Whether it may say what a tag means.
    #[serde(default)]
    tags: bool,
}

/// Where the settings of another program are: at their usual place, elsewhere, or to be passed over.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Others {
    Read(bool),
    At(PathBuf),
}

impl Default for Others {
    fn default() -> Others {
        Others::Read(true)
    }
}

impl Settings {
    /// The mirrors of larder's own settings file.
    pub(crate) fn mirrors(&self) -> Vec<Mirrored> {
        let mirror = |written: &Written| match written.clone() {
            Written::Place(location) => Mirror { location, tags: false },
            Written::Table(Table { location, tags }) => Mirror { location, tags },
        };
        let path = self.file_path.clone().unwrap_or_default();
        let of = |(prefix, mirrors): (&String, &Vec<Written>)| Mirrored {
            prefix: prefix.clone(),
            mirrors: mirrors.iter().map(mirror).collect(),
            path: path.clone(),
        };
        self.file.mirrors.iter().map(of).collect()
    }

    /// The files of `registries.conf`, in the order of containers-registries.conf(5) and containers-registries.conf.d(5).
    pub(crate) fn registries_files(&self) -> Result<Vec<PathBuf>, Failure> {
        match &self.file.registries_conf {
            Others::Read(false) => return Ok(Vec::new()),
            Others::At(path) => return Ok(vec![path.clone()]),
            Others::Read(true) => {}
        }
        let system = self.etc.join("containers");
        let own = self.config_home().map(|dir| dir.join("containers"));
        let drop_ins = |dir: &Path| drop_ins(&dir.join("registries.conf.d"));
        let named = variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
        // A person's own file stands for the system's, drop-ins included.
        if let (None, Some(own)) = (&named, own.as_ref().filter(|own| own.join("registries.conf").exists())) {
            return Ok(std::iter::once(own.join("registries.conf")).chain(drop_ins(own)?).collect());
        }
        let main = named.unwrap_or_else(|| system.join("registries.conf"));
        let own = own.map(|own| drop_ins(&own)).transpose()?.unwrap_or_default();
        Ok(std::iter::once(main).chain(drop_ins(&system)?).chain(own).collect())
    }

    /// Docker's `daemon.json`, a person's own before the system's.
    pub(crate) fn daemon_files(&self) -> Vec<PathBuf> {
        match &self.file.daemon_json {
            Others::Read(false) => Vec::new(),
            Others::At(path) => vec![path.clone()],
            Others::Read(true) => self.homes().map(|home| home.join("docker/daemon.json")).collect(),
        }
    }

    /// The folders of containerd's `hosts.toml`.
    pub(crate) fn hosts_folders(&self) -> Vec<PathBuf> {
        match &self.file.hosts_toml {
            Others::Read(false) => Vec::new(),
            Others::At(path) => vec![path.clone()],
            Others::Read(true) => self.certificates_of(&["containerd", "docker"]),
        }
    }

    /// The folders of certificates for single hosts, a person's own before the system's.
    pub(crate) fn certificate_folders(&self) -> Vec<PathBuf> {
        match &self.file.certs_d {
            Others::Read(false) => Vec::new(),
            Others::At(path) => vec![path.clone()],
            Others::Read(true) => self.certificates_of(&["containers", "docker", "containerd"]),
        }
    }

    fn certificates_of(&self, programs: &[&str]) -> Vec<PathBuf> {
        self.homes().flat_map(|home| programs.iter().map(move |program| home.join(program).join("certs.d"))).collect()
    }

    /// Where programs have their settings: a person's own before the system's.
    fn homes(&self) -> impl Iterator<Item = PathBuf> {
        self.config_home().into_iter().chain([self.etc.clone()])
    }

    /// Where docker and podman keep credentials, in the order of containers-auth.json(5); an explicit file is the only one.
    pub(crate) fn credential_files(&self, authfile: Option<&Path>) -> Vec<PathBuf> {
        if let Some(file) = only_file(authfile) {
            return vec![file];
        }
        let path = |name: &str| variable(name).map(PathBuf::from);
        let runtime = path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
        let runtime = runtime.unwrap_or_else(|| PathBuf::from(format!("/run/containers/{}", rustix::process::getuid().as_raw())));
        let config = self.config_home().map(|dir| dir.join("containers"));
        let docker = path("DOCKER_CONFIG").or_else(|| Some(self.home.as_deref()?.join(".docker")));
        let containers = [Some(runtime), config].into_iter().flatten().map(|dir| dir.join("auth.json"));
        containers.chain(docker.map(|dir| dir.join("config.json"))).collect()
    }

    /// What docker and GitLab take from a variable, unless a file is named.
    pub(crate) fn credentials(&self, authfile: Option<&Path>) -> Option<Given> {
        const NAME: &str = "DOCKER_AUTH_CONFIG";
        let text = variable(NAME).filter(|_| only_file(authfile).is_none())?;
        Some(Given { name: NAME.to_owned(), text: text.into() })
    }

    fn config_home(&self) -> Option<PathBuf> {
        variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(self.home.as_deref()?.join(".config")))
    }
}

/// The file of credentials besides which no other is read.
fn only_file(authfile: Option<&Path>) -> Option<PathBuf> {
    authfile.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from))
}

/// The proxies of the environment. Programs differ in which spelling they read first; capitals are what Go's programs take.
pub(crate) fn proxies() -> Result<Proxies, Failure> {
    let either = |name: &str| variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
    let all = either("ALL_PROXY");
    let (http, https) = (either("HTTP_PROXY").or(all.clone()), either("HTTPS_PROXY").or(all));
    let except = either("NO_PROXY").unwrap_or_default();
    Proxies::new(http.as_deref(), https.as_deref(), &except).map_err(|e| {
        Failure::new(Exit::Usage, "proxy", e.to_string())
            .with("expected", "[scheme://][user:password@]host[:port], with http, https or socks5h")
    })
}

/// The files of a folder of drop-ins, in the order of their names.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed =
        |e| Failure::new(Exit::Usage, "settings", format!("the settings in {} cannot be read", folder.display())).with("it said", e);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut files = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    Ok(files)
}
