//! Who is told a secret, and who is asked at all: ways in which others' software was led astray, each with the same two questions.
//!
//! Every case runs through a proxy that stands for all hosts and keeps every byte that any of them was sent. Always true at the end:
//! nobody but the registry, and the token server on its own host, was sent a password, a token or a header that was meant for it; nobody was
//! asked at an address where no registry may be.

use larder::digest::Digest;
use larder::event::silent;
use larder::oci::Descriptor;
use larder::upstream::{At, Login, Proxies, Settings, Upstream};

use super::super::support::world::{Heard, Reply, World};
use super::{MANIFEST, login, repository, run, settings};

/// What no other host may be sent: the password, plain and in base64, what is exchanged for tokens, and the tokens.
const SECRETS: [&str; 5] = ["s3cret", "YWxpY2U6czNjcmV0", "1dentity", "t0ken", "r3gistrytoken"];

type Headers = Vec<(&'static str, String)>;

/// The registry.
const HOST: &str = "registry.example";

/// What alice has for the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Password,
    Identity,
    RegistryToken,
}

const ALL: [Has; 3] = [Has::Password, Has::Identity, Has::RegistryToken];

impl Has {
    fn settings(self, folder: &std::path::Path) -> Settings {
        let entry = match self {
            Has::Password => return Settings { logins: vec![alice()], ..settings() },
            Has::Identity => r#"{"identitytoken":"1dentity"}"#,
            Has::RegistryToken => r#"{"registrytoken":"r3gistrytoken"}"#,
        };
        let path = folder.join("config.json");
        std::fs::write(&path, format!(r#"{{"auths":{{"{HOST}":{entry}}}}}"#)).unwrap();
        Settings { credential_files: vec![path], ..settings() }
    }
}

fn alice() -> Login {
    login(HOST, "alice", "s3cret")
}

/// The hosts that are asked by plain HTTP, so that all that is said can be heard.
fn open(settings: Settings, world: &World) -> Upstream {
    let names = [
        HOST,
        "*.registry.example",
        "evil.example",
        "*.evil.example",
        "mirror.example",
        "auth.docker.io",
        "xregistry.example",
        "[2001:db8::5]",
    ];
    let proxies = Proxies::new(Some(&world.proxy()), Some(&world.proxy()), "").unwrap();
    Upstream::new(Settings { insecure: names.map(str::to_owned).to_vec(), proxies, tries: 1, ..settings }).unwrap()
}

/// The origin that a request went to.
fn origin(heard: &Heard) -> &str {
    heard.url.split('/').nth(2).unwrap_or(&heard.url)
}

fn plain() -> Reply {
    (200, vec![("content-type", MANIFEST.to_owned())], "{}".to_owned())
}

fn knows(heard: &Heard) -> bool {
    heard.text.to_ascii_lowercase().contains("\nauthorization:")
}

fn challenge(text: impl Into<String>) -> Reply {
    (401, vec![("www-authenticate", text.into())], String::new())
}

/// Asks for a manifest and a blob, whatever comes of it; says what was told to whom.
fn ask(upstream: &Upstream, host: &str) {
    let of = repository(&format!("{host}/some/app"));
    let blob = Descriptor { media_type: "x".to_owned(), digest: Digest::of(b"{}"), size: 2 };
    let _ = run(upstream.manifest(&of, At::Tag("1"), &silent));
    let _ = run(async {
        let mut stream = upstream.blob(&of, &blob, 0, None, &silent).await?;
        stream.chunk().await
    });
}

/// The one law. `allowed` are the origins that the secrets are for.
fn judge(case: &str, world: &World, allowed: &[&str]) {
    let heard = world.heard();
    assert!(!heard.is_empty(), "{case}: nobody was asked anything");
    for heard in &heard {
        if !allowed.contains(&origin(heard)) {
            let told = SECRETS.iter().find(|secret| heard.text.contains(**secret));
            assert!(told.is_none(), "{case}: {} was told {told:?}\n{}", heard.url, heard.text);
            assert!(!knows(heard) || heard.text.contains("harmless"), "{case}: {} was sent\n{}", heard.url, heard.text);
        }
        assert!(!heard.text.to_ascii_lowercase().contains("\ncookie:"), "{case}: a cookie went to {}", heard.url);
        assert!(!heard.text.to_ascii_lowercase().contains("\nreferer:"), "{case}: {} knows where we came from", heard.url);
    }
}

/// Realms that are not the registry's own, however they are written.
const REALMS: [&str; 20] = [
    "http://evil.example/token",
    "http://evil.example:80/token",
    "http://sub.registry.example/token",
    "http://xregistry.example/token",
    "http://registry.example.evil.example/token",
    "http://evil.example/registry.example/token",
    "http://evil.example?registry.example",
    "http://evil.example#@registry.example/",
    "http://evil.example\\@registry.example/token",
    "http://registry.example@evil.example/token",
    "http://registry.example:80@evil.example/token",
    "http://alice:x@registry.example/token",
    "http:evil.example/token",
    "//evil.example/token",
    "http:///evil.example/token",
    "http://auth.docker.io/token",
    "HTTP://EVIL.EXAMPLE/token",
    "http://evil%2eexample/token",
    "http://[2001:db8::5]/token",
    "ftp://registry.example/token",
];

#[test]
fn a_realm_is_sent_no_secret_unless_it_belongs_to_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for has in ALL {
        for realm in REALMS {
            let world = World::new(move |heard| match origin(heard) {
                HOST if heard.text.contains("Bearer harmless") => plain(),
                HOST => challenge(format!(r#"Bearer realm="{realm}",service="s",scope="repository:some/app:pull""#)),
                _ => (200, vec![], r#"{"token":"harmless"}"#.to_owned()),
            });
            ask(&open(has.settings(folder.path()), &world), HOST);
            judge(&format!("{has:?} {realm}"), &world, &[HOST]);
            cases += 1;
        }
    }
    assert!(cases >= 60, "{cases}");
}

#[test]
fn a_challenge_of_several_voices_leads_to_no_other_host() {
    let folder = tempfile::tempdir().unwrap();
    let voices = [
        r#"Bearer realm="http://registry.example/token",realm="http://evil.example/token""#,
        r#"Bearer REALM="http://evil.example/token""#,
        r#"Basic realm="x", Bearer realm="http://evil.example/token""#,
        r#"Bearer realm="http://evil.example/token", Basic realm="http://registry.example/""#,
        r#"Bearer realm="http://registry.example/token\"http://evil.example/""#,
        r#"Bearer realm=http://evil.example/token"#,
        r#"Negotiate, Bearer realm="http://evil.example/token""#,
        r#"Basic realm="http://evil.example/""#,
        r#"Bearer realm="http://registry.example/token",service="http://evil.example/",scope="http://evil.example/ a b""#,
    ];
    for has in ALL {
        for voice in voices {
            let world = World::new(move |heard| match (origin(heard), heard.url.contains("/token")) {
                (HOST, true) => (200, vec![], r#"{"token":"t0ken"}"#.to_owned()),
                (HOST, false) if heard.text.contains("Bearer t0ken") => plain(),
                (HOST, false) => challenge(voice),
                _ => (200, vec![], r#"{"token":"harmless"}"#.to_owned()),
            });
            ask(&open(has.settings(folder.path()), &world), HOST);
            judge(&format!("{has:?} {voice}"), &world, &[HOST]);
        }
    }
}

/// Where a registry may say that something is, and whether anybody else may be asked.
const LOCATIONS: [&str; 22] = [
    "http://evil.example/x",
    "http://evil.example:5000/x",
    "http://registry.example:5000/x",
    "http://registry.example:443/x",
    "http://sub.registry.example/x",
    "http://registry.example.evil.example/x",
    "http://xregistry.example/x",
    "//evil.example/x",
    "/\\evil.example/x",
    "\\\\evil.example/x",
    "http:\\\\evil.example\\x",
    "http:///evil.example/x",
    "http:evil.example/x",
    "http://alice:s3cret-of-mine@evil.example/x",
    "http://registry.example@evil.example/x",
    "http://evil.example#@registry.example/x",
    "http://evil.example?@registry.example/x",
    "http://[2001:db8::5]/x",
    "HTTP://EVIL.EXAMPLE/x",
    "https://evil.example/x",
    "http://evil.example/there?back=1",
    "http://evil.example/there?on=1",
];

#[test]
fn where_a_registry_leads_nobody_is_told_anything() {
    let folder = tempfile::tempdir().unwrap();
    for (n, location) in LOCATIONS.into_iter().enumerate() {
        for (has, status) in [(Has::Password, 307), (Has::RegistryToken, [301, 302, 303, 308][n % 4])] {
            let world = World::new(move |heard| match origin(heard) {
                HOST if heard.url.ends_with("/back") => plain(),
                HOST if knows(heard) => {
                    (status, vec![("location", location.to_owned()), ("set-cookie", "s3cret=1; Domain=example".to_owned())], String::new())
                }
                HOST => challenge("Basic realm=\"x\""),
                _ if heard.url.contains("back=1") => (307, vec![("location", "http://registry.example/back".to_owned())], String::new()),
                _ if heard.url.contains("on=1") => (307, vec![("location", "http://b2.evil.example/x".to_owned())], String::new()),
                _ => plain(),
            });
            ask(&open(has.settings(folder.path()), &world), HOST);
            let case = format!("{has:?} {status} {location}");
            judge(&case, &world, &[HOST]);
            // What was left once is told nothing more, even if the way leads back.
            assert!(world.heard().iter().all(|h| !h.url.ends_with("/back") || !knows(h)), "{case}");
        }
    }
}

#[test]
fn whoever_was_led_to_may_ask_for_secrets_in_vain() {
    let folder = tempfile::tempdir().unwrap();
    let wishes = [
        r#"Basic realm="registry.example""#,
        r#"Bearer realm="http://evil.example/token""#,
        r#"Bearer realm="http://registry.example/token",service="registry.example""#,
        r#"Negotiate"#,
    ];
    for has in ALL {
        for wish in wishes {
            let world = World::new(move |heard| match (origin(heard), heard.url.contains("/token")) {
                (HOST, true) => (200, vec![], r#"{"token":"t0ken"}"#.to_owned()),
                (HOST, false) if knows(heard) => (307, vec![("location", "http://evil.example/x".to_owned())], String::new()),
                (HOST, false) => challenge("Basic realm=\"x\", Bearer realm=\"http://registry.example/token\""),
                _ => challenge(wish),
            });
            ask(&open(has.settings(folder.path()), &world), HOST);
            judge(&format!("{has:?} {wish}"), &world, &[HOST]);
        }
    }
}

#[test]
fn a_token_server_leads_nobody_astray() {
    let folder = tempfile::tempdir().unwrap();
    for has in [Has::Password, Has::Identity] {
        for location in
            ["http://evil.example/token", "http://registry.example:5000/token", "//evil.example/token", "http://sub.registry.example/t"]
        {
            for status in [301, 302, 303, 307, 308] {
                let world = World::new(move |heard| match (origin(heard), heard.url.contains("/token")) {
                    (HOST, true) => (status, vec![("location", location.to_owned())], String::new()),
                    (HOST, false) => challenge("Bearer realm=\"http://registry.example/token\""),
                    _ => (200, vec![], r#"{"token":"harmless"}"#.to_owned()),
                });
                ask(&open(has.settings(folder.path()), &world), HOST);
                judge(&format!("{has:?} {status} {location}"), &world, &[HOST]);
            }
        }
    }
}

#[test]
fn what_looks_like_a_way_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = || "http://evil.example/x".to_owned();
    let replies: [(&str, u16, Headers); 9] = [
        ("a success with a location", 200, vec![("location", elsewhere())]),
        ("created", 201, vec![("location", elsewhere())]),
        ("many choices", 300, vec![("location", elsewhere())]),
        ("not changed", 304, vec![("location", elsewhere())]),
        ("use a proxy", 305, vec![("location", elsewhere())]),
        ("a refusal with a location", 403, vec![("location", elsewhere())]),
        ("refresh", 200, vec![("refresh", format!("0; url={}", elsewhere()))]),
        ("content-location and link", 200, vec![("content-location", elsewhere()), ("link", format!("<{}>; rel=next", elsewhere()))]),
        ("another service", 200, vec![("alt-svc", "h2=\"evil.example:443\"".to_owned())]),
    ];
    for (case, status, headers) in replies {
        let world =
            World::new(move |heard| if knows(heard) { (status, headers.clone(), "{}".into()) } else { challenge("Basic realm=\"x\"") });
        ask(&open(Has::Password.settings(folder.path()), &world), HOST);
        judge(case, &world, &[HOST]);
        assert!(world.heard().iter().all(|heard| origin(heard) == HOST), "{case}: {:?}", world.heard());
    }
}

#[test]
fn an_entry_for_one_registry_is_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [
        HOST,
        "https://registry.example/v1/",
        "registry.example/some",
        "registry.example/some/app",
        "https://registry.example",
        "registry.example/",
    ];
    let others = [
        "evil.example",
        "evil.example/registry.example",
        "sub.registry.example",
        "xregistry.example",
        "registry.example:5000",
        "registry.example.evil.example",
    ];
    for key in keys {
        for other in others {
            let path = folder.path().join("config.json");
            std::fs::write(&path, format!(r#"{{"auths":{{"{key}":{{"auth":"YWxpY2U6czNjcmV0"}}}}}}"#)).unwrap();
            let world = World::new(|heard| if knows(heard) { plain() } else { challenge("Basic realm=\"registry.example\"") });
            ask(&open(Settings { credential_files: vec![path], ..settings() }, &world), other);
            judge(&format!("{key} {other}"), &world, &[]);
        }
    }
}

/// Where no registry may be, in every spelling.
const FORBIDDEN: [&str; 30] = [
    "169.254.169.254",
    "169.254.169.254:80",
    "169.254.170.2",
    "169.254.0.1",
    "169.254.255.255:5000",
    "2852039166",
    "0xA9FEA9FE",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "0251.254.0xa9.254",
    "169.254.169.254.",
    "[fe80::1]",
    "[fe80::1]:5000",
    "[febf::ffff]",
    "[fe90::a9fe:a9fe]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:169.254.169.254]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[fd00:ec2::254]",
    "[fd00:0ec2:0:0:0:0:0:254]:80",
    "100.100.100.200",
    "100.100.100.200:8080",
    "0144.0144.0144.0310",
    "1684301000",
    "0x646464c8",
];

#[test]
fn nobody_is_asked_where_no_registry_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for forbidden in FORBIDDEN {
        for (way, scheme) in ["realm", "location", "location behind another"].into_iter().flat_map(|way| [(way, "http"), (way, "https")]) {
            let there = format!("{scheme}://{forbidden}/latest/meta-data");
            let world = World::new(move |heard| match (origin(heard), way) {
                (HOST, "realm") => challenge(format!("Bearer realm=\"{there}\"")),
                (HOST, "location") | ("evil.example", _) => (307, vec![("location", there.clone())], String::new()),
                (HOST, _) => (307, vec![("location", "http://evil.example/x".to_owned())], String::new()),
                _ => plain(),
            });
            let settings = Has::Password.settings(folder.path());
            // Naming such a host insecure is no leave to ask it.
            let proxies = Proxies::new(Some(&world.proxy()), Some(&world.proxy()), "").unwrap();
            let insecure = [HOST, "evil.example", forbidden.trim_end_matches('.')].map(str::to_owned).to_vec();
            let upstream = Upstream::new(Settings { insecure, proxies, tries: 1, ..settings }).unwrap();
            ask(&upstream, HOST);
            let case = format!("{way} {scheme}://{forbidden}");
            judge(&case, &world, &[HOST]);
            let asked: Vec<String> = world.heard().iter().map(|h| h.url.clone()).collect();
            assert!(world.heard().iter().all(|h| matches!(origin(h), HOST | "evil.example")), "{case}: {asked:?}");
            cases += 1;
        }
    }
    assert_eq!(cases, 180);
}
