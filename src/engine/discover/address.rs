//! Addresses of engines, as people write them.

use std::path::PathBuf;

use super::super::EngineError;

/// The ports that docker has where nobody says another, without and with TLS.
const PORTS: (u16, u16) = (2375, 2376);
/// What an address looks like.
const EXPECTED: &str = "unix:///path/to/a.sock, tcp://host:port or ssh://user@host";

/// How to reach an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Address {
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String, u16),
    /// The same behind TLS.
    Tls(String, u16, Tls),
    /// Through the system's ssh.
    Ssh(Ssh),
}

/// What a connection with TLS is made with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::engine) struct Tls {
    /// The only authorities that are trusted; where there are none, the system's.
    pub(in crate::engine) ca: Option<PathBuf>,
    /// Certificate and key that the engine is shown.
    pub(in crate::engine) identity: Option<(PathBuf, PathBuf)>,
    /// Whether the engine's certificate is not looked at, since somebody said so.
    pub(in crate::engine) anybody: bool,
}

/// An engine on a machine that ssh leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Ssh {
    pub(in crate::engine) user: Option<String>,
    pub(in crate::engine) host: String,
    pub(in crate::engine) port: Option<u16>,
    /// The file with the key; else what ssh's own settings say.
    pub(in crate::engine) key: Option<PathBuf>,
    /// Whether it is a virtual machine on this one, which has another host key whenever it is made anew.
    pub(in crate::engine) machine: bool,
    /// The engine's socket over there; else where its command line finds it.
    pub(in crate::engine) socket: Option<String>,
    /// The engine's command line, which passes on what it is sent.
    pub(in crate::engine) engine: Dialer,
}

/// Whose command line passes on what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Dialer {
    Docker,
    Podman,
}

/// What belongs to an address besides its text.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    /// How TLS is spoken, if it is to be.
    pub(super) tls: Option<Tls>,
    /// The key that ssh is to use.
    pub(super) key: Option<PathBuf>,
    /// Whether ssh leads to a virtual machine on this one.
    pub(super) machine: bool,
}

impl Ssh {
    /// What ssh is told, from its first argument on.
    pub(in crate::engine) fn arguments(&self, patience: u64) -> Vec<String> {
        let mut arguments = vec!["-T".to_owned(), "-o".to_owned(), "BatchMode=yes".to_owned()];
        arguments.extend(["-o".to_owned(), format!("ConnectTimeout={}", patience.max(1))]);
        if self.machine {
            let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
            arguments.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option.to_owned()]));
        }
        let with = |flag: &str, value: Option<String>| value.map(|value| [flag.to_owned(), value]);
        let key = self.key.as_ref().map(|key| key.display().to_string());
        let more = [with("-l", self.user.clone()), with("-p", self.port.map(|port| port.to_string())), with("-i", key)];
        arguments.extend(more.into_iter().flatten().flatten());
        arguments.extend(["--".to_owned(), self.host.clone()]);
        let (program, option) = match self.engine {
            Dialer::Docker => ("docker", "--host"),
            Dialer::Podman => ("podman", "--url"),
        };
        arguments.push(program.to_owned());
        // What stands here is read by a shell; paths that mean something to one were refused.
        arguments.extend(self.socket.iter().flat_map(|socket| [option.to_owned(), format!("unix://{socket}")]));
        arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        arguments
    }
}

/// Reads an address for which docker or podman is expected.
pub(super) fn parse(host: &str, engine: Dialer, beside: Beside, setting: &str) -> Result<Address, EngineError> {
    let (setting, address) = (setting.to_owned(), shown(host));
    let (scheme, rest) = host.split_once("://").unwrap_or(("", host));
    let rest_of_url = rest.strip_suffix('/').unwrap_or(rest);
    let tls = || beside.tls.clone().unwrap_or_default();
    let found = match scheme {
        "unix" => Some(Address::Unix(rest.into())).filter(|_| rest.starts_with('/')),
        "tcp" | "http" if beside.tls.is_none() => host_and_port(rest_of_url, PORTS.0).map(|(host, port)| Address::Tcp(host, port)),
        "tcp" | "http" | "https" => host_and_port(rest_of_url, PORTS.1).map(|(host, port)| Address::Tls(host, port, tls())),
        "ssh" => ssh(rest, engine, &beside).map(Address::Ssh),
        "npipe" => return Err(EngineError::Transport { setting, address, transport: "a named pipe" }),
        _ => None,
    };
    found.ok_or(EngineError::Address { setting, address, expected: EXPECTED })
}

/// An address without the password that somebody may have put there.
pub(super) fn shown(host: &str) -> String {
    let Some((scheme, rest)) = host.split_once("://") else { return host.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) {
        Some((user, secret)) => format!("{scheme}://{user}:…{}", &rest[user.len() + 1 + secret.len()..]),
        None => host.to_owned(),
    }
}

