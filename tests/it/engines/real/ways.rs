//! The ways to engines that people set: TLS, contexts, ssh; and what is said where one leads nowhere.

use std::process::Command;

use serde_json::json;

use super::*;
use crate::support::sandbox::Sandbox;
use crate::support::ssh::Sshd;

/// A sandbox whose store has a small image for this machine.
fn sandbox() -> (Sandbox, Stored) {
    let stored = stored(&Recipe { layers: 1, ..Recipe::default() }.make(), NAME);
    stored.store.pin(&stored.pin).unwrap();
    let mut sandbox = Sandbox::new();
    sandbox.set("LARDER_DIR", stored.store.root().display().to_string());
    (sandbox, stored)
}

/// Loads the image there and asks whether it is held, as root of that very machine and yet as if it were another.
fn loads_and_checks(sandbox: &Sandbox, engine: &str) {
    let loaded = sandbox.run(["load", "--json", "--engine", engine, NAME]).expect(0).one_json();
    assert!(matches!(loaded["status"].as_str(), Some("loaded" | "held")), "{loaded}");
    let _ = sandbox.run(["check", "--engine", engine, NAME]).expect(0);
    let deep = sandbox.run(["check", "--deep", "--json", "--engine", engine, NAME]).expect(0);
    assert!(deep.stderr.contains("were not compared: the engine is reached over"), "{deep}");
    let deep = deep.one_json();
    assert_eq!((&deep["deep"]["level"], &deep["deep"]["files"], &deep["deep"]["export"]), (&json!("content"), &json!(false), &json!(true)));
}

/// The command fails as one that cannot ask its engine, and says all of this.
fn fails(sandbox: &Sandbox, engine: &str, texts: &[&str]) {
    let output = sandbox.run(["check", "--engine", engine, NAME]).expect(5);
    for text in texts {
        assert!(output.stderr.contains(text), "no `{text}` in\n{output}");
    }
}

/// A docker that speaks TLS and wants to see a certificate.
struct Secure {
    real: RealEngine,
    address: String,
    folder: tempfile::TempDir,
}

impl Secure {
    fn start() -> Secure {
        let folder = tempfile::tempdir().unwrap();
        for (authority, names) in [("ours", &["server", "client"][..]), ("theirs", &["client"])] {
            certificates(&folder.path().join(authority), names);
        }
        let ours = folder.path().join("ours");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = |name: &str| ours.join(name).display().to_string();
        let real = RealEngine::start_with(
            Make::Docker,
            &[
                &format!("--host=tcp://127.0.0.1:{port}"),
                "--tlsverify",
                &format!("--tlscacert={}", file("ca.pem")),
                &format!("--tlscert={}", file("server.pem")),
                &format!("--tlskey={}", file("server-key.pem")),
            ],
        );
        Secure { real, address: format!("tcp://127.0.0.1:{port}"), folder }
    }

    /// A folder as `DOCKER_CERT_PATH` names it: an authority's certificate, and a client's of some authority, if any.
    fn folder(&self, trusts: Option<&str>, shows: Option<&str>) -> PathBuf {
        let made = tempfile::Builder::new().tempdir_in(self.folder.path()).unwrap().keep();
        let copy = |authority: &str, from: &str, to: &str| fs::copy(self.folder.path().join(authority).join(from), made.join(to)).unwrap();
        if let Some(authority) = trusts {
            copy(authority, "ca.pem", "ca.pem");
        }
        if let Some(authority) = shows {
            copy(authority, "client.pem", "cert.pem");
            copy(authority, "client-key.pem", "key.pem");
        }
        made
    }

