//! Where engines are: what people's settings say, and the places they usually have.
//!
//! Owns the rules of precedence. Always true: an address that somebody set is the only one for its engine, whether it works
//! or not; nothing is read from the process's environment. Whether anybody answers is not asked here.

mod address;
mod connections;
mod contexts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Choice, EngineError, Kind, Place};
use crate::json;
use address::Beside;
pub(super) use address::{Address, Dialer, Tls};

/// What people's settings say, read once by the caller.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`: the folder of docker's settings; else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Whether `DOCKER_TLS` is set to anything but nothing.
    pub docker_tls: bool,
    /// Whether `DOCKER_TLS_VERIFY` is set to anything but nothing.
    pub docker_tls_verify: bool,
    /// `DOCKER_CERT_PATH`: the folder of the certificates for TLS; else docker's settings folder.
    pub docker_cert_path: Option<PathBuf>,
    /// `CONTAINER_HOST`.
    pub container_host: Option<String>,
    /// `CONTAINER_CONNECTION`: the name of a connection of podman's.
    pub container_connection: Option<String>,
    /// `CONTAINER_SSHKEY`: the key for `CONTAINER_HOST` and for connections.
    pub container_sshkey: Option<PathBuf>,
    /// `CONTAINERS_CONF`: the only settings file of podman's.
    pub containers_conf: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`; else `~/.config`.
    pub xdg_config_home: Option<PathBuf>,
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
            docker_tls_verify: false,
            docker_cert_path: None,
            container_host: None,
            container_connection: None,
            container_sshkey: None,
            containers_conf: None,
            xdg_config_home: None,
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

/// The places for a choice, in the order in which they are asked.
pub(super) fn places(choice: &Choice, environment: &Environment) -> Vec<Found> {
    match choice {
        Choice::Docker => docker(environment),
        Choice::Podman => podman(environment),
        Choice::Containerd => containerd(environment),
        Choice::Auto => [docker(environment), podman(environment), containerd(environment)].into_iter().flatten().collect(),
    }
}

fn docker(environment: &Environment) -> Vec<Found> {
    if let Some(named) = contexts::named(environment) {
        return vec![named];
    }
    let mut sockets = vec![environment.root.join("var/run/docker.sock"), runtime_dir(environment).join("docker.sock")];
    // Docker Desktop, Rancher Desktop, Colima and OrbStack, which put their sockets under the home folder.
    let at_home = [
        ".docker/run/docker.sock",
        ".docker/desktop/docker.sock",
        ".rd/docker.sock",
        ".colima/default/docker.sock",
        ".config/colima/default/docker.sock",
        ".orbstack/run/docker.sock",
    ];
    sockets.extend(environment.home.iter().flat_map(|home| at_home.map(|socket| home.join(socket))));
    sockets.into_iter().map(|socket| usual(Kind::Docker, socket)).collect()
}

fn podman(environment: &Environment) -> Vec<Found> {
    if let Some(named) = connections::named(environment) {
        return vec![named];
    }
    let system = (environment.uid == 0).then(|| environment.root.join("run"));
    let runs = system.into_iter().chain([runtime_dir(environment)]).map(|run| run.join("podman/podman.sock"));
    // What `podman machine` puts beside its machine.
    let machine = environment.home.iter().map(|home| home.join(".local/share/containers/podman/machine/podman.sock"));
    runs.chain(machine).map(|socket| usual(Kind::Podman, socket)).chain(connections::default(environment)).collect()
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

/// The containerds that may be the one that a docker on this machine works with, and whether somebody named it.
pub(super) fn docker_containerds(environment: &Environment) -> Vec<(PathBuf, bool)> {
    let unix = |found: Found| match found.address {
        Ok(Address::Unix(path)) => Some((path, found.set)),
        _ => None,
    };
    containerd(environment).into_iter().filter_map(unix).collect()
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

fn docker_set(setting: String, host: &str, beside: Beside) -> Found {
    let address = address::parse(host, Dialer::Docker, beside, &setting);
    Found { place: Place { kind: Kind::Docker, address: address::shown(host), found_by: setting }, address, set: true }
}

fn podman_set(setting: String, host: &str, beside: Beside) -> Found {
    let address = address::parse(host, Dialer::Podman, beside, &setting);
    Found { place: Place { kind: Kind::Podman, address: address::shown(host), found_by: setting }, address, set: true }
}

fn unknown(kind: Kind, setting: String, error: EngineError) -> Found {
    Found { place: Place { kind, address: "unknown".to_owned(), found_by: setting }, address: Err(error), set: true }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    let Some(text) = text(path)? else { return Ok(None) };
    json::read(&text).map(Some).map_err(|source| EngineError::BadSettings { path: path.to_owned(), source })
}

/// A file's text; none if there is no such file.
fn text(path: &Path) -> Result<Option<Vec<u8>>, EngineError> {
    match std::fs::read(path) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        text => text.map(Some).map_err(|source| EngineError::Settings { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

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
            "unix:///h/.rd/docker.sock",
            "unix:///h/.colima/default/docker.sock",
            "unix:///h/.config/colima/default/docker.sock",
            "unix:///h/.orbstack/run/docker.sock",
        ];
        let machine = "unix:///h/.local/share/containers/podman/machine/podman.sock";
        assert_eq!(addresses(Choice::Docker, &at_home), docker);
        assert_eq!(addresses(Choice::Podman, &at_home), ["unix:///r/run/user/1000/podman/podman.sock", machine]);
        let containerd = [
            "unix:///r/run/containerd/containerd.sock",
            "unix:///r/run/k3s/containerd/containerd.sock",
            "unix:///r/run/docker/containerd/containerd.sock",
            "unix:///r/run/user/1000/docker/containerd/containerd.sock",
        ];
        assert_eq!(addresses(Choice::Containerd, &at_home), containerd);
        assert_eq!(addresses(Choice::Auto, &at_home).len(), 14);
        assert!(places(&Choice::Auto, &at_home).iter().all(|f| !f.set && f.address.is_ok()));
        let root = Environment { uid: 0, xdg_runtime_dir: Some("/x".into()), ..at_home };
        assert_eq!(addresses(Choice::Podman, &root), ["unix:///r/run/podman/podman.sock", "unix:///x/podman/podman.sock", machine]);
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
        assert_eq!(addresses(Choice::Docker, &environment).len(), 8, "the context `default` means the usual places");
    }

    #[test]
    fn settings_that_lead_nowhere_are_errors() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("elsewhere");
        let mut environment = Environment { docker_config: Some(folder.clone()), ..environment(home.path()) };
        let mut fails = |host: Option<&str>, context: Option<&str>| {
            environment.docker_host = host.map(str::to_owned);
            environment.docker_context = context.map(str::to_owned);
            let found = only(places(&Choice::Docker, &environment));
            assert!(found.set);
            found.address.unwrap_err()
        };
        assert!(matches!(fails(None, Some("nowhere")), EngineError::NoContext { context, .. } if context == "nowhere"));
        assert!(matches!(fails(Some("npipe:////./pipe/docker"), None), EngineError::Transport { .. }));
        let secret = fails(Some("ssh://me:secret@host"), None);
        assert!(matches!(&secret, EngineError::Address { address, .. } if address == "ssh://me:…@host"), "{secret:?}");
        written(folder.join("config.json"), "{");
        assert!(matches!(fails(None, None), EngineError::BadSettings { .. }));
    }

    fn tls(found: Found) -> Option<Tls> {
        match found.address.unwrap() {
            Address::Tls(_, 2376, tls) => Some(tls),
            Address::Tcp(_, 2375) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tls_is_spoken_with_what_the_settings_name() {
        let home = tempfile::tempdir().unwrap();
        let (certs, folder) = (home.path().join("certs"), home.path().join(".docker"));
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            written(certs.join(file), "");
        }
        let mut environment = Environment { docker_host: Some("tcp://host".into()), ..environment(home.path()) };
        let docker = |environment: &Environment| tls(only(places(&Choice::Docker, environment)));
        assert_eq!(docker(&environment), None);
        environment.docker_cert_path = Some(certs.clone());
        assert_eq!(docker(&environment), None, "a folder alone does not ask for TLS");
        environment.docker_tls_verify = true;
        let whole = Tls { ca: Some(certs.join("ca.pem")), identity: Some((certs.join("cert.pem"), certs.join("key.pem"))), anybody: false };
        assert_eq!(docker(&environment), Some(whole.clone()));
        environment.docker_cert_path = None;
        assert_eq!(docker(&environment), Some(Tls { ca: Some(folder.join("ca.pem")), ..Tls::default() }), "the authority is not optional");
        (environment.docker_tls_verify, environment.docker_tls) = (false, true);
        assert_eq!(docker(&environment), Some(Tls { anybody: true, ..Tls::default() }));

        (environment.docker_tls, environment.docker_host) = (false, None);
        let material = with_context(&folder, "safe", "tcp://host").join("docker");
        environment.docker_context = Some("safe".into());
        assert_eq!(docker(&environment), None);
        written(material.join("ca.pem"), "");
        assert_eq!(docker(&environment), Some(Tls { ca: Some(material.join("ca.pem")), ..Tls::default() }));
        let meta = folder.join("contexts/meta").join(Digest::of(b"safe").hex()).join("meta.json");
        written(meta, r#"{"Endpoints":{"docker":{"Host":"tcp://host","SkipTLSVerify":true}}}"#);
        assert_eq!(docker(&environment), Some(Tls { ca: Some(material.join("ca.pem")), anybody: true, ..Tls::default() }));
    }

    #[test]
    fn podmans_connections_are_read_from_both_of_its_files() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/containers");
        written(
            folder.join("containers.conf"),
            "[engine]\nactive_service = \"old\"\n[engine.service_destinations.old]\nuri = \"unix:///old.sock\"\nidentity = \"/k\"\n",
        );
        written(folder.join("containers.conf.d/more.conf"), "[engine.service_destinations.more]\nuri = \"unix:///more.sock\"\n");
        let mut environment = environment(home.path());
        let last = |environment: &Environment| places(&Choice::Podman, environment).pop().unwrap();
        let default = last(&environment);
        assert_eq!((default.place.address.as_str(), default.set), ("unix:///old.sock", false), "a default is tried after the usual places");
        assert_eq!(default.place.found_by, "the connection `old`");
        written(
            folder.join("podman-connections.json"),
            r#"{"Connection":{"Default":"new","Connections":{"new":{"URI":"ssh://core@127.0.0.1:5/p.sock","Identity":"/key","IsMachine":true}}}}"#,
        );
        let Address::Ssh(ssh) = last(&environment).address.unwrap() else { panic!("no ssh") };
        assert_eq!((ssh.key, ssh.machine, ssh.port), (Some("/key".into()), true, Some(5)));

        environment.container_connection = Some("more".into());
        let named = only(places(&Choice::Podman, &environment));
        assert_eq!((named.place.address.as_str(), named.set), ("unix:///more.sock", true));
        environment.container_connection = Some("nowhere".into());
        let error = only(places(&Choice::Podman, &environment)).address.unwrap_err();
        assert!(matches!(&error, EngineError::NoConnection { known, .. } if known == &["more", "new", "old"]), "{error:?}");
        environment.container_host = Some("ssh://host/p.sock".into());
        environment.container_sshkey = Some("/mine".into());
        let Address::Ssh(ssh) = only(places(&Choice::Podman, &environment)).address.unwrap() else { panic!("no ssh") };
        assert_eq!((ssh.key, ssh.socket.as_deref()), (Some("/mine".into()), Some("/p.sock")));

        environment.container_host = None;
        written(folder.join("containers.conf"), "[engine");
        let error = only(places(&Choice::Podman, &environment)).address.unwrap_err();
        assert!(matches!(error, EngineError::BadToml { .. }), "{error:?}");
        let only = home.path().join("only.conf");
        written(only.clone(), "[engine.service_destinations.one]\nuri = \"unix:///one.sock\"\n");
        (environment.containers_conf, environment.container_connection) = (Some(only), Some("one".into()));
        assert_eq!(addresses(Choice::Podman, &environment), ["unix:///one.sock"]);
    }
}
