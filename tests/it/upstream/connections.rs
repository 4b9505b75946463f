//! How a connection comes about, and when it must not.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use larder::upstream::{At, Proxies, Settings, Upstream, UpstreamError as E};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::super::support::registry::{Access, Connected, Fault, Registry, Tokens, Wrap};
use super::{Door, MANIFEST, assert_matches, raw, repository, run, settings};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// A registry that speaks TLS with this certificate.
pub(crate) fn secure(certificate: &str) -> Registry {
    let chain = CertificateDer::pem_file_iter(fixture(certificate)).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let wrap: Wrap = Arc::new(move |stream| {
        let acceptor = acceptor.clone();
        Box::pin(async move { Ok(Box::new(acceptor.accept(stream).await?) as Box<dyn Connected>) })
    });
    Registry::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Some(wrap)).unwrap()
}

/// A door that asks this registry by HTTPS, and trusts these authorities besides the system's.
fn by_https(registry: Registry, roots: &[&str]) -> Door {
    let settings = Settings { https: vec![registry.host()], roots: roots.iter().map(|r| fixture(r)).collect(), ..settings() };
    let door = Door::to(registry, settings);
    door.put_manifest();
    door
}

#[test]
fn a_certificate_counts_if_its_authority_is_trusted() {
    let door = by_https(secure("good.pem"), &["ca.pem"]);
    door.manifest(At::Tag("1")).unwrap();
}

#[test]
fn a_bad_certificate_is_refused_at_once_and_for_its_reason() {
    let cases: [(&str, &[&str], &str); 3] =
        [("good.pem", &[], "UnknownIssuer"), ("expired.pem", &["ca.pem"], "expired"), ("elsewhere.pem", &["ca.pem"], "not valid for name")];
    for (certificate, roots, reason) in cases {
        let door = by_https(secure(certificate), roots);
        match door.refusal() {
            E::Tls { source, .. } => assert!(source.to_string().contains(reason), "{source}"),
            other => panic!("{certificate}: {other:?}"),
        }
        assert_eq!((door.registry.connections(), door.registry.seen().len()), (1, 0), "{certificate}");
    }
}

#[test]
fn https_never_becomes_http() {
    let plain = Registry::start();
    let door = by_https(plain, &["ca.pem"]);
    assert_matches!(door.refusal(), E::NotTls { .. });
    assert!(door.registry.seen().is_empty());

    let plain = Registry::start();
    let door = by_https(secure("good.pem"), &["ca.pem"]);
    door.registry.fault("/manifests/", Fault::RedirectTo(plain.url("/v2/some/app/manifests/1")));
    assert_matches!(door.refusal(), E::InsecureRedirect { .. });
    door.registry.heal();
    door.registry.require(Access::Bearer { realm: Some(plain.url("/token")), tokens: Tokens::default() });
    assert_matches!(door.refusal(), E::Realm { .. });
    assert_eq!(plain.connections(), 0);
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let door = by_https(secure("good.pem"), &["absent.pem"]);
    assert_matches!(door.refusal(), E::Roots { path, .. } if path == fixture("absent.pem"));
    let door = by_https(secure("good.pem"), &["README.md"]);
    assert_matches!(door.refusal(), E::NoRoots { path } if path == fixture("README.md"));
}

/// What comes of asking a registry at this address for something.
fn ask(registry: &str, settings: Settings) -> (E, usize) {
    let upstream = Upstream::new(settings).unwrap();
    let told = std::sync::Mutex::new(0);
    let tell = |_| *told.lock().unwrap() += 1;
    let end = run(upstream.manifest(&repository(&format!("{registry}/some/app")), At::Tag("1"), &tell));
    (end.err().unwrap(), told.into_inner().unwrap())
}

#[test]
fn a_host_that_is_not_there_is_tried_twice() {
    // No name server is asked for a label of this length.
    let host = format!("{}.example", "a".repeat(64));
    let (error, retries) = ask(&host, Settings { insecure: vec![host.clone()], ..settings() });
    assert_matches!(error, E::Resolve { .. });
    assert_eq!(retries, 1);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (error, retries) = ask(&address.to_string(), settings());
    assert_matches!(error, E::Refused { .. });
    assert_eq!(retries, 1);
}