    /// A context as docker's command line keeps it.
    fn context(&self, sandbox: &Sandbox, name: &str, material: &Path, skip: bool) {
        let folder = sandbox.home().join(".docker/contexts");
        let id = Digest::of(name.as_bytes()).hex();
        let meta = folder.join("meta").join(&id);
        fs::create_dir_all(&meta).unwrap();
        let endpoint = json!({ "docker": { "Host": self.address, "SkipTLSVerify": skip } });
        fs::write(meta.join("meta.json"), json!({ "Name": name, "Metadata": {}, "Endpoints": endpoint }).to_string()).unwrap();
        let tls = folder.join("tls").join(&id).join("docker");
        fs::create_dir_all(&tls).unwrap();
        for file in fs::read_dir(material).unwrap().flatten() {
            fs::copy(file.path(), tls.join(file.file_name())).unwrap();
        }
    }
}

/// An authority of its own, and certificates that it signed for servers on 127.0.0.1 and for clients alike.
fn certificates(folder: &Path, names: &[&str]) {
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca-key.pem -out ca.pem -subj /CN={} -days 2", folder.file_name().unwrap().display()));
    for name in names {
        openssl(&format!("req {key} -keyout {name}-key.pem -out {name}.csr -subj /CN={name}"));
        openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile ext -out {name}.pem"));
    }
}

#[test]
fn docker_behind_tls() {
    let docker = Secure::start();
    let (mut sandbox, _stored) = sandbox();
    sandbox.set("DOCKER_HOST", &docker.address).set("DOCKER_TLS_VERIFY", "1");
    sandbox.set("DOCKER_CERT_PATH", docker.folder(Some("ours"), Some("ours")).display().to_string());
    loads_and_checks(&sandbox, "docker");
    assert!(docker.real.inspect_id(NAME).is_some());

    let failures: [(Option<&str>, Option<&str>, &str); 5] = [
        (Some("theirs"), Some("ours"), "invalid peer certificate: UnknownIssuer"),
        (Some("ours"), Some("theirs"), "received fatal alert"),
        (Some("ours"), None, "received fatal alert"),
        (None, Some("ours"), "ca.pem cannot be used"),
        (None, None, "ca.pem cannot be used"),
    ];
    for (trusts, shows, text) in failures {
        sandbox.set("DOCKER_CERT_PATH", docker.folder(trusts, shows).display().to_string());
        fails(&sandbox, "docker", &[text]);
    }
    fails(&sandbox, "auto", &["ca.pem cannot be used"]);

    // Without verifying, anybody may be the engine, but the engine still wants to know who asks.
    sandbox.set("DOCKER_TLS_VERIFY", "").set("DOCKER_TLS", "1");
    sandbox.set("DOCKER_CERT_PATH", docker.folder(Some("theirs"), Some("ours")).display().to_string());
    let _ = sandbox.run(["check", NAME]).expect(0);
    sandbox.set("DOCKER_TLS", "");
    fails(&sandbox, "docker", &["Client sent an HTTP request to an HTTPS server"]);
}

