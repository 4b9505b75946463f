//! Settings from the environment, the settings file and the arguments, read once.

mod registries;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::args::{self, Global};
use super::failure::{Exit, Failure};
pub(crate) use registries::proxies;
use registries::{Others, Written};

/// What the command was told by its surroundings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) store: PathBuf,
    pub(crate) offline: bool,
    pub(crate) lock_timeout: Duration,
    pub(crate) file: File,
    /// Where that is; none if there is no place for it.
    pub(crate) file_path: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    /// The folder of the system's settings.
    pub(crate) etc: PathBuf,
}

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    /// Hosts asked without TLS.
    pub(crate) insecure: Vec<String>,
    /// Hosts on loopback asked with TLS.
    pub(crate) https: Vec<String>,
    /// For a registry or a namespace in it, other places that may have its images, asked before it.
    pub(crate) mirrors: BTreeMap<String, Vec<Written>>,
    /// Podman's `registries.conf`.
    pub(crate) registries_conf: Others,
    /// Docker's `daemon.json`.
    pub(crate) daemon_json: Others,
    /// The folder of containerd's `HOST/hosts.toml`.
    pub(crate) hosts_toml: Others,
    /// The folder of certificates, `HOST:PORT/`.
    pub(crate) certs_d: Others,
    /// Files with CA certificates.
    pub(crate) ca_files: Vec<PathBuf>,
    /// Hosts of token servers that credentials may be sent to.
    pub(crate) trusted_realms: Vec<String>,
    /// Addresses of registries that would not be dialled otherwise: link-local ones.
    pub(crate) allowed_addresses: Vec<IpAddr>,
    /// Seconds in which a connection has to come about.
    pub(crate) connect_timeout: Option<NonZeroU64>,
    /// The time for all that a command does.
    pub(crate) deadline: Option<args::Duration>,
}

/// A variable, if it is set and not empty. The only reader of the environment.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

impl Settings {
    pub(crate) fn read(global: &Global) -> Result<Settings, Failure> {
        #[cfg(feature = "sabotage")]
        sabotage()?;
        let home = variable("HOME").map(PathBuf::from);
        let store = match &global.store {
            Some(dir) => dir.clone(),
            None => xdg("XDG_DATA_HOME", home.as_deref(), ".local/share").ok_or_else(|| homeless("--store DIR"))?,
        };
        let offline = global.offline || variable("LARDER_OFFLINE").is_some_and(|v| !matches!(v.as_str(), "0" | "false" | "no"));
        let (file, file_path) = settings_file(global, home.as_deref())?;
        let etc = variable("LARDER_ETC").map_or_else(|| PathBuf::from("/etc"), PathBuf::from);
        Ok(Settings { store, offline, lock_timeout: Duration::from_secs(global.lock_timeout), file, file_path, home, etc })
    }
}

/// Makes the store do what `LARDER_SABOTAGE` names wrong.
#[cfg(feature = "sabotage")]
fn sabotage() -> Result<(), Failure> {
    match variable("LARDER_SABOTAGE") {
        Some(fault) if larder::store::sabotage::choose(&fault).is_none() => {
            Err(Failure::new(Exit::Usage, "sabotage", format!("there is no sabotage `{fault}`")))
        }
        _ => Ok(()),
    }
}

fn homeless(instead: &str) -> Failure {
    Failure::new(Exit::Usage, "no-home", "neither HOME nor XDG_DATA_HOME is set, so there is no folder to keep images in")
        .hint(format!("set HOME, or use {instead}"))
}

fn xdg(variable_name: &str, home: Option<&Path>, under_home: &str) -> Option<PathBuf> {
    let base = variable(variable_name).map(PathBuf::from).filter(|p| p.is_absolute());
    base.or_else(|| Some(home?.join(under_home))).map(|dir| dir.join("larder"))
}

fn settings_file(global: &Global, home: Option<&Path>) -> Result<(File, Option<PathBuf>), Failure> {
    let path = match &global.config {
        Some(path) => path.clone(),
        None => match xdg("XDG_CONFIG_HOME", home, ".config") {
            Some(dir) => dir.join("config.toml"),
            None => return Ok((File::default(), None)),
        },
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && global.config.is_none() => {
            return Ok((File::default(), Some(path)));
        }
        Err(e) => {
            let message = format!("the settings file {} cannot be read", path.display());
            return Err(Failure::new(Exit::Usage, "settings", message).with("it said", e));
        }
    };
    let file = toml::from_str(&text).map_err(|e| {
        let message = format!("the settings file {} is not as larder expects it", path.display());
        Failure::new(Exit::Usage, "settings", message).with("found", e.to_string().trim_end())
    })?;
    Ok((file, Some(path)))
}
