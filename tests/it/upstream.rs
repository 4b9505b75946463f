//! The door to the network, against registries that misbehave.
//!
//! Each of them ends within seconds or fails: the waits are set short, and nothing sleeps to wait.
#![allow(clippy::unwrap_used, reason = "tests")]

mod auth;
mod blobs;
pub(super) mod connections;
mod corpus;
mod helpers;
mod manifests;
mod redirects;
mod several;
mod strangers;
mod stretches;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use larder::digest::Digest;
use larder::event::Event;
use larder::oci::Descriptor;
use larder::reference::Reference;
use larder::upstream::{At, Found, Login, Place, Settings, Upstream, UpstreamError};
use tokio::runtime::{Builder, Runtime};

use super::support::registry::Registry;

/// A registry, and a door that leads to it.
struct Door {
    registry: Registry,
    upstream: Upstream,
    of: Place,
    told: Mutex<Vec<Event>>,
}

impl Door {
    fn new() -> Door {
        Door::with(settings())
    }

    fn with(settings: Settings) -> Door {
        Door::to(Registry::start(), settings)
    }

    fn to(registry: Registry, settings: Settings) -> Door {
        let of = repository(&format!("{}/some/app", registry.host()));
        Door { registry, upstream: Upstream::new(settings).unwrap(), of, told: Mutex::default() }
    }

    fn put(&self, bytes: &[u8]) -> Descriptor {
        let digest = self.registry.put_blob(bytes.to_vec());
        Descriptor { media_type: "application/octet-stream".into(), digest, size: bytes.len() as u64 }
    }

    /// What came of the blob, and how it ended.
    fn get(&self, blob: &Descriptor, offset: u64) -> (Vec<u8>, Result<(), UpstreamError>) {
        run(self.stream(blob, offset))
    }

    async fn stream(&self, blob: &Descriptor, offset: u64) -> (Vec<u8>, Result<(), UpstreamError>) {
        let mut got = Vec::new();
        let tell = |event| self.told.lock().unwrap().push(event);
        let end = async {
            let mut stream = self.upstream.blob(&self.of, blob, offset, None, &tell).await?;
            while let Some(chunk) = stream.chunk().await? {
                got.extend_from_slice(&chunk);
            }
            Ok(())
        };
        let end = end.await;
        (got, end)
    }

    /// The blob, which has to come as it is.
    fn get_whole(&self, blob: &Descriptor) {
        let (got, end) = self.get(blob, 0);
        end.unwrap();
        assert_eq!(Digest::of(&got), blob.digest);
    }

    fn manifest(&self, at: At<'_>) -> Result<Found, UpstreamError> {
        let tell = |event| self.told.lock().unwrap().push(event);
        run(self.upstream.manifest(&self.of, at, &tell))
    }

    /// Why the manifest of a tag cannot be had.
    fn refusal(&self) -> UpstreamError {
        self.manifest(At::Tag("1")).err().unwrap()
    }

    fn head(&self, tag: &str) -> Result<Option<Digest>, UpstreamError> {
        run(self.upstream.head(&self.of, tag))
    }

    /// The tag `1`.
    fn put_manifest(&self) -> Digest {
        self.registry.put_manifest(self.of.path(), "1", MANIFEST, r#"{"schemaVersion":2}"#)
    }

    fn retries(&self) -> Vec<Duration> {
        let told = self.told.lock().unwrap();
        told.iter().filter_map(|e| if let Event::Retrying { after, .. } = e { Some(*after) } else { None }).collect()
    }

    /// The `Range` of each request for this blob.
    fn ranges(&self, blob: &Descriptor) -> Vec<String> {
        let digest = blob.digest.to_string();
        self.registry.seen().iter().filter(|s| s.path.contains(&digest)).map(|s| s.header("range").to_owned()).collect()
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Short waits, which a busy machine still keeps.
fn settings() -> Settings {
    Settings {
        read_timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(2),
        helper_timeout: Duration::from_secs(5),
        backoff: Duration::from_millis(1),
        ..Settings::default()
    }
}

/// For registries that stall: a stall is short.
fn impatient() -> Settings {
    Settings { read_timeout: Duration::from_millis(200), ..settings() }
}

fn login(registry: &str, username: &str, password: &str) -> Login {
    Login { registry: registry.into(), username: username.into(), password: password.to_owned().into() }
}

/// The place of a repository that no settings speak of.
fn repository(text: &str) -> Place {
    Place::from(text.parse::<Reference>().unwrap().repository())
}

/// Answers each connection with these bytes, and says where.
pub(super) fn raw(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    address.to_string()
}

/// Bytes that do not repeat soon.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

thread_local! {
    /// One for each test, so that its connections outlive a call.
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
}

/// Runs to the end, which must be near.
fn run<F: Future>(work: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("it ends soon") }))
}

/// The error and its causes, as everything that could be shown.
fn everything(error: &UpstreamError) -> String {
    let mut text = format!("{error:?}");
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        text.push_str(&format!("\n{error}"));
        next = error.source();
    }
    text
}

#[test]
fn what_the_door_does_can_be_done_on_any_thread() {
    fn on_any<T: Send>(_: T) {}
    let door = Door::new();
    let blob = door.put(b"x");
    on_any(&door.upstream);
    on_any(door.upstream.manifest(&door.of, At::Tag("1"), &larder::event::silent));
    on_any(door.upstream.head(&door.of, "1"));
    let mut stream = run(door.upstream.blob(&door.of, &blob, 0, None, &larder::event::silent)).unwrap();
    on_any(stream.chunk());
    on_any(stream);
}

/// Asserts that a value has this form.
macro_rules! assert_matches {
    ($value:expr, $pattern:pat $(if $guard:expr)? $(, $($context:tt)+)?) => {
        match $value {
            $pattern $(if $guard)? => {}
            other => panic!("{other:?} is not {} {}", stringify!($pattern $(if $guard)?), String::new() $(+ &format!($($context)+))?),
        }
    };
}
use assert_matches;
