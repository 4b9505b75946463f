//! Where one place leads to another.

use larder::upstream::{At, UpstreamError as E};

use super::super::support::registry::{Access, Fault, Registry, Tokens};
use super::{Door, MANIFEST, assert_matches, content, everything, login, raw, settings};

/// A door whose registry wants a password, which the door has.
fn locked() -> Door {
    let registry = Registry::start();
    registry.require(Access::Basic("alice", "s3cret"));
    let settings = larder::upstream::Settings { logins: vec![login(&registry.host(), "alice", "s3cret")], ..settings() };
    Door::to(registry, settings)
}

#[test]
fn the_password_goes_with_the_request_inside_one_origin() {
    let door = locked();
    let digest = door.put_manifest();
    door.registry.fault("/manifests/1", Fault::RedirectTo(format!("/v2/some/app/manifests/{digest}")));
    assert_eq!(door.manifest(At::Tag("1")).unwrap().bytes.digest(), digest);
}

#[test]
fn the_password_goes_nowhere_else() {
    let door = locked();
    let digest = door.put_manifest();
    let other = Registry::start();
    other.put_manifest("x", "1", MANIFEST, r#"{"schemaVersion":2}"#);
    let path = format!("/v2/x/manifests/{digest}");
    door.registry.fault("/manifests/1", Fault::RedirectTo(other.url(&path)));
    assert_eq!(door.manifest(At::Tag("1")).unwrap().bytes.digest(), digest);

    // Nor when it is asked for there.
    other.require(Access::Basic("alice", "s3cret"));
    assert_matches!(door.refusal(), E::NoCredentials { url, .. } if url.as_str() == other.url(&path));

    let tokens = Tokens::default();
    other.require(Access::Bearer { realm: None, tokens });
    assert_matches!(door.refusal(), E::NoCredentials { .. });
    assert_eq!(other.count("/token"), 0);

    // Nor when the way leads back.
    other.require(Access::Open);
    other.fault("/x/", Fault::RedirectTo(door.registry.url(&format!("/v2/some/app/manifests/{digest}"))));
    door.registry.forget();
    assert!(door.manifest(At::Tag("1")).is_err());
    assert!(other.seen().len() >= 4);
    assert!(other.seen().iter().all(|s| s.header("authorization").is_empty() && s.header("cookie").is_empty()));
    let back = door.registry.seen();
    let back: Vec<_> = back.iter().filter(|s| s.path.ends_with(&digest.to_string())).collect();
    assert!(door.registry.seen()[0].header("authorization").starts_with("Basic "));
    assert!(!back.is_empty() && back.iter().all(|s| s.header("authorization").is_empty()));
}

#[test]
fn the_way_is_followed_five_times() {
    let door = Door::new();
    let digest = door.put_manifest();
    for hop in 1..6 {
        door.registry.fault(format!("/hop/{hop}"), Fault::RedirectTo(format!("/hop/{}", hop + 1)));
    }
    door.registry.fault("/hop/6", Fault::RedirectTo(format!("/v2/some/app/manifests/{digest}")));
    for (first, arrives) in [(3, true), (2, false), (1, false)] {
        door.registry.forget();
        door.registry.fault_times("/manifests/1", Fault::RedirectTo(format!("/hop/{first}")), 1);
        let end = door.manifest(At::Tag("1"));
        match end {
            Ok(found) => assert!(arrives && found.bytes.digest() == digest),
            Err(error) => {
                assert!(!arrives);
                assert_matches!(error, E::TooManyRedirects { times: 6, .. });
                assert_eq!(door.registry.seen().len(), 6);
            }
        }
    }
    door.registry.fault("/manifests/1", Fault::RedirectTo("/v2/some/app/manifests/1".into()));
    assert_matches!(door.refusal(), E::TooManyRedirects { .. });
}

#[test]
fn a_way_that_leads_nowhere_or_astray_is_not_followed() {
    let door = Door::new();
    door.put_manifest();
    let other = Registry::start();
    door.registry.fault_times("/manifests/1", Fault::Answer(307, vec![], bytes::Bytes::new()), 1);
    assert_matches!(door.refusal(), E::LostRedirect { .. });
    let with_user = format!("http://user:pw@{}/x", other.host());
    for lost in ["ftp://h.io/x", "file:///etc/passwd", "http://", "https://h.io:99999/", with_user.as_str()] {
        door.registry.heal();
        door.registry.fault("/manifests/1", Fault::RedirectTo(lost.into()));
        assert_matches!(door.refusal(), E::LostRedirect { .. }, "{lost}");
    }
    // Plain HTTP is for loopback and for whom the settings name.
    for insecure in ["http://h.io/x", "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data"] {
        door.registry.heal();
        door.registry.fault("/manifests/1", Fault::RedirectTo(insecure.into()));
        assert_matches!(door.refusal(), E::InsecureRedirect { .. }, "{insecure}");
    }
    let inner = [
        "https://169.254.169.254/",
        "https://2852039166/",
        "https://0xa9.254.0251.254/x",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[fe80::1]/",
        "https://[fd00:ec2::254]/",
    ];
    for blocked in inner {
        door.registry.heal();
        door.registry.fault("/manifests/1", Fault::RedirectTo(blocked.into()));
        assert_matches!(door.refusal(), E::Blocked { .. }, "{blocked}");
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn a_blob_that_is_elsewhere_is_continued_there_by_way_of_the_registry() {
    let door = Door::new();
    let blob = door.put(&content(60_000));
    let other = Registry::start();
    other.put_blob(content(60_000));
    door.registry.fault(blob.digest, Fault::RedirectTo(other.url(&format!("/v2/x/blobs/{}?X-Amz-Signature=s3cret", blob.digest))));
    other.fault(blob.digest, Fault::CutOnceAfter(20_000));
    door.get_whole(&blob);
    // The place that was named first may not know us any more by then.
    assert_eq!((door.registry.seen().len(), other.seen().len()), (2, 2));
    assert_eq!(other.seen()[1].header("range"), "bytes=20000-");

    // What signs the way is not shown.
    other.fault("/blobs/", Fault::Status(403, None, usize::MAX));
    let (_, end) = door.get(&blob, 0);
    let error = end.unwrap_err();
    assert_eq!(error.url().unwrap().as_str(), other.url(&format!("/v2/x/blobs/{}", blob.digest)));
    other.heal();
    other.fault("/blobs/", Fault::CutAfter(0));
    let (_, end) = door.get(&blob, 0);
    door.registry.heal();
    door.registry.fault(blob.digest, Fault::RedirectTo(format!("http://{}/x?sig=s3cret", raw(Vec::new()))));
    let (_, broken) = door.get(&blob, 0);
    for error in [error, end.unwrap_err(), broken.unwrap_err()] {
        assert!(!everything(&error).contains("s3cret"), "{}", everything(&error));
    }
    assert!(!format!("{:?}", door.told.lock().unwrap()).contains("s3cret"));
}
