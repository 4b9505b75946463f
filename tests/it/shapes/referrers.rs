//! What refers to an image: signatures and lists that a registry names, kept with it.

use larder::oci::referrers_tag;

use super::*;
use crate::support::registry::Fault;

const KIND: &str = "application/vnd.example.sbom.v1";

/// Serves a manifest that names this as its subject; its descriptor, and the layer it brings.
fn refers_to(scene: &Scene, subject: &Digest, content: &str) -> (Value, Digest) {
    let config = served(scene, "application/vnd.oci.empty.v1+json", b"{}");
    let layer = served(scene, "application/spdx+json", content.as_bytes());
    let document = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": KIND, "config": config, "layers": [layer],
        "subject": { "mediaType": MANIFEST, "digest": subject, "size": 8 },
    });
    let text = document.to_string();
    let digest = scene.registry.put_manifest("team/app", &Digest::of(text.as_bytes()).to_string(), MANIFEST, text.clone());
    let named = json!({ "mediaType": MANIFEST, "digest": digest, "size": text.len(), "artifactType": KIND });
    (named, Digest::of(content.as_bytes()))
}

fn list(of: &[&Value]) -> String {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": of }).to_string()
}

/// One page of the list by the interface: whatever has this in its path and query, and where it goes on.
fn page(scene: &Scene, part: &str, of: &[&Value], link: Option<&str>) {
    let mut headers = vec![("content-type", INDEX.to_owned())];
    headers.extend(link.map(|link| ("link", link.to_owned())));
    scene.registry.fault(part, Fault::Answer(200, headers, list(of).into()));
}

fn in_store(scene: &Scene, named: &Value) -> bool {
    scene.blob(&named["digest"].as_str().unwrap().parse().unwrap()).exists()
}

/// The digests that a result says are kept.
fn kept(result: &Value) -> Vec<&Value> {
    result["referrers"].as_array().map(|all| all.iter().map(|one| &one["digest"]).collect()).unwrap_or_default()
}