/// `[user@]host[:port][/path]`, of words that are safe on a command line.
fn ssh(text: &str, engine: Dialer, beside: &Beside) -> Option<Ssh> {
    let (place, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (user, place) = match place.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, place),
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (place, None),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let safe = |text: &str, more: &str| {
        !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let socket = Some(path).filter(|path| !matches!(*path, "" | "/"));
    let fine = safe(host, ".-_:%") && user.is_none_or(|user| safe(user, ".-_+@\\")) && socket.is_none_or(|path| safe(path, "/.-_:@+"));
    fine.then(|| Ssh {
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
        key: beside.key.clone(),
        machine: beside.machine && matches!(host, "127.0.0.1" | "localhost" | "::1"),
        socket: socket.map(str::to_owned),
        engine,
    })
}

fn host_and_port(text: &str, usual: u16) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        // The colon may be one inside an IPv6 address in brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (text, usual),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    plain.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, tls: Option<Tls>) -> Option<Address> {
        parse(text, Dialer::Docker, Beside { tls, ..Beside::default() }, "here").ok()
    }

    #[test]
    fn addresses_are_read() {
        let tls = || Some(Tls { anybody: true, ..Tls::default() });
        let tcp = |host: &str, port| Some(Address::Tcp(host.into(), port));
        let safe = |host: &str, port| Some(Address::Tls(host.into(), port, tls().unwrap()));
        let table = [
            ("unix:///a/b.sock", None, Some(Address::Unix("/a/b.sock".into()))),
            ("tcp://host", None, tcp("host", 2375)),
            ("tcp://host/", None, tcp("host", 2375)),
            ("http://host:1", None, tcp("host", 1)),
            ("tcp://[::1]:2", None, tcp("::1", 2)),
            ("tcp://[::1]", tls(), safe("::1", 2376)),
            ("tcp://host", tls(), safe("host", 2376)),
            ("https://host:3", None, Some(Address::Tls("host".into(), 3, Tls::default()))),
            ("unix:///a", tls(), Some(Address::Unix("/a".into()))),
        ];
        for (text, tls, expected) in table {
            assert_eq!(address(text, tls), expected, "{text}");
        }
    }

    #[test]
    fn ssh_is_told_what_the_address_says() {
        let always = "-T -o BatchMode=yes -o ConnectTimeout=7";
        let table = [
            ("ssh://host", Dialer::Docker, "-- host docker system dial-stdio"),
            ("ssh://host/", Dialer::Docker, "-- host docker system dial-stdio"),
            ("ssh://me@host:22", Dialer::Docker, "-l me -p 22 -- host docker system dial-stdio"),
            ("ssh://me@[fe80::1%eth0]:2", Dialer::Docker, "-l me -p 2 -- fe80::1%eth0 docker system dial-stdio"),
            ("ssh://host/run/d.sock", Dialer::Docker, "-- host docker --host unix:///run/d.sock system dial-stdio"),
            ("ssh://me@host/run/p.sock", Dialer::Podman, "-l me -- host podman --url unix:///run/p.sock system dial-stdio"),
        ];
        for (text, engine, expected) in table {
            let Address::Ssh(ssh) = parse(text, engine, Beside::default(), "here").unwrap() else { panic!("{text}") };
            assert_eq!(ssh.arguments(7).join(" "), format!("{always} {expected}"), "{text}");
        }
        let machine = Beside { key: Some("/k".into()), machine: true, tls: None };
        let told = |host: &str| match parse(host, Dialer::Podman, machine.clone(), "here").unwrap() {
            Address::Ssh(ssh) => ssh.arguments(0).join(" "),
            other => panic!("{other:?}"),
        };
        let near = told("ssh://core@127.0.0.1:5/run/p.sock");
        assert!(near.contains("StrictHostKeyChecking=no") && near.contains("-p 5 -i /k -- 127.0.0.1"), "{near}");
        assert!(!told("ssh://core@elsewhere/run/p.sock").contains("StrictHostKeyChecking"), "only this machine may have any key");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let bad = [
            "host:1",
            "/a.sock",
            "unix://a.sock",
            "tcp://",
            "tcp://host:port",
            "tcp://host:99999",
            "tcp://a/b:1",
            "tcp://me@host:1",
            "x://y",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://me:secret@host",
            "ssh://host:port",
            "ssh://a b",
            "ssh://host/a;b",
            "ssh://host/$(x)",
            "ssh://host?x",
            "ssh://host/a#b",
        ];
        for text in bad {
            assert_eq!(address(text, None), None, "{text}");
        }
        let pipe = parse("npipe:////./pipe/docker", Dialer::Docker, Beside::default(), "here");
        assert!(matches!(pipe, Err(EngineError::Transport { transport: "a named pipe", .. })));
    }
}
