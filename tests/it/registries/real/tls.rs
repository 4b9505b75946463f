//! TLS with an authority that nobody knows, and servers that want to see a certificate.

use serde_json::json;

use super::{images, pull, write};
use crate::support::sandbox::Sandbox;
use crate::support::servers::{Images, Keys, Server};

/// A registry that speaks TLS by itself.
fn secure(images: &Images, keys: &Keys) -> Server {
    let tls = json!({ "http": { "tls": { "certificate": keys.file("server.crt"), "key": keys.file("server.key") } } });
    Server::registry(&images.path(), &tls)
}

/// A sandbox in which this host is asked by HTTPS, although it is on loopback.
fn by_https(host: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    write(&sandbox.home().join(".config/larder/config.toml"), format!("https = [\"{host}\"]\n"));
    sandbox
}

#[test]
fn an_authority_is_trusted_wherever_it_is_named() {
    let (images, keys) = (images(), Keys::make());
    let registry = secure(&images, &keys);
    let host = registry.host();
    let reference = images.pinned(&host);

    let unknown = pull(&by_https(&host), &reference, &[]).expect(1);
    assert!(unknown.stderr.contains("UnknownIssuer") && unknown.stderr.contains("--ca-file"), "{unknown}");
    let ca = keys.file("ca.crt").display().to_string();
    let _ = pull(&by_https(&host), &reference, &["--ca-file", &ca]).expect(0);

    let mut sandbox = by_https(&host);
    sandbox.set("SSL_CERT_FILE", ca.clone());
    let _ = pull(&sandbox, &reference, &[]).expect(0);

    // A host with a folder of certificates is asked by HTTPS without a word more.
    for folder in ["etc/docker", "etc/containers", "etc/containerd", "home/.config/containers", "home/.config/docker"] {
        let sandbox = Sandbox::new();
        keys.put(&sandbox.path().join(folder).join("certs.d").join(&host), &[("ca.crt", "any.crt")]);
        let _ = pull(&sandbox, &reference, &[]).expect(0);
    }
    // One for another port is none for this one.
    let sandbox = by_https(&host);
    keys.put(&sandbox.etc().join("docker/certs.d/127.0.0.1:1"), &[("ca.crt", "any.crt")]);
    keys.put(&sandbox.etc().join("docker/certs.d/127.0.0.1"), &[("ca.crt", "any.crt")]);
    let _ = pull(&sandbox, &reference, &[]).expect(1);
    // Switched off, nothing is read.
    let sandbox = Sandbox::new();
    keys.put(&sandbox.etc().join("docker/certs.d").join(&host), &[("ca.crt", "any.crt")]);
    write(&sandbox.home().join(".config/larder/config.toml"), format!("certs_d = false\nhttps = [\"{host}\"]\n"));
    let _ = pull(&sandbox, &reference, &[]).expect(1);

    let hosts = |more: &str| {
        let sandbox = Sandbox::new();
        let path = sandbox.etc().join("containerd/certs.d").join(&host).join("hosts.toml");
        write(&path, format!("server = \"https://{host}\"\n{more}\n"));
        sandbox
    };
    let _ = pull(&hosts(""), &reference, &[]).expect(1);
    let _ = pull(&hosts(&format!("ca = \"{ca}\"")), &reference, &[]).expect(0);
    let _ = pull(&hosts("skip_verify = true"), &reference, &[]).expect(0);
}

#[test]
fn a_host_that_speaks_tls_is_not_asked_without() {
    let (images, keys) = (images(), Keys::make());
    let registry = secure(&images, &keys);
    // By plain HTTP it says that it wants HTTPS, and that is the end of it.
    let output = pull(&Sandbox::new(), &images.pinned(&registry.host()), &[]).expect(1);
    assert!(output.stderr.contains("HTTPS server"), "{output}");
    // The other way round neither.
    let plain = Server::registry(&images.path(), &json!({}));
    let output = pull(&by_https(&plain.host()), &images.pinned(&plain.host()), &[]).expect(1);
    assert!(output.stderr.contains("does not speak TLS"), "{output}");
    assert!(!plain.log().contains("GET /v2"), "{}", plain.log());
}

#[test]
fn a_client_certificate_is_shown_to_its_host() {
    let (images, keys) = (images(), Keys::make());
    let registry = Server::registry(&images.path(), &json!({}));
    let nginx = Server::nginx(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} ssl_client_certificate {}; ssl_verify_client on;
         location / {{ proxy_pass http://{}; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https; }} }}",
        keys.nginx(),
        keys.file("ca.crt").display(),
        registry.host()
    ));
    let host = nginx.host();
    let reference = images.pinned(&host);
    let with = |folder: &str, files: &[(&str, &str)]| {
        let sandbox = Sandbox::new();
        keys.put(&sandbox.path().join(folder).join("certs.d").join(&host), files);
        sandbox
    };
    let without = pull(&with("etc/docker", &[("ca.crt", "ca.crt")]), &reference, &[]).expect(1);
    assert!(without.stderr.contains("400"), "{without}");
    let whole = [("ca.crt", "ca.crt"), ("client.cert", "client.cert"), ("client.key", "client.key")];
    for folder in ["etc/docker", "etc/containers", "home/.config/containers"] {
        let _ = pull(&with(folder, &whole), &reference, &[]).expect(0);
    }
    assert!(nginx.log().contains("c=[CN=alice]"), "{}", nginx.log());
    // Half of it is no certificate, and neither is a wrong key; what is in the files is not told.
    let half = pull(&with("etc/docker", &whole[..2]), &reference, &[]).expect(1);
    assert!(half.stderr.contains("client.key"), "{half}");
    let wrong = pull(&with("etc/docker", &[whole[0], whole[1], ("ca.crt", "client.key")]), &reference, &[]).expect(1);
    assert!(wrong.stderr.contains("client.cert and its key") && !wrong.stderr.contains("BEGIN"), "{wrong}");

    let sandbox = with("etc/docker", &whole[..1]);
    let pair = format!("[[\"{}\", \"{}\"]]", keys.file("client.cert").display(), keys.file("client.key").display());
    write(
        &sandbox.etc().join("containerd/certs.d").join(&host).join("hosts.toml"),
        format!("server = \"https://{host}\"\nclient = {pair}\n"),
    );
    let _ = pull(&sandbox, &reference, &[]).expect(0);
}