#[test]
fn what_refers_to_an_image_is_kept_and_goes_with_it() {
    let (scene, made) = (scene(), Recipe { platforms: vec!["linux/amd64"], ..Recipe::default() }.make());
    let reference = scene.serve(&made, "team/app", "v1");
    let one = made.platform("linux/amd64");
    let (signature, signed) = refers_to(&scene, &made.root.digest, "a signature");
    let (sbom, listed) = refers_to(&scene, &one.manifest.digest, "what is in it");
    let (second, _) = refers_to(&scene, &made.root.digest, "another signature");
    // Two pages for the index, of which the second is named by a link as registries write it; one for the manifest.
    page(&scene, "last=2", &[&second, &signature], None);
    let next = format!("</v2/team/app/referrers/{}?n=1&last=2>; rel=\"next\"", made.root.digest);
    page(&scene, &format!("referrers/{}", made.root.digest), &[&signature], Some(&next));
    page(&scene, &format!("referrers/{}", one.manifest.digest), &[&sbom], None);

    let plain = scene.pull(&reference, &["--json"]).expect(0).one_json();
    assert!(plain["referrers"].is_null() && scene.registry.count("/referrers/") == 0, "nobody asked");
    let told = scene.pull(&reference, &["--referrers", "--dry-run", "--json"]).expect(0).one_json();
    assert_eq!(told["missing_in_store"].as_array().unwrap().len(), 7, "{told}");
    let pulled = scene.pull(&reference, &["--referrers", "--json"]).expect(0).one_json();
    assert_eq!(kept(&pulled).len(), 3, "{pulled}");
    assert_eq!((&pulled["root"], &pulled["size"]), (&plain["root"], &plain["size"]));
    assert_eq!(pulled["referrers_left_out"], json!([]));

    // Offline, all of it is shown, and no more is asked for.
    scene.registry.forget();
    let again = scene.pull(&reference, &["--referrers", "--offline", "--json"]).expect(0).one_json();
    assert_eq!(kept(&again), kept(&pulled));
    let shown = scene.sandbox.run(["inspect", "--no-engines", "--offline", "--json", &reference]).expect(0).one_json();
    let subjects: Vec<_> = shown["referrers"].as_array().unwrap().iter().map(|one| (&one["kind"], &one["subject"])).collect();
    assert!(subjects.contains(&(&json!(KIND), &json!(made.root.digest))), "{shown}");
    assert!(subjects.contains(&(&json!(KIND), &json!(one.manifest.digest))), "{shown}");
    let text = scene.sandbox.run(["inspect", "--no-engines", &reference]).expect(0).stdout;
    assert!(text.contains(&format!("referrer:  {}  {KIND}", sbom["digest"].as_str().unwrap())), "{text}");
    assert!(scene.registry.seen().is_empty());

    // They stay with the image, are looked after like it, and no archive or engine is concerned.
    let _ = scene.sandbox.run(["prune"]).expect(0);
    flip(&scene.blob(&signed));
    fs::remove_file(scene.blob(&sbom["digest"].as_str().unwrap().parse().unwrap())).unwrap();
    let told = scene.sandbox.run(["verify"]).expect(4);
    assert!(told.stdout.contains(&format!("damaged blob {signed}")), "{told}");
    let shown = scene.sandbox.run(["inspect", "--no-engines", "--json", &reference]).expect(0).one_json();
    assert_eq!((&shown["status"], shown["missing"].as_array().unwrap().len()), (&json!("incomplete"), 2), "{shown}");
    let _ = scene.sandbox.run(["verify", "--repair"]).expect(0);
    assert!(scene.blob(&signed).exists() && scene.blob(&listed).exists() && in_store(&scene, &sbom));
    let exported = scene.sandbox.run(["export", &reference, "-o", "a.tar", "--json"]).expect(0).one_json();
    let fresh = Sandbox::new();
    let told = fresh.run(["import", "--json", scene.sandbox.home().join("a.tar").to_str().unwrap()]).expect(0).one_json();
    assert!(told["root"] == pulled["root"] && kept(&told).is_empty(), "{exported}");

    // A pull that does not ask for them forgets none.
    let _ = scene.pull(&format!("{}/team/app:v1", scene.registry.host()), &[]).expect(0);
    let listed_again = scene.sandbox.run(["list", "--json"]).expect(0).one_json();
    assert_eq!(listed_again["pinned"], json!(reference));
    assert!(in_store(&scene, &second));
    let _ = scene.sandbox.run(["remove", &reference]).expect(0);
    assert_eq!(fs::read_dir(scene.sandbox.store().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_registry_without_the_interface_lists_them_under_a_tag() {
    let (scene, made) = (scene(), Recipe { platforms: vec!["linux/amd64"], index: false, ..Recipe::default() }.make());
    let reference = scene.serve(&made, "team/app", "v1");
    // Nothing refers to it: that is known now, too.
    let pulled = scene.pull(&reference, &["--referrers", "--json"]).expect(0).one_json();
    assert_eq!(pulled["referrers"], json!([]));
    let _ = scene.pull(&reference, &["--referrers", "--offline"]).expect(0);

    let (signature, _) = refers_to(&scene, &made.root.digest, "a signature");
    let tag = referrers_tag(&made.root.digest);
    scene.registry.put_manifest("team/app", &tag, INDEX, list(&[&signature]));
    for status in [404, 400, 405, 406] {
        scene.registry.heal();
        scene.registry.fault("/referrers/", Fault::Status(status, None, usize::MAX));
        let pulled = scene.pull(&reference, &["--referrers", "--json"]).expect(0).one_json();
        assert_eq!(kept(&pulled), [&signature["digest"]], "{status}");
    }
    // A registry that has the interface is not asked for the tag.
    scene.registry.heal();
    scene.registry.forget();
    page(&scene, "/referrers/", &[], None);
    let pulled = scene.pull(&reference, &["--referrers", "--json"]).expect(0).one_json();
    assert_eq!((kept(&pulled), scene.registry.count(&tag)), (vec![&signature["digest"]], 0), "what was kept stays");
    // One that fails has not said that there are none.
    scene.registry.heal();
    scene.registry.fault("/referrers/", Fault::Status(403, None, usize::MAX));
    let told = scene.pull(&reference, &["--referrers", "--json"]).expect(6).one_json();
    assert_eq!(code(&told), "denied", "{told}");
}

#[test]
fn what_a_tag_meant_before_keeps_what_refers_to_it() {
    let scene = scene();
    let made = |revision| Recipe { platforms: vec!["linux/amd64"], revision, ..Recipe::default() }.make();
    let (old, new) = (made(1), made(2));
    let tag = format!("{}/team/app:v1", scene.registry.host());
    let by_digest = scene.serve(&old, "team/app", "v1");
    let (signature, _) = refers_to(&scene, &old.root.digest, "a signature");
    scene.registry.put_manifest("team/app", &referrers_tag(&old.root.digest), INDEX, list(&[&signature]));
    let _ = scene.pull(&tag, &["--referrers"]).expect(0);
    let _ = scene.serve(&new, "team/app", "v1");
    let _ = scene.pull(&tag, &[]).expect(0);
    // The older one is pinned anew, by its digest, and nobody asks for what refers to it.
    let again = scene.pull(&by_digest, &["--json"]).expect(0).one_json();
    assert_eq!(kept(&again), [&signature["digest"]]);
    let told = scene.pull(&format!("{tag}@{}", new.root.digest), &["--referrers", "--offline", "--json"]).expect(3).one_json();
    assert_eq!(code(&told), "referrers-not-asked");
}

#[test]
fn lists_that_lie_bring_nothing_in() {
    let (scene, made) = (scene(), Recipe { platforms: vec!["linux/amd64"], index: false, ..Recipe::default() }.make());
    let reference = scene.serve(&made, "team/app", "v1");
    let (right, _) = refers_to(&scene, &made.root.digest, "a signature");
    let (others, _) = refers_to(&scene, &Digest::of(b"another image"), "of another image");
    let gone = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"gone"), "size": 7 });
    let odd = json!({ "mediaType": "text/\u{7}html", "digest": Digest::of(b"odd"), "size": 7 });
    let huge = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"huge"), "size": (4 << 20) + 1 });
    let no_subject = {
        let text = r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":2},"layers":[]}"#;
        let digest = scene.registry.put_manifest("team/app", "none", MANIFEST, text);
        json!({ "mediaType": MANIFEST, "digest": digest, "size": text.len() })
    };
    page(&scene, "/referrers/", &[&others, &gone, &odd, &huge, &no_subject, &right, &right], None);
    let output = scene.pull(&reference, &["--referrers", "--json"]).expect(0);
    let pulled = output.one_json();
    assert_eq!(kept(&pulled), [&right["digest"]], "{output}");
    let left_out = pulled["referrers_left_out"].as_array().unwrap();
    assert_eq!(left_out.len(), 5, "{output}");
    for (named, why) in
        [(&others, "it refers to"), (&gone, "no manifest"), (&odd, "of a kind"), (&huge, "4194305"), (&no_subject, "no subject")]
    {
        let told = left_out.iter().find(|one| one["digest"] == named["digest"]).unwrap();
        assert!(told["why"].as_str().unwrap().contains(why), "{told}");
        assert!(!in_store(&scene, named));
    }
    assert!(output.stderr.contains("is not kept") && !output.stderr.contains('\u{7}'), "{output}");
}

