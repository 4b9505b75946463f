//! What settings lead to: who is asked, who is not, and what each of them is told.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::image::{Made, Recipe};
use crate::support::registry::{Access, Fault, Registry};
use crate::support::sandbox::{Output, Sandbox};
use crate::support::scene::Scene;

/// A registry with one image, a mirror on another host that has it too, and a sandbox.
pub(super) struct Two {
    pub(super) scene: Scene,
    pub(super) mirror: Registry,
    pub(super) made: Made,
    pub(super) pinned: String,
}

impl Two {
    pub(super) fn new() -> Two {
        let scene = Scene::in_sandbox(Sandbox::new());
        let made = Recipe::default().make();
        let pinned = scene.serve(&made, "team/app", "v1");
        let mirror = Registry::start_at(([127, 0, 0, 2], 0).into(), None).unwrap();
        let two = Two { scene, mirror, made, pinned };
        two.fill(&two.mirror, "team/app");
        two
    }

    fn fill(&self, registry: &Registry, repository: &str) {
        for bytes in self.made.blobs.values() {
            registry.put_blob(bytes.clone());
        }
        for document in &self.made.documents {
            registry.put_manifest(repository, &document.digest.to_string(), &document.media_type, self.made.bytes(document).to_vec());
        }
        registry.put_manifest(repository, "v1", &self.made.root.media_type, self.made.bytes(&self.made.root).to_vec());
    }

    pub(super) fn host(&self) -> String {
        self.scene.registry.host()
    }

    fn tagged(&self) -> String {
        format!("{}/team/app:v1", self.host())
    }

