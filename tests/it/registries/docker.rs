//! What only docker's users have: a variable that holds credentials, and mirrors in `daemon.json`.

use super::settings::Two;
use crate::support::registry::Access;
use crate::support::world::World;

const ALICE: &str = "YWxpY2U6czNjcmV0";

#[test]
fn credentials_in_a_variable_go_before_the_files_and_not_before_one_that_is_named() {
    let mut two = Two::new();
    two.scene.registry.require(Access::Basic("alice", "s3cret"));
    let file = |auth: &str| format!(r#"{{"auths":{{"HOST":{{"auth":"{auth}"}}}}}}"#);
    two.write("home/.docker/config.json", &file("YWxpY2U6d3Jvbmc="));
    two.write("home/other.json", &file("YWxpY2U6d3Jvbmc="));
    let _ = two.pull(&two.pinned, &[]).expect(6);
    let text = file(ALICE).replace("HOST", &two.host());
    two.scene.sandbox.set("DOCKER_AUTH_CONFIG", text);
    let output = two.pull(&two.pinned, &["--verbose"]).expect(0);
    assert!(output.stderr.contains("in DOCKER_AUTH_CONFIG"), "{output}");
    assert!(!output.to_string().contains("s3cret") && !output.to_string().contains(ALICE), "{output}");
    let _ = two.pull(&two.pinned, &["--authfile", "other.json"]).expect(6);

    two.scene.sandbox.set("DOCKER_AUTH_CONFIG", format!("{{\"auths\": \"{ALICE}\"}}"));
    let output = two.pull(&two.pinned, &[]).expect(6);
    assert!(output.stderr.contains("DOCKER_AUTH_CONFIG") && !output.to_string().contains(ALICE), "{output}");
}

#[test]
fn the_mirrors_of_docker_are_for_docker_hub() {
    // All that is far goes by way of this, which has nothing.
    let world = World::new(|_| (404, vec![], String::new()));
    for (path, text, mirrored) in [
        ("etc/docker/daemon.json", "", true),
        ("home/.config/docker/daemon.json", "", true),
        ("etc/docker/daemon.json", "daemon_json = false\n", false),
    ] {
        let mut two = Two::new();
        two.scene.sandbox.set("HTTPS_PROXY", world.proxy());
        two.write(path, r#"{"registry-mirrors":["http://MIRROR"],"log-driver":"json-file"}"#);
        two.write("home/.config/larder/config.toml", text);
        for reference in ["team/app:v1".to_owned(), format!("team/app:v1@{}", two.made.root.digest)] {
            let output = two.pull(&reference, &[]);
            assert_eq!(output.code == Some(0), mirrored, "{path}\n{output}");
            assert_eq!(two.mirror.count("/v2/team/app/manifests/") > 0, mirrored, "{path}\n{output}");
            assert!(two.mirror.seen().iter().all(|seen| !seen.query.contains("ns=")), "docker does not say whom it means");
            let output = two.pull(&reference, &["--no-mirrors"]);
            assert!(output.code != Some(0) && two.asked() == (false, false), "{output}");
        }
        // Another registry's images are not asked for there.
        let _ = two.pull(&two.pinned, &[]).expect(0);
        assert_eq!(two.asked(), (true, false), "{path}");
    }
}