#[test]
fn lists_without_end_or_bounds_are_refused() {
    let (scene, made) = (scene(), Recipe { platforms: vec!["linux/amd64"], index: false, ..Recipe::default() }.make());
    let reference = scene.serve(&made, "team/app", "v1");
    let (right, layer) = refers_to(&scene, &made.root.digest, "a signature");
    let own = format!("/v2/team/app/referrers/{}", made.root.digest);
    let refuse = |expected: i32, words: &str| {
        let output = scene.pull(&reference, &["--referrers"]).expect(expected);
        assert!(output.stderr.contains(words), "{words}: {output}");
        assert!(!scene.blob(&layer).exists() && !in_store(&scene, &right), "{words}");
        assert_eq!(scene.sandbox.run(["list", "--quiet"]).expect(0).stdout, "", "{words}: nothing is pinned");
        scene.registry.heal();
        scene.registry.forget();
    };
    // In a circle: by itself, and by way of another page.
    page(&scene, "/referrers/", &[&right], Some(&format!("<{own}>; rel=next")));
    refuse(1, "has no end after 1 pages");
    page(&scene, "last=1", &[&right], Some(&format!("<{own}?last=2>; rel=next")));
    page(&scene, "last=2", &[&right], Some(&format!("<{own}?last=1>; rel=next")));
    page(&scene, "/referrers/", &[&right], Some("<?last=1>; rel=next"));
    refuse(1, "has no end after 3 pages");
    for page_of in 1..40 {
        page(&scene, &format!("last={page_of}."), &[], Some(&format!("<?last={}.>; rel=next", page_of + 1)));
    }
    page(&scene, "/referrers/", &[&right], Some("<?last=1.>; rel=next"));
    refuse(1, "has no end after 32 pages");
    // To somewhere else, and to nowhere.
    let trap = Scene::in_sandbox(Sandbox::new());
    for link in [format!("<{}>; rel=next", trap.registry.url(&own)), "<//evil.example/>; rel=next".to_owned(), "rel=next".to_owned()] {
        page(&scene, "/referrers/", &[&right], Some(&link));
        refuse(1, "goes on at no place of the same registry");
    }
    assert!(trap.registry.seen().is_empty());
    // No list, too long a one, and content that is not what is listed.
    scene.registry.fault("/referrers/", Fault::Answer(200, vec![("content-type", INDEX.into())], "[[]]".into()));
    refuse(1, "cannot be read");
    let many: Vec<Value> =
        (0..300).map(|n| json!({ "mediaType": "a/b", "digest": Digest::of(&[n as u8, 1, (n >> 8) as u8]), "size": 1 })).collect();
    page(&scene, "/referrers/", &many.iter().collect::<Vec<_>>(), None);
    refuse(1, "more than 256 manifests refer to");
    page(&scene, "/referrers/", &[&right], None);
    scene.registry.fault(format!("/manifests/{}", right["digest"].as_str().unwrap()), Fault::FlipByte);
    refuse(4, "failed verification");
    page(&scene, "/referrers/", &[&right], None);
    scene.registry.fault(format!("/blobs/{layer}"), Fault::FlipByte);
    let _ = scene.pull(&reference, &["--referrers"]).expect(4);
    assert_eq!(scene.sandbox.run(["list", "--quiet"]).expect(0).stdout, "");
    assert!(!scene.blob(&layer).exists());
}
