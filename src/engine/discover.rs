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
    /// `CONTAINERD_ADDRESS`: a path, or `unix://` and a path.
    pub containerd_address: Option<String>,
    /// `CONTAINERD_NAMESPACE`, or what stands in its place; else the one that is usual for the socket.
    pub containerd_namespace: Option<String>,
    /// `CONTAINERD_SNAPSHOTTER`; else the namespace's own, or containerd's usual one.
    pub containerd_snapshotter: Option<String>,
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
            containerd_address: None,
            containerd_namespace: None,
            containerd_snapshotter: None,
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
        Choice::Containerd => containerd(environment),
        Choice::Auto => [docker(environment), podman(environment), containerd(environment)].into_iter().flatten().collect(),
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

/// The system's own, then those that k3s and docker bring with them, then what runs without root.
fn containerd(environment: &Environment) -> Vec<Found> {
    if let Some(address) = environment.containerd_address.as_deref().filter(|a| !a.is_empty()) {
        let setting = "CONTAINERD_ADDRESS".to_owned();
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let known = path.starts_with('/').then(|| Address::Unix(path.into()));
        let expected = "/path/to/a.sock or unix:///path/to/a.sock";
        let unknown = EngineError::Address { setting: setting.clone(), address: address.to_owned(), expected };
        let shown = if known.is_some() { format!("unix://{path}") } else { address.to_owned() };
        let place = Place { kind: Kind::Containerd, address: shown, found_by: setting };
        return vec![Found { place, address: known.ok_or(unknown), set: true }];
    }
    let system = ["containerd", "k3s/containerd", "docker/containerd"].map(|dir| environment.root.join("run").join(dir));
    let rootless = [rootless_containerd(environment), Some(runtime_dir(environment).join("docker/containerd"))];
    let folders = system.into_iter().chain(rootless.into_iter().flatten());
    folders.map(|folder| usual(Kind::Containerd, folder.join("containerd.sock"))).collect()
}

