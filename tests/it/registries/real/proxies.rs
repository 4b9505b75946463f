//! Registries behind proxies that want a password: tinyproxy for HTTP and CONNECT, microsocks for SOCKS. The registry has a name that
//! only the proxies know.

use serde_json::json;

use super::{discreet, images, pull};
use crate::support::sandbox::Sandbox;
use crate::support::servers::{Keys, Server};

#[test]
fn a_proxy_leads_to_a_registry_with_and_without_tls() {
    let (images, keys) = (images(), Keys::make());
    let registry = Server::registry(&images.path(), &json!({}));
    let pass = format!("location / {{ proxy_pass http://{}; proxy_set_header Host $http_host; }}", registry.host());
    let secure = Server::nginx(&format!("server {{ listen 127.0.0.1:PORT ssl; {} {pass} }}", keys.nginx()));
    let plain = Server::nginx(&format!("server {{ listen 127.0.0.1:PORT; {pass} }}"));
    let (tinyproxy, microsocks) = (Server::tinyproxy(), Server::microsocks());
    let ca = keys.file("ca.crt").display().to_string();
    let by_tls = format!("registry.test:{}", secure.port());
    let in_plain = format!("registry.test:{}", plain.port());
    let with = |variables: &[(&str, String)], host: &str, code: i32| {
        let mut sandbox = Sandbox::new();
        for (name, value) in variables {
            sandbox.set(name, value.clone());
        }
        discreet(pull(&sandbox, &images.pinned(host), &["--ca-file", &ca, "--insecure", &in_plain]).expect(code))
    };
    let http = |user: &str| format!("http://{user}{}", tinyproxy.host());
    let socks = |user: &str| format!("socks5h://{user}{}", microsocks.host());
    let alice = "alice:s3cret@";

    // Nobody else knows the name.
    let _ = with(&[], &by_tls, 1);
    for (variable, proxy) in [
        ("HTTPS_PROXY", http(alice)),
        ("https_proxy", http(alice)),
        ("ALL_PROXY", http(alice)),
        ("HTTPS_PROXY", socks(alice)),
        ("ALL_PROXY", socks(alice)),
        ("HTTPS_PROXY", format!("{alice}{}", tinyproxy.host())),
    ] {
        let _ = with(&[(variable, proxy)], &by_tls, 0);
    }
    for (variable, proxy) in [("HTTP_PROXY", http(alice)), ("http_proxy", http(alice)), ("HTTP_PROXY", socks(alice))] {
        let _ = with(&[(variable, proxy)], &in_plain, 0);
    }
    assert!(tinyproxy.log().contains(&format!("CONNECT {by_tls}")), "{}", tinyproxy.log());
    // The proxy's password goes to the proxy and no further.
    assert!(secure.log().contains(" 200 ") || secure.log().contains("200 GET"), "{}", secure.log());
    assert!(!secure.log().contains("p=[B") && !plain.log().contains("p=[B"), "{}{}", secure.log(), plain.log());

    // A proxy that refuses is named as what it is, and its password is not.
    for (variable, proxy, host) in [
        ("HTTPS_PROXY", http(""), &by_tls),
        ("HTTPS_PROXY", http("alice:wr0ng@"), &by_tls),
        ("HTTP_PROXY", http(""), &in_plain),
        ("HTTPS_PROXY", socks("alice:wr0ng@"), &by_tls),
    ] {
        let output = with(&[(variable, proxy)], host, 1);
        assert!(output.stderr.contains("proxy"), "{output}");
    }
    // Not asked for what is excepted.
    let before = tinyproxy.log().len();
    for except in ["registry.test", "*", ".test", &by_tls] {
        let _ = with(&[("HTTPS_PROXY", http(alice)), ("NO_PROXY", except.to_owned())], &by_tls, 1);
    }
    assert_eq!(tinyproxy.log().len(), before);
    let _ = with(&[("HTTPS_PROXY", http(alice)), ("NO_PROXY", "registry.test:1,10.0.0.0/8".to_owned())], &by_tls, 0);
    // What is no proxy is said before anything is asked.
    let output = with(&[("HTTPS_PROXY", "ftp://alice:s3cret@h".to_owned())], &by_tls, 2);
    assert!(output.stderr.contains("HTTPS_PROXY is not the URL of a proxy"), "{output}");
}
