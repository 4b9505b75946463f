//! Who asks, and whom that is told.

use std::path::PathBuf;

use base64::Engine;
use futures_util::future::join_all;
use larder::upstream::{At, Settings, Source, UpstreamError as E};
use tempfile::TempDir;

use super::super::support::registry::{Access, Fault, Registry, TokenServer, Tokens};
use super::{Door, assert_matches, content, everything, login, run, settings};

/// Base64 of `alice:s3cret`.
fn alice() -> String {
    base64::engine::general_purpose::STANDARD.encode("alice:s3cret")
}

/// A registry that wants a token from its own token server, which gives them to alice, and perhaps to anyone.
fn guarded(anonymous: bool) -> Registry {
    let registry = Registry::start();
    let tokens = Tokens::default();
    registry.require(Access::Bearer { realm: None, tokens: tokens.clone() });
    registry.serve_tokens(TokenServer { tokens, user: Some(("alice", "s3cret")), anonymous, ..TokenServer::default() });
    registry.put_manifest("some/app", "1", super::MANIFEST, "{}");
    registry
}

/// A file of credentials.
fn file(text: String) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn entry(key: &str, auth: &str) -> String {
    format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#)
}

/// Whether anything that came to this registry holds one of the secrets.
fn leaked(registry: &Registry) -> bool {
    let all = format!("{:?}", registry.seen());
    all.contains(&alice()) || all.contains("s3cret") || registry.seen().iter().any(|s| !s.header("authorization").is_empty())
}

#[test]
fn one_token_does_for_all_that_is_asked_at_once() {
    let door = Door::to(guarded(true), settings());
    let blobs: Vec<_> = (1..9).map(|n| door.put(&content(n * 1000))).collect();
    for (got, end) in run(join_all(blobs.iter().map(|b| door.stream(b, 0)))) {
        end.unwrap();
        assert!(!got.is_empty());
    }
    assert_eq!(door.registry.count("/token"), 1);
    let asked = door.registry.seen().into_iter().find(|s| s.path == "/token").unwrap();
    assert_eq!(asked.query, "service=the%2C+registry&scope=repository%3Asome%2Fapp%3Apull");
    assert_eq!(asked.header("authorization"), "");

    // It is used for what follows, too.
    door.registry.forget();
    door.manifest(At::Tag("1")).unwrap();
    door.head("1").unwrap();
    assert_eq!(door.registry.seen().len(), 2);
    assert!(door.registry.seen().iter().all(|s| s.status == 200));
}

#[test]
fn credentials_open_what_they_are_for() {
    for (key, opens) in [
        ("HOST", true),
        ("HOST/some", true),
        ("HOST/some/app", true),
        ("http://HOST/v1/", true),
        ("https://HOST", true),
        ("HOST/other", false),
        ("elsewhere.io", false),
    ] {
        let registry = guarded(false);
        let (_folder, path) = file(entry(&key.replace("HOST", &registry.host()), &alice()));
        let door = Door::to(registry, Settings { credential_files: vec!["/nowhere/at/all.json".into(), path], ..settings() });
        match door.manifest(At::Tag("1")) {
            Ok(_) => assert!(opens, "{key}"),
            Err(error) => {
                assert!(!opens, "{key}");
                assert_matches!(error, E::NoCredentials { said: Some(_), .. });
            }
        }
    }
}

#[test]
fn a_password_is_sent_to_a_registry_that_wants_it() {
    let registry = Registry::start();
    registry.require(Access::Basic("alice", "s3cret"));
    let door = Door::to(registry, Settings::default());
    door.put_manifest();
    assert_matches!(door.refusal(), E::NoCredentials { .. });
    assert_eq!(door.registry.seen().len(), 1);

    for (password, opens) in [("s3cret", true), ("wrong", false)] {
        let upstream =
            larder::upstream::Upstream::new(Settings { logins: vec![login(&door.registry.host(), "alice", password)], ..settings() })
                .unwrap();
        door.registry.forget();
        let end = run(upstream.manifest(&door.of, At::Tag("1"), &larder::event::silent));
        assert_eq!(door.registry.seen().len(), 2);
        match end {
            Ok(_) => assert!(opens),
            Err(error) => assert_matches!(error, E::CredentialsRefused { from, .. } if !opens && *from == Source::Settings),
        }
    }
}

#[test]
fn wrong_credentials_do_not_stand_in_the_way_of_a_public_image() {
    let wrong = base64::engine::general_purpose::STANDARD.encode("alice:0ld-s3cret");
    for public in [true, false] {
        let registry = guarded(public);
        let (_folder, path) = file(entry(&registry.host(), &wrong));
        let door = Door::to(registry, Settings { credential_files: vec![path.clone()], ..settings() });
        let end = door.manifest(At::Tag("1"));
        assert_eq!(door.registry.count("/token"), 2);
        if let Err(error) = end {
            assert!(!public);
            let from = Source::File { path, key: door.registry.host() };
            assert_matches!(&error, E::CredentialsRefused { from: found, .. } if **found == from);
            assert!(!everything(&error).contains("0ld-s3cret") && !everything(&error).contains(&wrong));
        } else {
            assert!(public);
        }
    }
}