#[test]
fn docker_behind_tls_in_a_context() {
    let docker = Secure::start();
    let (mut sandbox, _stored) = sandbox();
    docker.context(&sandbox, "far", &docker.folder(Some("ours"), Some("ours")), false);
    docker.context(&sandbox, "stranger", &docker.folder(Some("theirs"), Some("ours")), false);
    docker.context(&sandbox, "trusting", &docker.folder(Some("theirs"), Some("ours")), true);
    sandbox.set("DOCKER_CONTEXT", "far");
    loads_and_checks(&sandbox, "docker");
    sandbox.set("DOCKER_CONTEXT", "trusting");
    let _ = sandbox.run(["check", NAME]).expect(0);
    sandbox.set("DOCKER_CONTEXT", "stranger");
    fails(
        &sandbox,
        "docker",
        &["UnknownIssuer", "the context `stranger` (DOCKER_CONTEXT)", "hint: see whether these are the engine's certificates"],
    );

    sandbox.set("DOCKER_CONTEXT", "");
    fs::write(sandbox.home().join(".docker/config.json"), r#"{"currentContext":"far"}"#).unwrap();
    let engines = sandbox.run(["engines", "--json"]).expect(0).json();
    let far = engines.iter().find(|engine| engine["engine"] == "docker").unwrap();
    assert_eq!((&far["status"], &far["address"]), (&json!("usable"), &json!(docker.address)));
    assert!(far["found_by"].as_str().unwrap().contains("the context `far`"), "{far}");
}

fn an_engine_behind_ssh(make: Make, variable: &str, engine: &str) {
    let (real, sshd) = (RealEngine::start(make), Sshd::start());
    let (mut sandbox, _stored) = sandbox();
    sandbox.set(variable, sshd.address(&real.socket()));
    sandbox.set("PATH", sshd.path(true, Some(&sshd.key())));
    loads_and_checks(&sandbox, engine);
    assert!(real.inspect_id(NAME).is_some());

    sandbox.set("PATH", sshd.path(false, Some(&sshd.key())));
    fails(
        &sandbox,
        engine,
        &["Host key verification failed", "ran:", "ssh -T -o BatchMode=yes", "hint: connect to the host once with ssh"],
    );
    sandbox.set("PATH", sshd.path(true, Some(&sshd.stranger())));
    fails(&sandbox, engine, &["Permission denied (publickey)", "hint: see whether ssh logs in there without asking"]);
    sandbox.set("PATH", "/nowhere");
    fails(&sandbox, engine, &["cannot be started: No such file or directory", "hint: install OpenSSH's client"]);
    sandbox.set("PATH", sshd.path(true, Some(&sshd.key())));
    sandbox.set(variable, sshd.address(Path::new("/nowhere.sock")));
    fails(&sandbox, engine, &["ended with exit status: 1", "/nowhere.sock"]);
}

#[test]
fn docker_behind_ssh() {
    an_engine_behind_ssh(Make::Docker, "DOCKER_HOST", "docker");
}

#[test]
fn podman_behind_ssh() {
    an_engine_behind_ssh(Make::Podman, "CONTAINER_HOST", "podman");
}

#[test]
fn podmans_connections_and_keys_are_used() {
    let (real, sshd) = (RealEngine::start(Make::Podman), Sshd::start());
    let (mut sandbox, _stored) = sandbox();
    sandbox.set("PATH", sshd.path(true, None));
    let folder = sandbox.home().join(".config/containers");
    fs::create_dir_all(&folder).unwrap();
    let connection = json!({ "URI": sshd.address(&real.socket()), "Identity": sshd.key() });
    let connections = json!({ "Connection": { "Default": "far", "Connections": { "far": connection } } });
    fs::write(folder.join("podman-connections.json"), connections.to_string()).unwrap();
    sandbox.set("CONTAINER_CONNECTION", "far");
    loads_and_checks(&sandbox, "podman");
    sandbox.set("CONTAINER_CONNECTION", "near");
    fails(&sandbox, "podman", &["there is no podman connection `near`", "there is: far"]);

    sandbox.set("CONTAINER_CONNECTION", "").set("CONTAINER_HOST", sshd.address(&real.socket()));
    fails(&sandbox, "podman", &["Permission denied (publickey)"]);
    sandbox.set("CONTAINER_SSHKEY", sshd.key().display().to_string());
    let _ = sandbox.run(["check", "--engine", "podman", NAME]).expect(0);
}

#[test]
fn where_there_is_no_engine_little_is_said() {
    let (mut sandbox, _stored) = sandbox();
    sandbox.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let output = sandbox.run(["engines"]).expect(5);
    assert!(output.stdout.contains("/nowhere/docker.sock") && output.stdout.contains("hint:"), "what somebody set is shown: {output}");
    sandbox.set("DOCKER_HOST", "");
    let output = sandbox.run(["engines"]);
    if output.code == Some(5) {
        assert!(output.stdout.is_empty() && output.stderr.lines().count() == 2, "{output}");
        assert_eq!(sandbox.run(["engines", "--json"]).expect(5).json().iter().filter(|e| e["status"] == "unusable").count(), 15);
    }
}
