//! Podman's connections, as `podman system connection` and `podman machine` keep them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::address::Beside;
use super::{Environment, Found, podman_set, read, text, unknown};
use crate::engine::{EngineError, Kind};

/// A service that podman's command line can be told to use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Connection {
    #[serde(alias = "URI", alias = "uri", alias = "URL")]
    uri: String,
    #[serde(default, alias = "Identity")]
    identity: String,
    #[serde(default, alias = "IsMachine", alias = "is_machine")]
    machine: bool,
}

/// All connections, and which of them is used where none is named.
#[derive(Debug, Default)]
struct Connections {
    default: Option<String>,
    all: BTreeMap<String, Connection>,
}

/// The place that settings name: `CONTAINER_HOST`, else `CONTAINER_CONNECTION`; none if they name none.
pub(super) fn named(environment: &Environment) -> Option<Found> {
    if let Some(host) = environment.container_host.as_deref().filter(|h| !h.is_empty()) {
        let beside = Beside { key: environment.container_sshkey.clone(), ..Beside::default() };
        return Some(podman_set("CONTAINER_HOST".to_owned(), host, beside));
    }
    let name = environment.container_connection.as_deref().filter(|c| !c.is_empty())?;
    let setting = "CONTAINER_CONNECTION".to_owned();
    Some(match connections(environment) {
        Ok(known) => match known.all.get(name) {
            Some(connection) => found(environment, name, connection),
            None => {
                let known = known.all.into_keys().collect();
                unknown(Kind::Podman, setting.clone(), EngineError::NoConnection { connection: name.to_owned(), setting, known })
            }
        },
        Err((path, error)) => unknown(Kind::Podman, path.display().to_string(), error),
    })
}

/// The default connection, which podman's command line uses where there is no podman on the machine itself, as on a Mac.
pub(super) fn default(environment: &Environment) -> Option<Found> {
    match connections(environment) {
        Ok(known) => {
            let name = known.default?;
            let connection = known.all.get(&name)?;
            Some(Found { set: false, ..found(environment, &name, connection) })
        }
        Err((path, error)) => Some(Found { set: false, ..unknown(Kind::Podman, path.display().to_string(), error) }),
    }
}

fn found(environment: &Environment, name: &str, connection: &Connection) -> Found {
    let own = Some(PathBuf::from(&connection.identity)).filter(|key| !key.as_os_str().is_empty());
    let key = environment.container_sshkey.clone().or(own);
    podman_set(format!("the connection `{name}`"), &connection.uri, Beside { tls: None, key, machine: connection.machine })
}

/// What the files say; a later file overrides an earlier one
/// ([containers.conf(5)](https://github.com/containers/common/blob/v0.62.2/docs/containers.conf.5.md), podman-connections.json since podman 5).
fn connections(environment: &Environment) -> Result<Connections, (PathBuf, EngineError)> {
    let mut known = Connections::default();
    for path in settings_files(environment) {
        let with = |error| (path.clone(), error);
        let Some(text) = text(&path).map_err(with)? else { continue };
        let wrong = |source| (path.clone(), EngineError::BadToml { path: path.clone(), source: Box::new(source) });
        let file: Settings = toml::from_str(&String::from_utf8_lossy(&text)).map_err(wrong)?;
        known.default = file.engine.active_service.filter(|name| !name.is_empty()).or(known.default);
        known.all.extend(file.engine.service_destinations);
    }
    if let Some(path) = home(environment).map(|folder| folder.join("podman-connections.json")) {
        let written: Option<Written> = read(&path).map_err(|error| (path, error))?;
        let written = written.unwrap_or_default().connection;
        known.default = written.default.filter(|name| !name.is_empty()).or(known.default);
        known.all.extend(written.connections);
    }
    Ok(known)
}

#[derive(Deserialize, Default)]
struct Settings {
    #[serde(default)]
    engine: Engine,
}

#[derive(Deserialize, Default)]
struct Engine {
    active_service: Option<String>,
    #[serde(default)]
    service_destinations: BTreeMap<String, Connection>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Written {
    #[serde(default)]
    connection: WrittenConnections,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct WrittenConnections {
    default: Option<String>,
    #[serde(default, deserialize_with = "crate::json::null_is_default")]
    connections: BTreeMap<String, Connection>,
}

/// In the order in which one overrides the other; `CONTAINERS_CONF` names the only one.
fn settings_files(environment: &Environment) -> Vec<PathBuf> {
    if let Some(only) = &environment.containers_conf {
        return vec![only.clone()];
    }
    let system = ["usr/share/containers", "etc/containers"].map(|folder| environment.root.join(folder));
    let folders = system.into_iter().chain(home(environment));
    folders.flat_map(|folder| [vec![folder.join("containers.conf")], parts(&folder.join("containers.conf.d"))].concat()).collect()
}

fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "conf")).collect();
    parts.sort();
    parts
}

fn home(environment: &Environment) -> Option<PathBuf> {
    let config = environment.xdg_config_home.clone().or_else(|| Some(environment.home.as_ref()?.join(".config")))?;
    Some(config.join("containers"))
}
