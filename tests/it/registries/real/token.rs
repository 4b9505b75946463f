//! A registry that wants tokens, from a token server that signs them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{discreet, images, pull, write};
use crate::support::sandbox::Sandbox;
use crate::support::servers::{Images, Keys, Server};
use crate::support::world::{Heard, Reply, World};

/// Signs tokens as the registry wants them: a JWT with the signer's certificate in it.
struct Signer {
    key: EcdsaKeyPair,
    certificate: String,
}

impl Signer {
    fn new(keys: &Keys) -> Signer {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &std::fs::read(keys.file("signer.der")).unwrap()).unwrap();
        Signer { key, certificate: STANDARD.encode(std::fs::read(keys.file("signer.crt.der")).unwrap()) }
    }

    /// A token that allows to pull from this repository.
    fn token(&self, repository: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": "signer", "sub": "alice", "aud": "the registry", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": now.to_string(),
            "access": [{ "type": "repository", "name": repository, "actions": ["pull"] }],
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// What the token server answers: alice by password or identity token gets one, others only if that is allowed.
    fn answer(&self, heard: &Heard, anyone: bool) -> Reply {
        let known = heard.text.contains("YWxpY2U6czNjcmV0") || heard.text.contains("refresh_token=1dentity");
        if !known && (!anyone || heard.text.to_ascii_lowercase().contains("authorization:")) {
            return (401, vec![], r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#.to_owned());
        }
        (200, vec![], json!({ "token": self.token("team/app"), "expires_in": 300 }).to_string())
    }
}

/// A registry and its token server.
fn guarded(images: &Images, keys: &Keys, anyone: bool) -> (Server, World) {
    let signer = Arc::new(Signer::new(keys));
    let world = World::new(move |heard| signer.answer(heard, anyone));
    let token = json!({
        "realm": format!("{}/token", world.proxy()), "service": "the registry", "issuer": "signer", "rootcertbundle": keys.file("signer.crt"),
    });
    (Server::registry(&images.path(), &json!({ "auth": { "token": token } })), world)
}

#[test]
fn one_signed_token_opens_a_whole_image() {
    let (images, keys) = (images(), Keys::make());
    let (registry, world) = guarded(&images, &keys, false);
    let sandbox = Sandbox::new();
    let output = discreet(pull(&sandbox, &images.pinned(&registry.host()), &["--creds", "alice:s3cret"]).expect(0));
    assert_eq!(output.one_json()["status"], "pulled");
    let heard = world.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].url.contains("scope=repository%3Ateam%2Fapp%3Apull") && heard[0].url.contains("account=alice"), "{heard:?}");

    let output = discreet(pull(&Sandbox::new(), &images.pinned(&registry.host()), &["--creds", "alice:wr0ng"]).expect(6));
    assert!(output.stderr.contains("refused the credentials") || output.stderr.contains("credentials"), "{output}");
    let _ = pull(&Sandbox::new(), &images.pinned(&registry.host()), &[]).expect(6);
}

#[test]
fn what_anyone_may_have_needs_no_credentials() {
    let (images, keys) = (images(), Keys::make());
    let (registry, world) = guarded(&images, &keys, true);
    let _ = pull(&Sandbox::new(), &images.pinned(&registry.host()), &[]).expect(0);
    // Credentials that are refused do not stand in its way.
    let _ = discreet(pull(&Sandbox::new(), &images.pinned(&registry.host()), &["--creds", "alice:wr0ng"]).expect(0));
    assert_eq!(world.heard().len(), 3);
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let (images, keys) = (images(), Keys::make());
    let (registry, world) = guarded(&images, &keys, false);
    let sandbox = Sandbox::new();
    let config = format!(r#"{{"auths":{{"{}":{{"identitytoken":"1dentity"}}}}}}"#, registry.host());
    write(&sandbox.home().join(".docker/config.json"), config);
    let _ = discreet(pull(&sandbox, &images.pinned(&registry.host()), &[]).expect(0));
    let heard = world.heard();
    assert!(heard.len() == 1 && heard[0].method == "POST" && !heard[0].url.contains("1dentity"), "{heard:?}");
}