/// Where the socket of a containerd without root is seen from outside of its mount namespace
/// ([nerdctl, docs/rootless.md](https://github.com/containerd/nerdctl/blob/v1.7.7/docs/rootless.md)).
fn rootless_containerd(environment: &Environment) -> Option<PathBuf> {
    let pid = std::fs::read_to_string(runtime_dir(environment).join("containerd-rootless/child_pid")).ok()?;
    let pid: u32 = pid.trim().parse().ok()?;
    Some(environment.root.join(format!("proc/{pid}/root/run/containerd")))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: &Path) -> Environment {
        Environment { home: Some(home.to_owned()), uid: 1000, root: "/r".into(), ..Environment::default() }
    }

    fn written(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn with_context(folder: &Path, context: &str, host: &str) -> PathBuf {
        let id = Digest::of(context.as_bytes()).hex();
        written(
            folder.join("contexts/meta").join(&id).join("meta.json"),
            &format!(r#"{{"Name":"{context}","Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#),
        );
        folder.join("contexts/tls").join(&id)
    }

    fn addresses(choice: Choice, environment: &Environment) -> Vec<String> {
        places(&choice, environment).into_iter().map(|f| f.place.address).collect()
    }

    fn only(found: Vec<Found>) -> Found {
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn the_usual_places_come_in_order() {
        let at_home = environment(Path::new("/h"));
        let docker = [
            "unix:///r/var/run/docker.sock",
            "unix:///r/run/user/1000/docker.sock",
            "unix:///h/.docker/run/docker.sock",
            "unix:///h/.docker/desktop/docker.sock",
        ];
        assert_eq!(addresses(Choice::Docker, &at_home), docker);
        assert_eq!(addresses(Choice::Podman, &at_home), ["unix:///r/run/user/1000/podman/podman.sock"]);
        let containerd = [
            "unix:///r/run/containerd/containerd.sock",
            "unix:///r/run/k3s/containerd/containerd.sock",
            "unix:///r/run/docker/containerd/containerd.sock",
            "unix:///r/run/user/1000/docker/containerd/containerd.sock",
        ];
        assert_eq!(addresses(Choice::Containerd, &at_home), containerd);
        assert_eq!(addresses(Choice::Auto, &at_home).len(), 9);
        assert!(places(&Choice::Auto, &at_home).iter().all(|f| !f.set && f.address.is_ok()));
        let root = Environment { uid: 0, xdg_runtime_dir: Some("/x".into()), ..at_home };
        assert_eq!(addresses(Choice::Podman, &root), ["unix:///r/run/podman/podman.sock", "unix:///x/podman/podman.sock"]);
        assert_eq!(addresses(Choice::Docker, &root)[1], "unix:///x/docker.sock");
    }

    #[test]
    fn a_containerd_without_root_is_found_by_its_process() {
        let run = tempfile::tempdir().unwrap();
        written(run.path().join("containerd-rootless/child_pid"), "4711\n");
        let environment = Environment { xdg_runtime_dir: Some(run.path().into()), root: "/r".into(), ..Environment::default() };
        let found = addresses(Choice::Containerd, &environment);
        assert!(found.contains(&"unix:///r/proc/4711/root/run/containerd/containerd.sock".to_owned()), "{found:?}");
    }

    #[test]
    fn what_somebody_set_is_the_only_place() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".docker");
        written(folder.join("config.json"), r#"{"auths":{},"currentContext":"work"}"#);
        with_context(&folder, "work", "unix:///work.sock");
        with_context(&folder, "other", "tcp://other:1");
        let mut environment = environment(home.path());
        let found = only(places(&Choice::Docker, &environment));
        assert_eq!((found.place.address.as_str(), found.set), ("unix:///work.sock", true));
        assert!(found.place.found_by.contains("`work`") && found.place.found_by.contains("config.json"), "{}", found.place.found_by);

        environment.docker_context = Some("other".into());
        assert_eq!(only(places(&Choice::Docker, &environment)).address.unwrap(), Address::Tcp("other".into(), 1));
        environment.docker_host = Some("unix:///host.sock".into());
        assert_eq!(addresses(Choice::Docker, &environment), ["unix:///host.sock"]);
        environment.container_host = Some("tcp://[::1]:8080".into());
        let podman = only(places(&Choice::Podman, &environment));
        assert_eq!((podman.address.unwrap(), podman.set), (Address::Tcp("::1".into(), 8080), true));

        for (address, path) in [("/c.sock", Some("/c.sock")), ("unix:///c.sock", Some("/c.sock")), ("c.sock", None), ("tcp://c:1", None)] {
            environment.containerd_address = Some(address.into());
            let found = only(places(&Choice::Containerd, &environment));
            assert_eq!((found.address.ok(), found.set), (path.map(|path| Address::Unix(path.into())), true), "{address}");
        }

        (environment.docker_host, environment.docker_context) = (Some(String::new()), Some("default".into()));
        assert_eq!(addresses(Choice::Docker, &environment).len(), 4, "the context `default` means the usual places");
    }

    #[test]
    fn settings_that_lead_nowhere_are_errors() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("elsewhere");
        let tls = with_context(&folder, "safe", "tcp://host:2376");
        std::fs::create_dir_all(tls.join("docker")).unwrap();
        with_context(&folder, "remote", "ssh://me@host");
        let mut environment = Environment { docker_config: Some(folder.clone()), ..environment(home.path()) };
        let mut fails = |host: Option<&str>, context: Option<&str>, tls: bool| {
            environment.docker_host = host.map(str::to_owned);
            environment.docker_context = context.map(str::to_owned);
            environment.docker_tls = tls;
            let found = only(places(&Choice::Docker, &environment));
            assert!(found.set);
            found.address.unwrap_err()
        };
        assert!(matches!(fails(None, Some("safe"), false), EngineError::Transport { transport: "TLS", .. }));
        assert!(matches!(fails(None, Some("remote"), false), EngineError::Transport { transport: "ssh", .. }));
        assert!(matches!(fails(None, Some("nowhere"), false), EngineError::NoContext { context, .. } if context == "nowhere"));
        assert!(matches!(fails(Some("tcp://host:2376"), None, true), EngineError::Transport { transport: "TLS", .. }));
        assert!(matches!(fails(Some("ssh://host"), None, false), EngineError::Transport { transport: "ssh", .. }));
        for bad in [
            "host:1",
            "/a.sock",
            "unix://a.sock",
            "tcp://",
            "tcp://host:port",
            "tcp://host:99999",
            "tcp://a/b:1",
            "tcp://me@host:1",
            "x://y",
        ] {
            assert!(matches!(fails(Some(bad), None, false), EngineError::Address { .. }), "{bad}");
        }
        written(folder.join("config.json"), "{");
        assert!(matches!(fails(None, None, false), EngineError::BadSettings { .. }));
    }
}
