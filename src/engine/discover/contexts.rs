//! Docker's contexts, as its command line keeps them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::address::{Beside, Tls};
use super::{Environment, Found, docker_set, read, unknown};
use crate::digest::Digest;
use crate::engine::{EngineError, Kind};

/// The place that settings name: `DOCKER_HOST`, else a context that is not the default one; none if they name none.
///
/// As docker's command line does it: `DOCKER_HOST` comes before `DOCKER_CONTEXT`, whatever its documentation says.
pub(super) fn named(environment: &Environment) -> Option<Found> {
    if let Some(host) = environment.docker_host.as_deref().filter(|h| !h.is_empty()) {
        let tls = environment_tls(environment).filter(|_| host.starts_with("tcp://") || host.starts_with("http"));
        return Some(docker_set("DOCKER_HOST".to_owned(), host, Beside { tls, ..Beside::default() }));
    }
    let named = match environment.docker_context.as_deref().filter(|c| !c.is_empty()) {
        Some(context) => Some((context.to_owned(), "DOCKER_CONTEXT".to_owned())),
        None => match current(environment) {
            Ok(named) => named,
            Err((path, error)) => return Some(unknown(Kind::Docker, path.display().to_string(), error)),
        },
    };
    let (context, setting) = named.filter(|(context, _)| context != "default")?;
    Some(described(environment, &context, setting))
}

/// `DOCKER_TLS_VERIFY`, `DOCKER_TLS` and `DOCKER_CERT_PATH`: a folder with `ca.pem`, `cert.pem` and `key.pem`.
fn environment_tls(environment: &Environment) -> Option<Tls> {
    let folder = environment.docker_cert_path.clone().or_else(|| folder(environment)).unwrap_or_default();
    if !environment.docker_tls && !environment.docker_tls_verify {
        return None;
    }
    let mut tls = material(&folder);
    tls.anybody = !environment.docker_tls_verify;
    if !tls.anybody {
        // Docker insists on it, so that nobody trusts others by mistake.
        tls.ca = Some(folder.join("ca.pem"));
    }
    Some(tls)
}

/// The files in a folder that TLS can be spoken with.
fn material(folder: &Path) -> Tls {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
    Tls { ca: file("ca.pem"), identity: file("cert.pem").zip(file("key.pem")), anybody: false }
}

fn folder(environment: &Environment) -> Option<PathBuf> {
    environment.docker_config.clone().or_else(|| Some(environment.home.as_ref()?.join(".docker")))
}

/// The context that docker's `config.json` names, and that file.
fn current(environment: &Environment) -> Result<Option<(String, String)>, (PathBuf, EngineError)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        #[serde(default, deserialize_with = "crate::json::null_is_default")]
        current_context: String,
    }
    let Some(folder) = folder(environment) else { return Ok(None) };
    let path = folder.join("config.json");
    let config: Option<Config> = read(&path).map_err(|e| (path.clone(), e))?;
    let context = config.map(|c| c.current_context).filter(|c| !c.is_empty());
    Ok(context.map(|context| (context, path.display().to_string())))
}

/// What docker keeps about a context ([docker/cli, cli/context/store](https://github.com/docker/cli/blob/v28.5.2/cli/context/store/doc.go)).
fn described(environment: &Environment, context: &str, setting: String) -> Found {
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
        #[serde(default, rename = "SkipTLSVerify")]
        skip_tls_verify: bool,
    }
    let folder = folder(environment).unwrap_or_default().join("contexts");
    let id = Digest::of(context.as_bytes()).hex();
    let path = folder.join("meta").join(&id).join("meta.json");
    let endpoint = match read::<Meta>(&path) {
        Ok(Some(meta)) => meta.endpoints.docker,
        Ok(None) => return unknown(Kind::Docker, setting.clone(), EngineError::NoContext { context: context.to_owned(), setting, path }),
        Err(error) => return unknown(Kind::Docker, setting, error),
    };
    let mut tls = material(&folder.join("tls").join(&id).join("docker"));
    tls.anybody = endpoint.skip_tls_verify;
    let beside = Beside { tls: Some(tls).filter(|tls| *tls != Tls::default()), ..Beside::default() };
    docker_set(format!("the context `{context}` ({setting})"), &endpoint.host, beside)
}
