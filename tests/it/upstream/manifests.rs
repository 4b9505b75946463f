//! Manifests, and what a tag means.

use larder::digest::Digest;
use larder::upstream::{At, UpstreamError as E};

use super::super::support::registry::Fault;
use super::{Door, MANIFEST, assert_matches, impatient};

#[test]
fn a_manifest_comes_by_tag_and_by_digest() {
    let door = Door::new();
    let digest = door.put_manifest();
    for at in [At::Tag("1"), At::Digest(digest)] {
        let found = door.manifest(at).unwrap();
        assert_eq!((found.bytes.digest(), found.media_type.as_deref()), (digest, Some(MANIFEST)));
    }
    let accept = door.registry.seen()[0].header("accept").to_owned();
    for media_type in larder::oci::INDEX_TYPES.iter().chain(&larder::oci::MANIFEST_TYPES) {
        assert!(accept.contains(media_type), "{accept}");
    }
    assert_eq!(door.registry.seen().len(), 2);
}

#[test]
fn another_manifest_than_was_asked_for_is_refused() {
    let door = Door::new();
    let digest = door.put_manifest();
    let other = Digest::of(b"another");
    door.registry.fault("/manifests/", Fault::FlipByte);
    let error = door.manifest(At::Digest(digest)).err().unwrap();
    assert_matches!(&error, E::WrongManifest { source, .. } if source.expected == digest && source.found != digest);
    assert!(error.url().unwrap().as_str().ends_with(&format!("/v2/some/app/manifests/{digest}")));
    assert_eq!(door.registry.seen().len(), 1, "it is not asked for again");

    // The header says what the registry likes to say; only the bytes count.
    door.registry.heal();
    door.registry.put_manifest(door.of.path(), &other.to_string(), MANIFEST, "{}");
    assert_matches!(door.manifest(At::Digest(other)).err(), Some(E::WrongManifest { .. }));
    door.registry.fault("/manifests/", Fault::WrongDigestHeader);
    assert_eq!(door.manifest(At::Digest(digest)).unwrap().bytes.digest(), digest);
    assert_eq!(door.manifest(At::Tag("1")).unwrap().bytes.digest(), digest);
}

#[test]
fn what_a_registry_calls_it_is_handed_on() {
    let door = Door::new();
    let digest = door.put_manifest();
    door.registry.fault("/manifests/", Fault::ContentType("application/vnd.docker.distribution.manifest.v1+prettyjws"));
    let found = door.manifest(At::Digest(digest)).unwrap();
    assert_eq!(found.media_type.as_deref(), Some("application/vnd.docker.distribution.manifest.v1+prettyjws"));
}

#[test]
fn a_document_without_end_is_refused() {
    let door = Door::new();
    let large = vec![b' '; (4 << 20) + 1];
    door.registry.put_manifest(door.of.path(), "large", MANIFEST, large);
    door.registry.put_manifest(door.of.path(), "most", MANIFEST, vec![b' '; 4 << 20]);
    door.put_manifest();
    assert_eq!(door.manifest(At::Tag("most")).unwrap().bytes.size(), 4 << 20);
    assert_matches!(door.manifest(At::Tag("large")).err(), Some(E::TooLarge { .. }));
    for fault in [Fault::Endless, Fault::WrongLength(5 << 20)] {
        door.registry.heal();
        door.registry.fault("/manifests/", fault.clone());
        assert_matches!(door.refusal(), E::TooLarge { limit, .. } if limit == 4 << 20, "{fault:?}");
    }
    door.registry.heal();
    door.registry.fault("/manifests/", Fault::Encoded("gzip"));
    assert_matches!(door.refusal(), E::Encoded { encoding, .. } if encoding == "gzip");
}

#[test]
fn a_manifest_that_breaks_off_is_asked_for_again() {
    let door = Door::with(impatient());
    let digest = door.put_manifest();
    for fault in [Fault::CutOnceAfter(5), Fault::ResetOnceAfter(5), Fault::StallOnceAfter(5), Fault::Status(503, None, 1)] {
        door.registry.forget();
        door.registry.fault("/manifests/", fault);
        assert_eq!(door.manifest(At::Digest(digest)).unwrap().bytes.digest(), digest);
        assert_eq!(door.registry.seen().len(), 2);
    }
}

