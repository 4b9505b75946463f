//! A registry that wants a password.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use super::{discreet, images, pull, write};
use crate::support::sandbox::Sandbox;
use crate::support::servers::Server;

const ALICE: &str = "YWxpY2U6czNjcmV0";

fn locked(images: &crate::support::servers::Images) -> Server {
    Server::registry(&images.path(), &json!({ "auth": { "htpasswd": { "realm": "larder", "path": "htpasswd" } } }))
}

#[test]
fn a_password_is_taken_from_wherever_people_keep_it() {
    let images = images();
    let registry = locked(&images);
    let host = registry.host();
    let entry = format!(r#"{{"auths":{{"{host}":{{"auth":"{ALICE}"}}}}}}"#);
    let namespace = format!(r#"{{"auths":{{"{host}/team":{{"auth":"{ALICE}"}},"{host}":{{"auth":"YTpi"}}}}}}"#);
    // Where it is written, below the sandbox; what is given besides; whether the registry lets it in.
    let cases: [(&str, &str, &[&str], bool); 9] = [
        ("home/.docker/config.json", &entry, &[], true),
        ("run/containers/auth.json", &entry, &[], true),
        ("home/.config/containers/auth.json", &namespace, &[], true),
        ("home/my.json", &entry, &["--authfile", "my.json"], true),
        ("home/.docker/config.json", &entry, &["--authfile", "other.json"], false),
        ("home/nothing", "", &["--creds", "alice:s3cret"], true),
        ("home/.docker/config.json", &entry, &["--creds", "alice:wr0ng"], false),
        ("home/.docker/config.json", &entry.replace(ALICE, "YWxpY2U6d3IwbmcK"), &[], false),
        ("home/nothing", "", &[], false),
    ];
    for (path, text, more, opens) in cases {
        let sandbox = Sandbox::new();
        write(&sandbox.path().join(path), text);
        let output = discreet(pull(&sandbox, &images.pinned(&host), more).expect(if opens { 0 } else { 6 }));
        assert!(opens || output.stderr.contains("hint: log in"), "{output}");
    }
    assert!(registry.log().contains("alice"), "the registry knew who asked");
}

#[test]
fn the_first_of_several_files_decides_and_a_variable_stands_for_all() {
    let images = images();
    let registry = locked(&images);
    let file = |auth: &str| format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host());
    let mut sandbox = Sandbox::new();
    write(&sandbox.path().join("run/containers/auth.json"), file(ALICE));
    write(&sandbox.home().join(".docker/config.json"), file("YWxpY2U6d3IwbmcK"));
    let _ = discreet(pull(&sandbox, &images.pinned(&registry.host()), &[]).expect(0));
    let wrong = sandbox.home().join(".docker/config.json").display().to_string();
    sandbox.set("REGISTRY_AUTH_FILE", wrong.clone());
    let mut other = Sandbox::new();
    other.set("REGISTRY_AUTH_FILE", wrong);
    write(&other.path().join("run/containers/auth.json"), file(ALICE));
    let output = discreet(pull(&other, &images.pinned(&registry.host()), &[]).expect(6));
    assert!(output.stderr.contains("config.json"), "the file is named\n{output}");
}

#[test]
fn a_helper_program_is_run_as_docker_runs_it() {
    let images = images();
    let registry = locked(&images);
    for config in
        [r#"{"credsStore":"mine"}"#.to_owned(), format!(r#"{{"credHelpers":{{"{}":"mine"}},"credsStore":"absent"}}"#, registry.host())]
    {
        let mut sandbox = Sandbox::new();
        let folder = sandbox.home().join("bin");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = {} ] && echo '{{\"Username\":\"alice\",\"Secret\":\"s3cret\"}}'\n",
            registry.host()
        );
        write(&folder.join("docker-credential-mine"), script);
        crate::support::run(std::process::Command::new("chmod").arg("+x").arg(folder.join("docker-credential-mine")));
        write(&sandbox.home().join(".docker/config.json"), config);
        sandbox.set("PATH", format!("{}:/usr/bin:/bin", folder.display()));
        let _ = discreet(pull(&sandbox, &images.pinned(&registry.host()), &[]).expect(0));
    }
}

#[test]
fn a_password_can_be_piped_in() {
    let images = images();
    let registry = locked(&images);
    let piped = |input: &str, more: &[&str]| {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command();
        command.args(["pull", "--engine", "none", "--platform", "linux/amd64", &images.pinned(&registry.host())]).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that refuses its arguments ends without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(piped("s3cret\n", &["--creds", "alice", "--password-stdin"]).0, Some(0));
    assert_eq!(piped("wr0ng\n", &["--creds", "alice", "--password-stdin"]).0, Some(6));
    for (input, more) in [
        ("", &["--creds", "alice", "--password-stdin"][..]),
        ("x", &["--creds", "alice:y", "--password-stdin"]),
        ("x", &["--creds", "alice"]),
    ] {
        let (code, said) = piped(input, more);
        assert_eq!(code, Some(2), "{said}");
    }
}
