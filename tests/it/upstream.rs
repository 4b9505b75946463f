//! The door to the network, against a registry that misbehaves.

use larder::digest::Digest;
use larder::event::silent;
use larder::oci::Descriptor;
use larder::reference::{Reference, Repository};
use larder::upstream::{At, Settings, Upstream, UpstreamError};
use std::time::Duration;

use super::support::registry::{Access, Fault, Registry, TokenServer, Tokens};

fn settings() -> Settings {
    Settings {
        read_timeout: Duration::from_millis(200),
        connect_timeout: Duration::from_secs(2),
        helper_timeout: Duration::from_secs(2),
        backoff: Duration::from_millis(1),
        ..Settings::default()
    }
}

#[test]
fn first() {
    let registry = Registry::start();
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let digest = registry.put_blob(body.clone());
    let tokens = Tokens::default();
    registry.require(Access::Bearer { realm: None, tokens: tokens.clone() });
    registry.serve_tokens(TokenServer { tokens: tokens.clone(), ..TokenServer::default() });
    registry.fault("/blobs/", Fault::CutOnceAfter(30_000));
    let upstream = Upstream::new(settings()).unwrap();
    let of: Reference = format!("{}/a/b", registry.host()).parse().unwrap();
    let of: Repository = of.repository().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let got = runtime.block_on(async {
        let blob = Descriptor { media_type: String::new(), digest, size: body.len() as u64 };
        let mut stream = upstream.blob(&of, &blob, 0, &silent).await?;
        let mut got = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            got.extend_from_slice(&chunk);
        }
        Ok::<_, UpstreamError>(got)
    });
    for seen in registry.seen() {
        println!(
            "{} {}?{} {} range={:?} auth={:?}",
            seen.method,
            seen.path,
            seen.query,
            seen.status,
            seen.header("range"),
            seen.header("authorization")
        );
    }
    assert!(got.unwrap() == body);
    let _ = (At::Tag("x"), Digest::of(b""));
}