    /// Writes a file below the sandbox; `HOST` and `MIRROR` stand for the two.
    pub(super) fn write(&self, path: &str, text: &str) {
        let fill = |text: &str| text.replace("HOST", &self.host()).replace("MIRROR", &self.mirror.host());
        let path = self.scene.sandbox.path().join(fill(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, fill(text)).unwrap();
    }

    pub(super) fn pull(&self, reference: &str, more: &[&str]) -> Output {
        let _ = std::fs::remove_dir_all(self.scene.sandbox.store());
        self.scene.registry.forget();
        self.mirror.forget();
        self.scene.pull(reference, &[&["--json", "--tries", "1"], more].concat())
    }

    /// Whether the registry and the mirror were asked for manifests.
    pub(super) fn asked(&self) -> (bool, bool) {
        (self.scene.registry.count("/manifests/") > 0, self.mirror.count("/manifests/") > 0)
    }
}

const OWN: &str = "home/.config/larder/config.toml";
const PODMAN: &str = "etc/containers/registries.conf";
const CONTAINERD: &str = "etc/containerd/certs.d/HOST/hosts.toml";

#[test]
fn a_tag_is_asked_only_of_those_that_may_say_what_it_means() {
    let podman = |more: &str| {
        format!(
            "[[registry]]\nlocation = \"HOST\"\n[[registry.mirror]]\nlocation = \"MIRROR\"\ninsecure = true\npull-from-mirror = \"{more}\"\n"
        )
    };
    let containerd = |more: &str| format!("[host.\"http://MIRROR\"]\ncapabilities = [{more}]\n");
    // What is written where; whether the mirror is asked for a tag, and for a digest.
    let cases = [
        (OWN, "insecure = [\"MIRROR\"]\n[mirrors]\n\"HOST\" = [\"MIRROR\"]\n".to_owned(), false, true),
        (OWN, "insecure = [\"MIRROR\"]\n[mirrors]\n\"HOST/team\" = [{ location = \"MIRROR/team\", tags = true }]\n".to_owned(), true, true),
        (OWN, "insecure = [\"MIRROR\"]\n[mirrors]\n\"HOST/tea\" = [\"MIRROR\"]\n".to_owned(), false, false),
        (PODMAN, podman("all"), true, true),
        (PODMAN, podman("digest-only"), false, true),
        (PODMAN, podman("tag-only"), true, false),
        (PODMAN, podman("all").replace("[[registry.mirror]]", "mirror-by-digest-only = true\n[[registry.mirror]]"), false, true),
        (CONTAINERD, containerd("\"pull\", \"resolve\""), true, true),
        (CONTAINERD, containerd("\"pull\""), false, true),
        (CONTAINERD, containerd("\"push\""), false, false),
        ("etc/containerd/certs.d/_default/hosts.toml", containerd("\"pull\", \"resolve\""), true, true),
    ];
    for (path, text, by_tag, by_digest) in cases {
        let two = Two::new();
        two.write(path, &text);
        for (reference, by_mirror) in [(two.tagged(), by_tag), (two.pinned.clone(), by_digest)] {
            let _ = two.pull(&reference, &[]).expect(0);
            assert_eq!(
                two.mirror.count("/manifests/v1") + two.mirror.count(&format!("/manifests/{}", two.made.root.digest)) > 0,
                by_mirror,
                "{path} {text} {reference}"
            );
        }
    }
}

#[test]
fn what_is_blocked_is_asked_of_nobody() {
    let two = Two::new();
    two.write(PODMAN, "[[registry]]\nprefix = \"HOST/team\"\nblocked = true\n[[registry.mirror]]\nlocation = \"MIRROR\"\n");
    for reference in [two.tagged(), two.pinned.clone()] {
        let output = two.pull(&reference, &[]).expect(6);
        assert!(output.stderr.contains("is blocked by ") && output.stderr.contains("registries.conf"), "{output}");
    }
    assert_eq!((two.scene.registry.connections(), two.mirror.connections()), (0, 0));
}

#[test]
fn settings_that_cannot_be_followed_are_named_and_can_be_switched_off() {
    let two = Two::new();
    for (path, text, switch) in [
        (PODMAN, "[[registry]]\nblocked = true\n", "registries_conf = false"),
        (PODMAN, "[[registry", "registries_conf = \"/nonexistent\""),
        (CONTAINERD, "server = 5\n", "hosts_toml = false"),
        (OWN, "[mirrors]\n\"HOST\" = [\"https://MIRROR\"]\n", ""),
    ] {
        two.write(path, text);
        let output = two.pull(&two.pinned, &[]);
        assert!(output.code == Some(2) && output.stderr.contains(path.rsplit('/').next().unwrap()), "{path} {text}\n{output}");
        let _ = two.pull(&two.pinned, &["--no-mirrors"]).expect(0);
        // What is in the store needs none of it.
        let _ = two.scene.pull(&two.pinned, &["--no-mirrors"]).expect(0);
        let _ = two.scene.pull(&two.pinned, &[]).expect(0);
        if !switch.is_empty() {
            two.write(OWN, switch);
            let _ = two.pull(&two.pinned, &[]).expect(0);
        }
        two.write(path, "");
        two.write(OWN, "");
    }
}

#[test]
fn a_person_s_own_file_stands_for_the_system_s() {
    let two = Two::new();
    let mirrored = "[[registry]]\nlocation = \"HOST\"\n[[registry.mirror]]\nlocation = \"MIRROR\"\ninsecure = true\n";
    let asked = |expected: (bool, bool), what: &str| {
        let _ = two.pull(&two.pinned, &[]).expect(0);
        assert_eq!(two.asked(), expected, "{what}");
    };
    asked((true, false), "no settings at all");
    two.write(PODMAN, mirrored);
    asked((false, true), "the system's");
    two.write("etc/containers/registries.conf.d/50-off.conf", "[[registry]]\nlocation = \"HOST\"\n");
    asked((true, false), "a drop-in says otherwise");
    two.write("home/.config/containers/registries.conf.d/60-on.conf", mirrored);
    asked((false, true), "a person's own drop-in comes last");
    two.write("home/.config/containers/registries.conf", "unqualified-search-registries = [\"MIRROR\"]\n");
    two.write("home/.config/containers/registries.conf.d/60-on.conf", "");
    asked((true, false), "a person's own file, which has no mirror");
}

#[test]
fn each_place_is_told_its_own_credentials_and_no_other() {
    let two = Two::new();
    two.scene.registry.require(Access::Basic("alice", "s3cret"));
    two.mirror.require(Access::Basic("bob", "m1rror"));
    two.write(CONTAINERD, "server = \"http://HOST\"\n[host.\"http://MIRROR\"]\nheader = { x-key = \"h3ader\" }\n");
    two.write("home/.docker/config.json", r#"{"auths":{"HOST":{"auth":"YWxpY2U6czNjcmV0"},"MIRROR":{"auth":"Ym9iOm0xcnJvcg=="}}}"#);
    let told = |registry: &Registry| registry.seen().iter().map(|s| format!("{:?}", s.headers)).collect::<String>();
    let (alice, bob) = ("YWxpY2U6czNjcmV0", "Ym9iOm0xcnJvcg==");

    let _ = two.pull(&two.pinned, &[]).expect(0);
    assert!(two.asked() == (false, true) && told(&two.mirror).contains(bob) && !told(&two.mirror).contains(alice));
    assert!(two.mirror.seen().iter().all(|s| s.header("x-key") == "h3ader"));

    // The mirror fails, and the registry is told nothing of what was for the mirror.
    two.mirror.fault("/manifests/", Fault::Missing);
    let _ = two.pull(&two.pinned, &[]).expect(0);
    let said = told(&two.scene.registry);
    assert!(said.contains(alice) && !said.contains(bob) && !said.contains("h3ader"), "{said}");

    // The mirror leads to another origin, which is told nothing.
    let third = Registry::start_at(([127, 0, 0, 3], 0).into(), None).unwrap();
    two.fill(&third, "team/app");
    two.mirror.heal();
    for blob in two.made.blobs.keys() {
        two.mirror.fault(format!("/blobs/{blob}"), Fault::RedirectTo(third.url(&format!("/v2/team/app/blobs/{blob}"))));
    }
    let _ = two.pull(&two.pinned, &[]).expect(0);
    let said = told(&third);
    assert!(!third.seen().is_empty() && ![alice, bob, "h3ader"].iter().any(|secret| said.contains(secret)), "{said}");
    // --creds are for the registry of the image, whoever mirrors it.
    let _ = two.pull(&two.pinned, &["--creds", "carol:c4rol"]).expect(0);
    let carol = "Y2Fyb2w6YzRyb2w=";
    assert!(![&two.mirror, &third].iter().any(|registry| told(registry).contains(carol)));
}

#[test]
fn a_mirror_that_breaks_halfway_is_passed_over_for_the_rest() {
    let two = Two::new();
    two.write(CONTAINERD, "server = \"http://HOST\"\n[host.\"http://MIRROR\"]\n");
    let layer = two.made.platform("linux/amd64").layers[0].digest;
    two.mirror.fault(format!("/blobs/{layer}"), Fault::CutAfter(1000));
    let output = two.pull(&two.pinned, &[]).expect(0);
    assert!(
        output.stderr.contains(&format!("{}/team/app does not give {layer}, asking {}/team/app: ", two.mirror.host(), two.host())),
        "{output}"
    );
    // Only what is missing, from where the other was cut.
    assert_eq!(two.asked(), (false, true));
    let rest: Vec<_> = two.scene.registry.seen().iter().map(|s| s.header("range").to_owned()).collect();
    assert_eq!(rest, ["bytes=1000-"], "{output}");
}

#[test]
fn a_mirror_that_is_busy_is_not_waited_for() {
    let two = Two::new();
    two.write(CONTAINERD, "server = \"http://HOST\"\n[host.\"http://MIRROR\"]\n");
    two.mirror.fault("/manifests/", Fault::Status(503, None, usize::MAX));
    two.scene.registry.fault("/manifests/", Fault::Status(503, None, 2));
    let _ = std::fs::remove_dir_all(two.scene.sandbox.store());
    let _ = two.scene.pull(&two.pinned, &[]).expect(0);
    // The registry itself is waited for.
    assert_eq!((two.mirror.count(&two.made.root.digest.to_string()), two.scene.registry.count(&two.made.root.digest.to_string())), (2, 3));
}

#[test]
fn it_can_be_seen_before_who_would_be_asked_and_as_whom() {
    let two = Two::new();
    two.write(CONTAINERD, "server = \"http://HOST\"\n[host.\"http://MIRROR/cache\"]\nheader = { x-key = \"h3ader\" }\n[host.\"http://127.0.0.3:1\"]\ncapabilities = [\"pull\"]\n");
    two.fill(&two.mirror, "team/app");
    two.write("home/.docker/config.json", r#"{"auths":{"HOST":{"auth":"YWxpY2U6czNjcmV0"}}}"#);
    let output = two.pull(&two.tagged(), &["--dry-run"]).expect(0);
    let routes = output.one_json()["routes"].clone();
    let of = |n: usize, key: &str| routes[n][key].clone();
    let urls: Vec<Value> = (0..3).map(|n| of(n, "url")).collect();
    let expected = [
        format!("http://{}/cache/v2/team/app/", two.mirror.host()),
        "http://127.0.0.3:1/v2/team/app/".into(),
        format!("http://{}/v2/team/app/", two.host()),
    ];
    assert!(urls.iter().map(|u| u.as_str().unwrap().to_owned()).eq(expected), "{routes}");
    assert_eq!((of(0, "tags"), of(1, "tags"), of(2, "tags")), (json!(true), json!(false), json!(true)));
    assert!(of(0, "credentials").is_null() && of(2, "credentials").as_str().unwrap().contains("config.json"), "{routes}");
    assert!(of(0, "named_in").as_str().unwrap().ends_with("hosts.toml"), "{routes}");
    let text = two.pull(&two.tagged(), &["--dry-run", "--verbose"]);
    for output in [&output, &text] {
        assert!(
            !["YWxpY2U6czNjcmV0", "s3cret", "h3ader"].iter().any(|s| output.stderr.contains(s) || output.stdout.contains(s)),
            "{output}"
        );
        assert!(output.stderr.contains("credentials: the entry `") && output.stderr.contains("named in:"), "{output}");
    }
}

#[test]
fn a_helper_s_name_leads_to_no_other_program() {
    let two = Two::new();
    two.scene.registry.require(Access::Basic("alice", "s3cret"));
    let trap = two.scene.sandbox.home().join("trap");
    for folder in ["home", "home/bin", "home/docker-credential-x"] {
        two.write(
            &format!("{folder}/evil"),
            &format!("#!/bin/sh\ntouch {}\necho '{{\"Username\":\"alice\",\"Secret\":\"s3cret\"}}'\n", trap.display()),
        );
        make_executable(&two.scene.sandbox.path().join(folder).join("evil"));
    }
    let home = two.scene.sandbox.home().display().to_string();
    let names = [
        "x/evil".to_owned(),
        "x/../evil".into(),
        "/../evil".into(),
        format!("x/../../{home}/evil"),
        "../evil".into(),
        "x;evil".into(),
        "$(evil)".into(),
        "x evil".into(),
        "x\\u0000evil".into(),
        "x\\nevil".into(),
        "..".into(),
    ];
    for name in names {
        for config in [format!(r#"{{"credsStore":"{name}"}}"#), format!(r#"{{"credHelpers":{{"HOST":"{name}"}}}}"#)] {
            two.write("home/.docker/config.json", &config);
            let output = two.pull(&two.pinned, &[]).expect(6);
            assert!(output.stderr.contains("helper"), "{name}: {output}");
            assert!(!trap.exists(), "{name}");
        }
    }
}

#[test]
fn urls_in_a_manifest_are_dialled_by_nobody() {
    let trap = Registry::start_at(([127, 0, 0, 3], 0).into(), None).unwrap();
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        for url in [trap.url("/layer"), format!("http://alice:s3cret@{}/layer", trap.host()), "http://169.254.169.254/latest".to_owned()] {
            let two = Two::new();
            let mut manifest: Value = serde_json::from_slice(two.made.bytes(&two.made.platform("linux/amd64").manifest)).unwrap();
            manifest["layers"][0]["urls"] = json!([url]);
            manifest["layers"][0]["mediaType"] = json!(media_type);
            let media = "application/vnd.oci.image.manifest.v1+json";
            two.scene.registry.put_manifest("team/app", "urls", media, manifest.to_string());
            let layer = two.made.platform("linux/amd64").layers[0].digest;
            two.scene.registry.fault(format!("/blobs/{layer}"), Fault::Missing);
            let output = two.pull(&format!("{}/team/app:urls", two.host()), &["--creds", "alice:s3cret"]);
            assert_ne!(output.code, Some(0), "{output}");
        }
    }
    assert_eq!(trap.connections(), 0);
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn times_of_the_settings_file_hold_until_others_are_said() {
    let two = Two::new();
    two.write(OWN, "deadline = \"300ms\"\nconnect_timeout = 3\n");
    two.scene.registry.fault("/manifests/", Fault::Silent);
    let output = two.pull(&two.pinned, &[]).expect(1);
    assert!(output.stderr.contains("it was not done in 300ms"), "{output}");
    let output = two.pull(&two.pinned, &["--deadline", "400ms"]).expect(1);
    assert!(output.stderr.contains("it was not done in 400ms"), "{output}");
    for wrong in ["deadline = \"soon\"", "deadline = 5", "connect_timeout = 0", "connect_timeout = \"5s\""] {
        two.write(OWN, wrong);
        let output = two.pull(&two.pinned, &[]).expect(2);
        assert!(output.stderr.contains("config.toml"), "{wrong}: {output}");
    }
}
