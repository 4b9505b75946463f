//! What is kept for one of several that are asked: more of the corpus.
//!
//! A mirror and the registry behind it are strangers to each other. Every case is judged by what each of them was sent.

use std::path::Path;

use larder::event::silent;
use larder::reference::Reference;
use larder::upstream::{At, By, Login, Mirror, Mirrored, Proxies, Settings, Upstream};

use super::super::support::world::{Heard, Reply, World};
use super::{MANIFEST, login, run, settings};

const REGISTRY: &str = "registry.example";
const MIRROR: &str = "mirror.example";
const EVIL: &str = "evil.example";

/// What is kept for whom: the password in base64, and a header.
const SECRETS: [(&str, &[&str]); 2] = [(REGISTRY, &["b3JpZ2luOnMzY3JldA=="]), (MIRROR, &["bWlycm9yOm0xcnJvcg==", "x-key: k3y"])];

/// Who names the mirror, and whether it is sent a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Own,
    Podman,
    Containerd,
}

impl Named {
    fn settings(self, folder: &Path, world: &World) -> Settings {
        let proxies = Proxies::new(Some(&world.proxy()), Some(&world.proxy()), "").unwrap();
        let insecure = [REGISTRY, MIRROR, EVIL].map(str::to_owned).to_vec();
        let settings = Settings { proxies, insecure, tries: 1, logins: logins(), ..settings() };
        match self {
            Named::Own => {
                let mirror = Mirror { location: MIRROR.to_owned(), tags: true };
                let mirrors = vec![Mirrored { prefix: REGISTRY.to_owned(), mirrors: vec![mirror], path: "config.toml".into() }];
                Settings { mirrors, ..settings }
            }
            Named::Podman => {
                let path = folder.join("registries.conf");
                std::fs::write(&path, format!("[[registry]]\nlocation = \"{REGISTRY}\"\n[[registry.mirror]]\nlocation = \"{MIRROR}\"\n"))
                    .unwrap();
                Settings { registries_files: vec![path], ..settings }
            }
            Named::Containerd => {
                std::fs::create_dir_all(folder.join(REGISTRY)).unwrap();
                let text = format!("[host.\"http://{MIRROR}\"]\n[host.\"http://{MIRROR}\".header]\nx-key = \"k3y\"\n");
                std::fs::write(folder.join(REGISTRY).join("hosts.toml"), text).unwrap();
                Settings { hosts_folders: vec![folder.to_owned()], ..settings }
            }
        }
    }
}

fn logins() -> Vec<Login> {
    vec![login(REGISTRY, "origin", "s3cret"), login(MIRROR, "mirror", "m1rror")]
}

fn host(heard: &Heard) -> &str {
    heard.url.split('/').nth(2).unwrap_or(&heard.url)
}

fn to(location: &str) -> Reply {
    (307, vec![("location", location.to_owned())], String::new())
}

fn challenge(text: &str) -> Reply {
    (401, vec![("www-authenticate", text.to_owned())], String::new())
}

/// What the mirror answers; what does not come from it is asked of the registry, which wants its password.
fn conducts() -> Vec<(&'static str, Reply)> {
    let there = |host: &str| format!("http://{host}/v2/some/app/manifests/1");
    vec![
        ("gives it", (200, vec![("content-type", MANIFEST.to_owned())], "{}".to_owned())),
        ("has nothing", (404, vec![], String::new())),
        ("fails", (503, vec![], String::new())),
        ("wants a password", challenge("Basic realm=\"x\"")),
        ("wants the registry's", challenge("Basic realm=\"registry.example\"")),
        ("wants a token of its own", challenge("Bearer realm=\"http://mirror.example/token\"")),
        ("wants the registry's token", challenge("Bearer realm=\"http://registry.example/token\",service=\"registry.example\"")),
        ("wants another's token", challenge("Bearer realm=\"http://evil.example/token\"")),
        ("leads to the registry", to(&there(REGISTRY))),
        ("leads elsewhere", to(&there(EVIL))),
        ("leads to another port", to(&there("mirror.example:5000"))),
        ("leads to the registry's token server", to("http://registry.example/token?service=registry.example")),
    ]
}

#[test]
fn a_mirror_and_its_registry_are_told_what_is_theirs() {
    let mut cases = 0;
    for named in [Named::Own, Named::Podman, Named::Containerd] {
        for (conduct, reply) in conducts() {
            for after in ["at once", "for a password"] {
                let folder = tempfile::tempdir().unwrap();
                let reply = reply.clone();
                let world = World::new(move |heard| {
                    let knows = heard.text.to_ascii_lowercase().contains("\nauthorization:");
                    match host(heard) {
                        MIRROR if heard.url.contains("/token") => (200, vec![], r#"{"token":"harmless"}"#.to_owned()),
                        MIRROR if after == "for a password" && !knows => challenge("Basic realm=\"x\""),
                        MIRROR => reply.clone(),
                        REGISTRY if !knows => challenge("Basic realm=\"x\""),
                        REGISTRY => (200, vec![("content-type", MANIFEST.to_owned())], "{}".to_owned()),
                        // Whoever is led here is asked for everything.
                        _ if heard.url.contains("/token") => (200, vec![], r#"{"token":"harmless"}"#.to_owned()),
                        _ => challenge("Basic realm=\"registry.example\""),
                    }
                });
                ask(&Upstream::new(named.settings(folder.path(), &world)).unwrap());
                judge(&format!("{named:?}, the mirror {conduct} {after}"), named, &world);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 72);
}

/// Asks for a tag at each place in turn, until one gives it.
fn ask(upstream: &Upstream) {
    let reference: Reference = format!("{REGISTRY}/some/app").parse().unwrap();
    for place in upstream.places(reference.repository(), By::Tag).unwrap() {
        if run(upstream.manifest(&place, At::Tag("1"), &silent)).is_ok() {
            return;
        }
    }
}

fn judge(case: &str, named: Named, world: &World) {
    let heard = world.heard();
    assert!(heard.iter().any(|heard| host(heard) == MIRROR), "{case}: the mirror was not asked");
    for heard in &heard {
        for (owner, secrets) in SECRETS {
            let told = secrets.iter().find(|secret| heard.text.contains(**secret));
            assert!(told.is_none() || host(heard) == owner, "{case}: {} was told {told:?}\n{}", heard.url, heard.text);
        }
    }
    let keyed = heard.iter().any(|heard| heard.text.contains("x-key: k3y"));
    assert_eq!(keyed, named == Named::Containerd, "{case}");
}
