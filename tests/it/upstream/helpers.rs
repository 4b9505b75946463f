//! Credential helpers that do as they should, and others.

use std::path::Path;
use std::time::{Duration, Instant};

use larder::upstream::{At, CredentialsError as C, Settings, Source, UpstreamError as E};
use tempfile::TempDir;

use super::super::support::registry::{Access, Registry, TokenServer, Tokens};
use super::{Door, assert_matches, everything, settings};

/// A door to a registry that wants alice's password or token, with a helper that behaves like this.
fn door(kind: &str, config: &str) -> (Door, TempDir) {
    let registry = Registry::start();
    registry.require(Access::Basic("alice", "s3cret"));
    registry.put_manifest("some/app", "1", super::MANIFEST, "{}");
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/helper.sh");
    std::os::unix::fs::symlink(script, folder.path().join(format!("docker-credential-{kind}"))).unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.replace("KIND", kind).replace("HOST", &registry.host())).unwrap();
    let settings = Settings { credential_files: vec![path], helper_folders: vec![folder.path().into()], ..settings() };
    (Door::to(registry, settings), folder)
}

const FOR_ALL: &str = r#"{"credsStore":"KIND","auths":{"HOST":{}}}"#;
const FOR_ONE: &str = r#"{"credHelpers":{"HOST":"KIND","other.io":"absent"},"credsStore":"absent"}"#;

#[test]
fn a_helper_is_asked() {
    for config in [FOR_ALL, FOR_ONE] {
        let (door, _folder) = door("alice", config);
        door.manifest(At::Tag("1")).unwrap();
    }
}

#[test]
fn a_helper_may_know_a_token() {
    let (door, _folder) = door("token", FOR_ALL);
    let tokens = Tokens::default();
    door.registry.require(Access::Bearer { realm: None, tokens: tokens.clone() });
    door.registry.serve_tokens(TokenServer { tokens, anonymous: false, identity: Some("s3cret"), ..TokenServer::default() });
    door.manifest(At::Tag("1")).unwrap();
}

#[test]
fn where_a_helper_has_nothing_the_file_itself_may() {
    let (door, _folder) = door("nothing", r#"{"credsStore":"KIND","auths":{"HOST":{"auth":"YWxpY2U6czNjcmV0"}}}"#);
    door.manifest(At::Tag("1")).unwrap();
    let (door, _folder) = self::door("nothing", FOR_ALL);
    assert_matches!(door.refusal(), E::NoCredentials { .. });
}

#[test]
fn a_helper_that_fails_is_named_and_not_quoted() {
    for kind in ["fails", "garbage", "endless", "bob"] {
        let (door, folder) = door(kind, FOR_ALL);
        let error = door.refusal();
        match &error {
            E::CredentialsUnreadable { source, .. } => {
                assert_matches!(&**source, C::HelperFailed { program, .. } | C::HelperAnswer { program } if program.ends_with(kind))
            }
            E::CredentialsRefused { from, .. } => {
                assert_eq!(**from, Source::Helper { program: "docker-credential-bob".into(), path: folder.path().join("config.json") });
            }
            other => panic!("{kind}: {other:?}"),
        }
        assert!(!everything(&error).contains("s3cret"), "{}", everything(&error));
    }
}

#[test]
fn a_helper_that_does_not_end_is_ended() {
    let (door, _folder) = door("hangs", FOR_ALL);
    let settings = Settings {
        helper_timeout: Duration::from_millis(100),
        credential_files: vec![_folder.path().join("config.json")],
        helper_folders: vec![_folder.path().into()],
        ..settings()
    };
    let door = Door { upstream: larder::upstream::Upstream::new(settings).unwrap(), ..door };
    let began = Instant::now();
    assert_matches!(door.refusal(), E::CredentialsUnreadable { source, .. } if matches!(&*source, C::HelperTimeout { .. }));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_helper_that_is_not_there_or_none_is_said() {
    let (door, _folder) = door("x", r#"{"credsStore":"absent-from-here"}"#);
    assert_matches!(door.refusal(), E::CredentialsUnreadable { source, .. } if matches!(&*source, C::HelperStart { program, .. } if program == "docker-credential-absent-from-here"));
    for name in ["../x", "a/b", "x y", "x;y", "$(x)"] {
        let (door, _folder) = self::door("x", &format!(r#"{{"credsStore":"{name}"}}"#));
        assert_matches!(door.refusal(), E::CredentialsUnreadable { source, .. } if matches!(&*source, C::HelperName { .. }), "{name}");
    }
}
