//! Debian's registry as a pull-through mirror, named in each kind of settings.

use serde_json::{Value, json};

use super::{images, pull, write};
use crate::support::engine::{Make, RealEngine};
use crate::support::sandbox::Sandbox;
use crate::support::servers::Server;

/// The kinds of settings that name a mirror for a registry, and what they say of it: below the sandbox, and as text.
fn settings(registry: &str, mirror: &str) -> [(String, String); 3] {
    [
        (
            "home/.config/larder/config.toml".to_owned(),
            format!("[mirrors]\n\"{registry}\" = [{{ location = \"{mirror}\", tags = true }}]\n"),
        ),
        (
            "etc/containers/registries.conf.d/10-mirror.conf".to_owned(),
            format!("[[registry]]\nlocation = \"{registry}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n"),
        ),
        (
            format!("etc/containerd/certs.d/{registry}/hosts.toml"),
            format!("server = \"http://{registry}\"\n[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"),
        ),
    ]
}

/// The places that were asked, and whether they failed.
fn asked(json: &Value) -> Vec<(String, bool)> {
    let asked = json["asked"].as_array().unwrap();
    asked.iter().map(|one| (one["place"].as_str().unwrap().to_owned(), !one["failed"].as_array().unwrap().is_empty())).collect()
}

#[test]
fn a_mirror_gives_what_its_registry_need_not() {
    let images = images();
    for kind in 0..3 {
        let origin = Server::registry(&images.path(), &json!({}));
        let cache = tempfile::tempdir().unwrap();
        let mirror = Server::registry(cache.path(), &json!({ "proxy": { "remoteurl": format!("http://{}", origin.host()) } }));
        let (path, text) = &settings(&origin.host(), &mirror.host())[kind];
        let sandbox = || {
            let sandbox = Sandbox::new();
            write(&sandbox.path().join(path), text);
            sandbox
        };
        let by_tag = format!("{}/team/app:v1", origin.host());
        let place = format!("{}/team/app", mirror.host());

        for reference in [&by_tag, &images.pinned(&origin.host())] {
            let output = pull(&sandbox(), reference, &[]).expect(0);
            let json = output.one_json();
            assert_eq!(asked(&json), [(place.clone(), false)], "{path}: {output}");
            assert_eq!(json["name"], by_tag, "the name is that of the registry");
            assert!(output.stderr.contains(&format!("asking {place} for ")), "{output}");
        }
        // From now on nobody needs the origin.
        drop(origin);
        let _ = pull(&sandbox(), &images.pinned(by_tag.split('/').next().unwrap()), &[]).expect(0);
        // With --no-mirrors it is asked nevertheless.
        let output = pull(&sandbox(), &by_tag, &["--no-mirrors"]).expect(1);
        assert!(!output.stderr.contains(&place), "{output}");
    }
}

#[test]
fn a_mirror_that_is_not_there_is_passed_over_aloud() {
    let images = images();
    let origin = Server::registry(&images.path(), &json!({}));
    let gone = Server::registry(&images.path(), &json!({}));
    let dead = gone.host();
    drop(gone);
    let empty_folder = tempfile::tempdir().unwrap();
    let empty = Server::registry(empty_folder.path(), &json!({}));
    for mirror in [&dead, &empty.host()] {
        for (path, text) in &settings(&origin.host(), mirror) {
            let sandbox = Sandbox::new();
            write(&sandbox.path().join(path), text);
            let output = pull(&sandbox, &format!("{}/team/app:v1", origin.host()), &[]).expect(0);
            let (place, own) = (format!("{mirror}/team/app"), format!("{}/team/app", origin.host()));
            assert_eq!(asked(&output.one_json()), [(place.clone(), true), (own.clone(), false)], "{path}: {output}");
            assert!(output.stderr.contains(&format!("{place} does not give v1, asking {own}: ")), "{output}");
        }
    }
}

/// Which of two servers are asked for manifests while something is done.
fn asked_meanwhile(servers: [&Server; 2], work: impl FnOnce()) -> [bool; 2] {
    let asked = |server: &Server| server.log().lines().filter(|line| line.contains("/v2/team/app/manifests/")).count();
    let before = servers.map(asked);
    work();
    [asked(servers[0]) > before[0], asked(servers[1]) > before[1]]
}

#[test]
fn skopeo_goes_where_larder_goes() {
    let images = images();
    let origin = Server::registry(&images.path(), &json!({}));
    let mirror = Server::registry(&images.path(), &json!({}));
    let conf = format!(
        "[[registry]]\nprefix = \"registry.test/team\"\nlocation = \"{}/team\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}/team\"\n\
         insecure = true\npull-from-mirror = \"digest-only\"\n",
        origin.host(),
        mirror.host()
    );
    for reference in ["registry.test/team/app:v1".to_owned(), format!("registry.test/team/app@{}", images.digest)] {
        let sandbox = Sandbox::new();
        let file = sandbox.etc().join("containers/registries.conf");
        write(&file, &conf);
        let larder = asked_meanwhile([&origin, &mirror], || drop(pull(&sandbox, &reference, &[]).expect(0)));
        let skopeo = asked_meanwhile([&origin, &mirror], || {
            let mut skopeo = std::process::Command::new("skopeo");
            skopeo.args(["inspect", "--raw", "--registries-conf"]).arg(&file).arg(format!("docker://{reference}"));
            crate::support::run(&mut skopeo);
        });
        assert_eq!(larder, skopeo, "{reference}");
    }
}

#[test]
fn containerd_goes_where_larder_goes() {
    let images = images();
    let (origin, mirror) = (Server::registry(&images.path(), &json!({})), Server::registry(&images.path(), &json!({})));
    let gone = tempfile::tempdir().unwrap();
    let empty = Server::registry(gone.path(), &json!({}));
    let engine = RealEngine::start(Make::Containerd);
    let hosts = [
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", origin.host(), mirror.host()),
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"push\"]\n", origin.host(), mirror.host()),
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n[host.\"http://{}\"]\n", origin.host(), empty.host(), mirror.host()),
        format!("server = \"http://{}/nowhere\"\n[host.\"http://{}/v2\"]\noverride_path = true\n", origin.host(), mirror.host()),
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", origin.host(), empty.host()),
    ];
    for hosts in hosts {
        for reference in ["registry.test/team/app:v1".to_owned(), format!("registry.test/team/app@{}", images.digest)] {
            let sandbox = Sandbox::new();
            let folder = sandbox.etc().join("containerd/certs.d");
            write(&folder.join("registry.test/hosts.toml"), &hosts);
            let larder = asked_meanwhile([&origin, &mirror], || drop(pull(&sandbox, &reference, &[]).expect(0)));
            let folder = folder.display().to_string();
            // A namespace of its own each time, so that nothing is there already.
            let namespace = format!("n{}", sandbox.path().file_name().unwrap().to_string_lossy().trim_start_matches('.'));
            let containerd = asked_meanwhile([&origin, &mirror], || {
                engine.ctr(&namespace, &["content", "fetch", "--hosts-dir", &folder, "--platform", "linux/amd64", &reference]);
            });
            assert_eq!(larder, containerd, "{reference}\n{hosts}");
        }
    }
}