#[test]
fn addresses_of_machines_secrets_are_never_dialled() {
    for host in [
        "169.254.169.254",
        "169.254.169.254:8080",
        "[fe80::1]:5000",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]:80",
        "0xa9.0xfe.0xa9.0xfe",
    ] {
        for insecure in [vec![], vec![host.to_owned()]] {
            let (error, retries) = ask(host, Settings { insecure, ..settings() });
            assert_matches!(error, E::Blocked { .. }, "{host}");
            assert_eq!(retries, 0);
        }
    }
    // Nobody is there, but it was dialled.
    let allowed = Settings {
        allowed_addresses: vec!["169.254.169.254".parse().unwrap()],
        connect_timeout: std::time::Duration::from_millis(50),
        read_timeout: std::time::Duration::from_millis(100),
        tries: 1,
        ..settings()
    };
    assert_matches!(ask("169.254.169.254", allowed.clone()).0, E::Connect { .. } | E::TimedOut { .. } | E::Tls { .. } | E::Refused { .. });
    assert_matches!(ask("169.254.169.253", allowed).0, E::Blocked { .. });
}

#[test]
fn a_name_with_two_addresses_is_reached_at_the_one_that_answers() {
    let registry = Registry::start();
    registry.put_manifest("some/app", "1", MANIFEST, "{}");
    let of = repository(&format!("localhost:{}/some/app", registry.port()));
    let upstream = Upstream::new(settings()).unwrap();
    run(upstream.manifest(&of, At::Tag("1"), &larder::event::silent)).unwrap();
}

#[test]
fn what_is_not_http_is_not_taken_for_an_answer() {
    let head = "HTTP/1.1 200 OK\r\n";
    let cases = [
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        format!("{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x"),
        format!("{head}Content-Length: -1\r\n\r\n{{}}"),
        format!("{head}Content-Length: 2\r\n{}\r\n{{}}", "X: y\r\n".repeat(1000)),
        format!("{head}X: {}\r\n\r\n{{}}", "y".repeat(1 << 20)),
        format!("{head}X\u{0}: y\r\n\r\n{{}}"),
        "HTTP/1.1 OK 200\r\n\r\n{}".to_owned(),
    ];
    for answer in cases {
        let shown = answer[..answer.len().min(60)].to_owned();
        let (error, retries) = ask(&raw(answer.into_bytes()), settings());
        assert_matches!(error, E::NotHttp { .. }, "{shown}");
        assert_eq!(retries, 0, "{shown}");
    }
    for cut in
        ["", "HTTP/1.1 200", &format!("{head}Content-Length: 20\r\n\r\nshort"), &format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nab")]
    {
        let (error, retries) = ask(&raw(cut.as_bytes().to_vec()), settings());
        assert_matches!(error, E::Broken { .. }, "{cut}");
        assert_eq!(retries, 4, "{cut}");
    }
}

/// Runs one of the tests below in a process of its own with this environment.
fn alone(test: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("upstream::connections::{test}"), "--ignored", "--nocapture"]);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_system_that_trusts_nobody_is_no_obstacle() {
    alone("with_the_bundled_roots", &[("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")]);
}

#[test]
#[ignore = "run by a_system_that_trusts_nobody_is_no_obstacle"]
fn with_the_bundled_roots() {
    let door = by_https(secure("good.pem"), &[]);
    assert_matches!(door.refusal(), E::Tls { .. });
    let door = by_https(secure("good.pem"), &["ca.pem"]);
    door.manifest(At::Tag("1")).unwrap();
}

#[test]
fn a_system_that_trusts_our_authority_needs_no_settings() {
    let ca = fixture("ca.pem");
    alone("with_the_authority_of_the_system", &[("SSL_CERT_FILE", ca.to_str().unwrap()), ("SSL_CERT_DIR", "/nonexistent")]);
}

#[test]
#[ignore = "run by a_system_that_trusts_our_authority_needs_no_settings"]
fn with_the_authority_of_the_system() {
    let door = by_https(secure("good.pem"), &[]);
    door.manifest(At::Tag("1")).unwrap();
}

/// Far things are asked of this proxy, near things are not. What came of a far one.
fn behind_a_proxy(proxy: &str) -> E {
    let proxies = Proxies::new(Some(proxy), Some(proxy), "").unwrap();
    let (error, _) = ask("registry.example", Settings { proxies: proxies.clone(), ..settings() });
    let door = Door::with(Settings { proxies, ..settings() });
    door.put_manifest();
    door.manifest(At::Tag("1")).unwrap();
    error
}

#[test]
fn a_proxy_is_asked_for_what_is_far_and_not_for_what_is_near() {
    let proxy = Registry::start();
    assert_matches!(behind_a_proxy(&proxy.url("")), E::Proxy { .. });
    assert!(proxy.seen().iter().any(|s| s.method == "CONNECT"), "{:?}", proxy.seen());

    proxy.fault("", Fault::Status(407, None, usize::MAX));
    assert_matches!(behind_a_proxy(&proxy.url("")), E::Proxy { .. });
}

#[test]
fn a_proxy_that_is_not_there_is_not_taken_for_the_registry() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_matches!(behind_a_proxy(&address), E::Proxy { .. });
}
