//! Where engines are: what people's settings say, and the places they usually have.
//!
//! Owns the rules of precedence. Always true: an address that somebody set is the only one for its engine, whether it works
//! or not; nothing is read from the process's environment. Whether anybody answers is not asked here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{Choice, EngineError, Kind, Place};
use crate::digest::Digest;

/// What people's settings say, read once by the caller.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`: the folder of docker's settings; else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Whether `DOCKER_TLS_VERIFY` or `DOCKER_TLS` is set to anything but nothing.
    pub docker_tls: bool,
    /// `CONTAINER_HOST`.
    pub container_host: Option<String>,
    /// `XDG_RUNTIME_DIR`; else `/run/user/<uid>`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// Who is running this; podman's system socket is root's alone.
    pub uid: u32,
    /// Where the system's own sockets are looked for: `/`.
    pub root: PathBuf,
    /// How long an engine may take for a small answer. Loads are not limited.
    pub timeout: Duration,
}

impl Default for Environment {
    /// No settings: the system's own sockets, 30 seconds for an answer.
    fn default() -> Environment {
        Environment {
            docker_host: None,
            docker_context: None,
            docker_config: None,
            docker_tls: false,
            container_host: None,
            xdg_runtime_dir: None,
            home: None,
            uid: 0,
            root: PathBuf::from("/"),
            timeout: Duration::from_secs(30),
        }
    }
}

/// A place, and how to reach it if larder can.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) address: Result<Address, EngineError>,
    /// Whether somebody set it, so that no other place will do.
    pub(super) set: bool,
}

/// How to reach an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String, u16),
}

/// The places for a choice, in the order in which they are asked.
pub(super) fn places(choice: &Choice, environment: &Environment) -> Vec<Found> {
    match choice {
        Choice::Docker => docker(environment),
        Choice::Podman => podman(environment),
        Choice::Auto => [docker(environment), podman(environment)].into_iter().flatten().collect(),
    }
}

/// As docker's command line does it: `DOCKER_HOST` comes before `DOCKER_CONTEXT`, whatever its documentation says.
fn docker(environment: &Environment) -> Vec<Found> {
    if let Some(host) = environment.docker_host.as_deref().filter(|h| !h.is_empty()) {
        return vec![set(Kind::Docker, "DOCKER_HOST".to_owned(), host, environment.docker_tls)];
    }
    let named = match environment.docker_context.as_deref().filter(|c| !c.is_empty()) {
        Some(context) => Some((context.to_owned(), "DOCKER_CONTEXT".to_owned())),
        None => match current_context(environment) {
            Ok(named) => named,
            Err((path, error)) => return vec![unknown(Kind::Docker, path.display().to_string(), error)],
        },
    };
    if let Some((context, setting)) = named.filter(|(context, _)| context != "default") {
        return vec![in_context(environment, &context, setting)];
    }
    let mut sockets = vec![environment.root.join("var/run/docker.sock"), runtime_dir(environment).join("docker.sock")];
    if let Some(home) = &environment.home {
        sockets.extend([home.join(".docker/run/docker.sock"), home.join(".docker/desktop/docker.sock")]);
    }
    sockets.into_iter().map(|socket| usual(Kind::Docker, socket)).collect()
}

fn podman(environment: &Environment) -> Vec<Found> {
    if let Some(host) = environment.container_host.as_deref().filter(|h| !h.is_empty()) {
        return vec![set(Kind::Podman, "CONTAINER_HOST".to_owned(), host, false)];
    }
    let system = (environment.uid == 0).then(|| environment.root.join("run"));
    let runs = system.into_iter().chain([runtime_dir(environment)]);
    runs.map(|run| usual(Kind::Podman, run.join("podman/podman.sock"))).collect()
}

fn runtime_dir(environment: &Environment) -> PathBuf {
    let habit = || environment.root.join("run/user").join(environment.uid.to_string());
    environment.xdg_runtime_dir.clone().unwrap_or_else(habit)
}