#[test]
fn what_is_not_there_is_told_apart() {
    let door = Door::new();
    assert_matches!(door.refusal(), E::NoRepository { said: Some(said), .. } if said.code == "NAME_UNKNOWN");
    door.put_manifest();
    let absent = Digest::of(b"absent");
    assert_matches!(door.manifest(At::Digest(absent)).err(), Some(E::NoManifest { said: Some(said), .. }) if said.code == "MANIFEST_UNKNOWN");
    assert_matches!(door.get(&super::Descriptor { digest: absent, size: 1, media_type: String::new() }, 0).1, Err(E::NoBlob { .. }));

    let bodies = ["", "<html>", r#"{"errors":null}"#, r#"{"errors":[]}"#, r#"{"errors":[{}]}"#, r#"{"errors":[{"code":7}]}"#];
    for body in bodies {
        door.registry.heal();
        door.registry.fault("/manifests/", Fault::Answer(404, vec![], body.into()));
        assert_matches!(door.refusal(), E::NoManifest { said: None, .. }, "{body}");
    }
    door.registry.heal();
    door.registry.fault(
        "/manifests/",
        Fault::Answer(
            400,
            vec![("content-type", "text/plain; charset=utf-8".into())],
            "Client sent an HTTP request to an HTTPS server.\n".into(),
        ),
    );
    assert_matches!(door.refusal(), E::Status { status: 400, said: Some(said), .. } if said.to_string() == "Client sent an HTTP request to an HTTPS server.");
}

#[test]
fn a_web_page_is_called_by_its_title() {
    let door = Door::with(impatient());
    door.put_manifest();
    let page = "<html>\r\n<head><title>413 Request \u{1b}Entity Too Large</title></head>\r\n<body>nginx</body></html>";
    door.registry.fault("/manifests/", Fault::Answer(413, vec![("content-type", "text/html".into())], page.into()));
    let expected = "413 Request  Entity Too Large (a web page, as no registry sends one)";
    assert_matches!(door.refusal(), E::Status { status: 413, said: Some(said), .. } if said.to_string() == expected);
}

#[test]
fn a_huge_refusal_is_not_read() {
    let door = Door::new();
    door.put_manifest();
    let huge = format!(r#"{{"errors":[{{"code":"DENIED","message":"{}"}}]}}"#, "x".repeat(1 << 20));
    door.registry.fault("/manifests/", Fault::Answer(403, vec![], huge.into()));
    assert_matches!(door.refusal(), E::Denied { said: None, .. });
    door.registry.heal();
    let long = format!(r#"{{"errors":[{{"code":"DENIED","message":"{}"}}]}}"#, "x".repeat(10_000));
    door.registry.fault("/manifests/", Fault::Answer(403, vec![], long.into()));
    assert_matches!(door.refusal(), E::Denied { said: Some(said), .. } if said.message.len() == 400);
}

#[test]
fn a_tag_is_looked_up_without_fetching_it() {
    let door = Door::new();
    let digest = door.put_manifest();
    assert_eq!(door.head("1").unwrap(), Some(digest));
    assert_eq!(door.head("2").unwrap(), None);
    assert!(door.registry.seen().iter().all(|s| s.method == "HEAD"));

    // Without the header, or without HEAD, the manifest says it itself.
    for fault in [Fault::NoDigestHeader, Fault::Status(405, None, 1)] {
        door.registry.heal();
        door.registry.fault("/manifests/", fault);
        assert_eq!(door.head("1").unwrap(), Some(digest));
    }
    door.registry.heal();
    door.registry.fault("/manifests/", Fault::Status(500, None, usize::MAX));
    assert_matches!(door.head("1"), Err(E::Failed { status: 500, .. }));
}

#[test]
fn an_oci_layout_can_be_served() {
    let door = Door::new();
    let layout = tempfile::tempdir().unwrap();
    let blobs = layout.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        super::Descriptor { media_type: String::new(), digest: Digest::of(bytes), size: bytes.len() as u64 }
    };
    let layer = put(&super::content(700_000));
    let manifest = put(b"{}");
    let index = put(format!(r#"{{"manifests":[{{"mediaType":"{MANIFEST}","digest":"{}"}}]}}"#, manifest.digest).as_bytes());
    let named = r#""annotations":{"org.opencontainers.image.ref.name":"7"}"#;
    let top = format!(r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}",{named}}}]}}"#, index.digest);
    std::fs::write(layout.path().join("index.json"), top).unwrap();
    door.registry.serve_layout("some/app", layout.path()).unwrap();

    assert_eq!(door.manifest(At::Tag("7")).unwrap().bytes.digest(), index.digest);
    assert_eq!(door.manifest(At::Digest(manifest.digest)).unwrap().media_type.as_deref(), Some(MANIFEST));
    door.get_whole(&layer);
    let (rest, end) = door.get(&layer, 600_000);
    end.unwrap();
    assert!(rest == super::content(700_000)[600_000..]);
}
