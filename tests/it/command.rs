//! The command's words: wrong input, empty places, help.

use std::os::unix::net::UnixListener;

use crate::support::sandbox::Sandbox;

#[test]
fn a_wrong_reference_is_refused_with_where_and_why() {
    let output = Sandbox::new().run(["pull", "Redis:7"]).expect(2);
    insta::assert_snapshot!(output.stderr, @r"
    error: `Redis:7` is not an image reference
      expected: lower-case letters, digits and . _ - / in the repository
      found:    `R` at position 1
      hint: did you mean `redis:7`?
    ");
    let output = Sandbox::new().run(["ensure", "./image.tar"]).expect(2);
    insta::assert_snapshot!(output.stderr, @r"
    error: `./image.tar` is a file, not an image reference
      expected: [host[:port]/]path[:tag][@sha256:…]
    ");
    let output = Sandbox::new().run(["pull", "--json", "redis@sha512:00"]).expect(2);
    let failed = output.one_json();
    assert_eq!(
        (failed["status"].as_str(), failed["error"]["code"].as_str(), failed["error"]["exit"].as_u64()),
        (Some("failed"), Some("reference"), Some(2))
    );
}

#[test]
fn asking_makes_no_store() {
    let sandbox = Sandbox::new();
    let listed = sandbox.run(["list"]).expect(0);
    assert!(listed.stdout.is_empty() && listed.stderr.starts_with("no images: there is no store at "), "{listed}");
    let inspected = sandbox.run(["inspect", "redis:7"]).expect(3);
    assert!(inspected.stderr.starts_with("error: docker.io/library/redis:7 is not in the store\n"), "{inspected}");
    let removed = sandbox.run(["remove", "redis:7"]).expect(3);
    assert!(removed.stderr.contains("hint: `larder list` shows what is there"), "{removed}");
    assert!(!sandbox.store().exists());
}

#[test]
fn offline_is_said_and_kept() {
    let mut sandbox = Sandbox::new();
    let output = sandbox.run(["pull", "--offline", "--platform", "linux/amd64", "redis:7"]).expect(3);
    insta::assert_snapshot!(output.stderr, @r"
    error: docker.io/library/redis:7 is not in the store, and the network is off
      hint: run `larder pull docker.io/library/redis:7` once without --offline
    ");
    sandbox.set("LARDER_OFFLINE", "1");
    assert!(sandbox.run(["pull", "redis:7"]).expect(3).stderr.contains("the network is off"));
}

#[test]
fn one_name_for_several_images_is_refused() {
    let output = Sandbox::new().run(["pull", "--as", "a:1", "redis:7", "redis:6"]).expect(2);
    assert_eq!(output.stderr, "error: --as names one image, but several are asked for\n");
    let named = Sandbox::new().run(["pull", "--as", "a@sha256:12", "redis:7"]).expect(2);
    assert!(named.stderr.contains("is not an image reference"), "{named}");
}

#[test]
fn without_an_engine_every_place_is_named() {
    let mut sandbox = Sandbox::new();
    let nowhere = format!("unix://{}/no.sock", sandbox.path().display());
    sandbox.set("DOCKER_HOST", nowhere.clone()).set("CONTAINER_HOST", format!("{nowhere}2"));
    let output = sandbox.run(["ensure", "--engine", "docker", "redis:7"]).expect(5);
    assert!(output.stderr.starts_with("error: docker did not answer\n"), "{output}");
    assert!(output.stderr.contains("/no.sock (DOCKER_HOST)") && output.stderr.contains("No such file"), "{output}");
    let engines = sandbox.run(["engines"]).expect(5);
    assert!(engines.stderr.contains("no engine answered") && engines.stdout.matches("cannot be used").count() >= 2, "{engines}");
}

#[test]
fn an_engine_that_cannot_be_asked_is_told_from_one_that_is_not_there() {
    let mut sandbox = Sandbox::new();
    let socket = sandbox.path().join("a.sock");
    sandbox.set("DOCKER_HOST", format!("unix://{}", socket.display()));
    let says = |code: &str, texts: &[&str]| {
        let output = sandbox.run(["ensure", "--json", "--engine", "docker", "--timeout", "1", "redis:7"]).expect(5);
        assert_eq!(output.one_json()["error"]["code"], code, "{output}");
        for text in texts.iter().chain(&["error: docker did not answer", "a.sock (DOCKER_HOST)"]) {
            assert!(output.stderr.contains(text), "no `{text}` in\n{output}");
        }
    };
    says("unreachable", &["No such file or directory", "hint: see whether docker runs there"]);
    drop(UnixListener::bind(&socket).unwrap());
    says("unreachable", &["Connection refused", "hint: its socket is a leftover: see whether docker runs there"]);
    std::fs::remove_file(&socket).unwrap();
    // It is there, lets everybody in, and says nothing.
    let _silent = UnixListener::bind(&socket).unwrap();
    says("timed-out", &["asked:  GET /_ping", "waited: 1 s", "hint: see whether it hangs, or wait longer with --engine-timeout"]);
}

#[test]
fn help_completions_and_manual_come_with_the_command() {
    let sandbox = Sandbox::new();
    for command in ["ensure", "pull", "load", "check", "export", "list", "inspect", "remove", "engines", "completions", "manual"] {
        let help = sandbox.run([command, "--help"]).expect(0);
        assert!(help.stdout.contains("Usage: larder") && help.stderr.is_empty(), "{help}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(sandbox.run(["completions", shell]).expect(0).stdout.contains("larder"));
    }
    let dir = sandbox.path().join("man");
    let pages = sandbox.run(["manual".as_ref(), dir.as_os_str()]).expect(0);
    assert!(pages.stdout.is_empty());
    assert!(dir.join("larder.1").is_file() && dir.join("larder-ensure.1").is_file());
    let unknown = sandbox.run(["ensure", "--platform", "linux", "redis"]).expect(2);
    assert!(unknown.stderr.contains("`linux` is not a platform"), "{unknown}");
}