fn usual(kind: Kind, socket: PathBuf) -> Found {
    let place = Place { kind, address: format!("unix://{}", socket.display()), found_by: "the usual place".to_owned() };
    Found { place, address: Ok(Address::Unix(socket)), set: false }
}

fn set(kind: Kind, setting: String, host: &str, tls: bool) -> Found {
    let address = parse(host, tls, &setting);
    Found { place: Place { kind, address: host.to_owned(), found_by: setting }, address, set: true }
}

fn unknown(kind: Kind, setting: String, error: EngineError) -> Found {
    Found { place: Place { kind, address: "unknown".to_owned(), found_by: setting }, address: Err(error), set: true }
}

fn parse(host: &str, tls: bool, setting: &str) -> Result<Address, EngineError> {
    let (setting, address) = (setting.to_owned(), host.to_owned());
    let (scheme, rest) = host.split_once("://").unwrap_or(("", host));
    let transport = match scheme {
        "ssh" => Some("ssh"),
        "https" => Some("TLS"),
        "tcp" | "http" if tls => Some("TLS"),
        "npipe" => Some("a named pipe"),
        _ => None,
    };
    if let Some(transport) = transport {
        return Err(EngineError::Transport { setting, address, transport });
    }
    let found = match scheme {
        "unix" => Some(Address::Unix(rest.into())).filter(|_| rest.starts_with('/')),
        "tcp" | "http" => host_and_port(rest.strip_suffix('/').unwrap_or(rest)),
        _ => None,
    };
    found.ok_or(EngineError::Address { setting, address, expected: "unix:///path/to/a.sock or tcp://host:port" })
}

fn host_and_port(text: &str) -> Option<Address> {
    let (host, port) = match text.rsplit_once(':') {
        // The colon may be one inside an IPv6 address in brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        // Docker's port where nobody says another.
        _ => (text, 2375),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    plain.then(|| Address::Tcp(host.to_owned(), port))
}

fn docker_config(environment: &Environment) -> Option<PathBuf> {
    environment.docker_config.clone().or_else(|| Some(environment.home.as_ref()?.join(".docker")))
}

/// The context that docker's `config.json` names, and that file.
fn current_context(environment: &Environment) -> Result<Option<(String, String)>, (PathBuf, EngineError)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        #[serde(default, deserialize_with = "crate::json::null_is_default")]
        current_context: String,
    }
    let Some(folder) = docker_config(environment) else { return Ok(None) };
    let path = folder.join("config.json");
    let config: Option<Config> = read(&path).map_err(|e| (path.clone(), e))?;
    let context = config.map(|c| c.current_context).filter(|c| !c.is_empty());
    Ok(context.map(|context| (context, path.display().to_string())))
}

/// What docker keeps about a context ([docker/cli, cli/context/store](https://github.com/docker/cli/blob/v28.5.2/cli/context/store/doc.go)).
fn in_context(environment: &Environment, context: &str, setting: String) -> Found {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Endpoint,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Endpoint {
        host: String,
    }
    let folder = docker_config(environment).unwrap_or_default().join("contexts");
    let id = Digest::of(context.as_bytes()).hex();
    let path = folder.join("meta").join(&id).join("meta.json");
    let host = match read::<Meta>(&path) {
        Ok(Some(meta)) => meta.endpoints.docker.host,
        Ok(None) => return unknown(Kind::Docker, setting.clone(), EngineError::NoContext { context: context.to_owned(), setting, path }),
        Err(error) => return unknown(Kind::Docker, setting, error),
    };
    let tls = folder.join("tls").join(&id).join("docker").exists();
    set(Kind::Docker, format!("the context `{context}` ({setting})"), &host, tls)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    let text = match std::fs::read(path) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        text => text.map_err(|source| EngineError::Settings { path: path.to_owned(), source })?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| EngineError::BadSettings { path: path.to_owned(), source })
}