#[test]
fn unreadable_credentials_do_not_stand_in_the_way_of_a_public_image() {
    for public in [true, false] {
        let registry = guarded(public);
        let (_folder, path) = file(r#"{"auths": {"x": "s3cret"}}"#.into());
        let door = Door::to(registry, Settings { credential_files: vec![path], ..settings() });
        let end = door.manifest(At::Tag("1"));
        assert_eq!(end.is_ok(), public);
        if let Err(error) = end {
            assert_matches!(&error, E::CredentialsUnreadable { .. });
            assert!(!everything(&error).contains("s3cret"), "{}", everything(&error));
        }
    }
}

#[test]
fn the_first_place_that_has_something_decides() {
    let registry = guarded(false);
    let wrong = base64::engine::general_purpose::STANDARD.encode("alice:wrong");
    let (_one, good) = file(entry(&registry.host(), &alice()));
    let (_two, bad) = file(entry(&registry.host(), &wrong));
    let (_three, nothing) = file(r#"{"auths":{}}"#.into());
    let cases = [
        (vec![], vec![&good, &bad], true),
        (vec![], vec![&bad, &good], false),
        (vec![], vec![&nothing, &good], true),
        (vec!["wrong"], vec![&good], false),
        (vec!["s3cret"], vec![&bad], true),
    ];
    let of = super::repository(&format!("{}/some/app", registry.host()));
    for (passwords, files, opens) in cases {
        let logins = passwords.iter().map(|p| login(&registry.host(), "alice", p)).collect();
        let settings = Settings { logins, credential_files: files.into_iter().cloned().collect(), ..settings() };
        let upstream = larder::upstream::Upstream::new(settings.clone()).unwrap();
        let end = run(upstream.manifest(&of, At::Tag("1"), &larder::event::silent));
        assert_eq!(end.is_ok(), opens, "{settings:?}");
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}

#[test]
fn an_identity_token_is_exchanged_and_not_sent_on() {
    let registry = guarded(false);
    let tokens = Tokens::default();
    registry.require(Access::Bearer { realm: None, tokens: tokens.clone() });
    registry.serve_tokens(TokenServer {
        tokens: tokens.clone(),
        anonymous: false,
        identity: Some("1dentity"),
        key: "access_token",
        ..TokenServer::default()
    });
    let (_folder, path) = file(format!(r#"{{"auths":{{"{}":{{"auth":"{}","identitytoken":"1dentity"}}}}}}"#, registry.host(), alice()));
    let door = Door::to(registry, Settings { credential_files: vec![path], ..settings() });
    door.manifest(At::Tag("1")).unwrap();
    let asked = door.registry.seen().into_iter().find(|s| s.path == "/token").unwrap();
    assert_eq!((asked.method.as_str(), asked.query.as_str(), asked.header("authorization")), ("POST", "", ""));
    assert_eq!(
        asked.body,
        "grant_type=refresh_token&service=the%2C+registry&client_id=larder&scope=repository%3Asome%2Fapp%3Apull&refresh_token=1dentity"
    );

    tokens.expire();
    let other = Registry::start();
    door.registry.fault("/token", Fault::RedirectTo(other.url("/token")));
    assert_matches!(door.refusal(), E::Status { status: 307, .. });
    assert_eq!(other.connections(), 0);
}

#[test]
fn credentials_are_not_sent_where_the_registry_says_but_where_they_belong() {
    let elsewhere = Registry::start_at(([127, 0, 0, 2], 0).into(), None).unwrap();
    for (anonymous, trusted) in [(true, false), (false, false), (false, true)] {
        elsewhere.forget();
        let tokens = Tokens::default();
        elsewhere.serve_tokens(TokenServer {
            tokens: tokens.clone(),
            user: Some(("alice", "s3cret")),
            anonymous,
            ..TokenServer::default()
        });
        let registry = guarded(true);
        registry.require(Access::Bearer { realm: Some(elsewhere.url("/token")), tokens });
        let (_folder, path) = file(entry(&registry.host(), &alice()));
        let trusted_realms = if trusted { vec!["127.0.0.2".into()] } else { vec![] };
        let door = Door::to(registry, Settings { credential_files: vec![path], trusted_realms, ..settings() });
        let end = door.manifest(At::Tag("1"));
        assert_eq!(leaked(&elsewhere), trusted);
        assert_eq!(elsewhere.count("/token"), 1);
        match end {
            Ok(_) => assert!(anonymous || trusted),
            Err(error) => assert_matches!(error, E::CredentialsWithheld { realm, .. } if !anonymous && !trusted && realm == "127.0.0.2"),
        }
    }
}

#[test]
fn a_token_server_on_another_port_of_the_registry_is_its_own() {
    let beside = Registry::start();
    let tokens = Tokens::default();
    beside.serve_tokens(TokenServer {
        tokens: tokens.clone(),
        user: Some(("alice", "s3cret")),
        anonymous: false,
        ..TokenServer::default()
    });
    let registry = guarded(true);
    registry.require(Access::Bearer { realm: Some(beside.url("/token")), tokens });
    let login = login(&registry.host(), "alice", "s3cret");
    let door = Door::to(registry, Settings { logins: vec![login], ..settings() });
    door.manifest(At::Tag("1")).unwrap();

    // Which does not follow it anywhere with the password.
    let other = Registry::start();
    let door = Door::to(guarded(true), settings());
    door.registry.fault("/token", Fault::RedirectTo(other.url("/token")));
    assert!(door.manifest(At::Tag("1")).is_err());
    assert!(!leaked(&other));
}

#[test]
fn a_token_comes_from_a_secure_place_or_not_at_all() {
    let door = Door::to(guarded(true), settings());
    for realm in ["http://h.io/token", "http://10.1.2.3/token", "ftp://127.0.0.1/token", "file:///etc/passwd"] {
        door.registry.require(Access::Bearer { realm: Some(realm.into()), tokens: Tokens::default() });
        assert_matches!(door.refusal(), E::Realm { .. } | E::Challenge { .. }, "{realm}");
    }
    for realm in ["", "/token", "token", "http://", "http://u:p@127.0.0.1/token"] {
        door.registry.require(Access::Bearer { realm: Some(realm.into()), tokens: Tokens::default() });
        assert_matches!(door.refusal(), E::Challenge { .. }, "{realm}");
    }
    let blocked = "https://169.254.169.254/token".to_owned();
    door.registry.require(Access::Bearer { realm: Some(blocked), tokens: Tokens::default() });
    assert_matches!(door.refusal(), E::Blocked { .. });
    for headers in
        [vec![], vec![("www-authenticate", "Negotiate".to_owned())], vec![("www-authenticate", "Bearer realm=\"http://x".to_owned())]]
    {
        door.registry.heal();
        door.registry.fault("/manifests/", Fault::Answer(401, headers, bytes::Bytes::new()));
        assert_matches!(door.refusal(), E::Challenge { .. });
    }
    assert_eq!(door.registry.count("/token"), 0);
}

#[test]
fn a_registry_that_takes_no_token_is_not_asked_for_ever() {
    let door = Door::to(guarded(true), settings());
    door.registry.require(Access::Bearer { realm: None, tokens: Tokens::default() });
    assert_matches!(door.refusal(), E::NoCredentials { .. });
    assert_eq!((door.registry.count("/manifests/"), door.registry.count("/token")), (2, 1));

    let login = login(&door.registry.host(), "alice", "s3cret");
    let door = Door::to(door.registry, Settings { logins: vec![login], ..settings() });
    assert_matches!(door.refusal(), E::Denied { from: Some(_), .. });
}

#[test]
fn a_password_that_ran_out_without_a_challenge_is_replaced_once() {
    let registry = Registry::start();
    registry.require(Access::Basic("alice", "s3cret"));
    let login = login(&registry.host(), "alice", "s3cret");
    let door = Door::to(registry, Settings { logins: vec![login], ..settings() });
    door.put_manifest();
    door.manifest(At::Tag("1")).unwrap();
    for status in [403, 400] {
        door.registry.forget();
        door.registry.fault("/manifests/", Fault::Status(status, None, 1));
        door.manifest(At::Tag("1")).unwrap();
        let statuses: Vec<u16> = door.registry.seen().iter().map(|s| s.status).collect();
        assert_eq!(statuses, [status, 401, 200]);
    }
    door.registry.forget();
    door.registry.fault("/manifests/", Fault::Status(403, None, usize::MAX));
    assert_matches!(door.refusal(), E::Denied { .. });
    assert_eq!(door.registry.seen().len(), 2);
}

#[test]
fn what_a_token_server_says_is_not_taken_for_a_token() {
    let door = Door::to(guarded(true), settings());
    let body = |text: &str| Fault::Answer(200, vec![], text.to_owned().into());
    let cases = [
        r#"{"token":"a\nb"}"#,
        r#"{"token":"a","Token":"b"}"#,
        r#"{"token":""}"#,
        r#"{"tok":"s3cret"}"#,
        r#"{"token":["s3cret"]}"#,
        "s3cret",
        "",
    ];
    for text in cases {
        door.registry.heal();
        door.registry.fault("/token", body(text));
        let error = door.refusal();
        assert_matches!(&error, E::NotAToken { .. }, "{text}");
        assert!(!everything(&error).contains("s3cret"));
    }
    door.registry.heal();
    door.registry.fault("/token", body(&format!(r#"{{"token":"{}"}}"#, "x".repeat(70_000))));
    assert_matches!(door.refusal(), E::TooLarge { .. });
    door.registry.heal();
    door.registry.fault("/token", Fault::Status(404, None, usize::MAX));
    assert_matches!(door.refusal(), E::Status { status: 404, .. });
    door.registry.heal();
    door.registry.fault("/token", Fault::Status(503, None, 2));
    door.manifest(At::Tag("1")).unwrap();
}
