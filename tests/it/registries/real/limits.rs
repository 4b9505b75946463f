//! nginx in front of a registry: limits, and blobs that are elsewhere.

use serde_json::json;

use super::{discreet, images, pull};
use crate::support::sandbox::Sandbox;
use crate::support::servers::Server;

#[test]
fn a_limit_is_waited_for_and_named_when_it_lasts() {
    let images = images();
    let registry = Server::registry(&images.path(), &json!({}));
    let pass = format!("proxy_pass http://{}; proxy_set_header Host $http_host;", registry.host());
    let passing = Server::nginx(&format!(
        "limit_req_zone all zone=z:1m rate=4r/s; limit_req_status 429;
         server {{ listen 127.0.0.1:PORT; location / {{ limit_req zone=z; {pass} }} }}"
    ));
    let output = pull(&Sandbox::new(), &images.pinned(&passing.host()), &["--tries", "20"]).expect(0);
    assert!(output.stderr.contains("trying again in"), "{output}");
    assert!(passing.log().contains("429 GET"), "{}", passing.log());

    let lasting = Server::nginx(
        "server { listen 127.0.0.1:PORT; location / { add_header RateLimit-Limit '100;w=21600' always;
         add_header RateLimit-Remaining '0;w=21600' always; return 429; } }",
    );
    let output = pull(&Sandbox::new(), &images.pinned(&lasting.host()), &[]).expect(6);
    assert!(output.stderr.contains("100 pulls in 6h"), "{output}");
}

#[test]
fn blobs_that_are_elsewhere_are_fetched_there_without_a_password() {
    let images = images();
    let registry = Server::registry(&images.path(), &json!({ "auth": { "htpasswd": { "realm": "larder", "path": "htpasswd" } } }));
    let open = Server::registry(&images.path(), &json!({}));
    // As with signed URLs: the other origin would refuse whoever shows more than that.
    let elsewhere = Server::nginx(&format!(
        "server {{ listen 127.0.0.1:PORT; if ($http_authorization) {{ return 400; }} location / {{ proxy_pass http://{}; }} }}",
        open.host()
    ));
    let front = Server::nginx(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://{}; proxy_set_header Host $http_host; }}
         location ~ /blobs/ {{ return 307 http://localhost:{}$request_uri?X-Amz-Signature=s3cret; }} }}",
        registry.host(),
        elsewhere.port()
    ));
    let output = discreet(pull(&Sandbox::new(), &images.pinned(&front.host()), &["--creds", "alice:s3cret"]).expect(0));
    assert_eq!(output.one_json()["status"], "pulled");
    assert!(front.log().contains("a=[Basic "), "{}", front.log());
    assert!(elsewhere.log().contains("/blobs/") && !elsewhere.log().contains("a=[B"), "{}", elsewhere.log());
}
