//! Engines: what they are sent, what they show afterwards, and how it is told when they cannot be had.

mod real;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder::digest::Verified;
use larder::engine::{self, Choice, Engine, EngineError, Environment, Kind, Parcel};
use larder::event;
use larder::oci::{Config, Descriptor, Document, Image};
use larder::pin::Pin;
use larder::reference::Reference;
use larder::store::Store;
use tempfile::TempDir;

use crate::support::image::{Compression, Made, Recipe};

/// An image in a store, pinned under a name.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) store: Store,
    pub(crate) image: Image,
    pub(crate) pin: Pin,
    /// A store of its own is gone with it.
    _folder: Option<Arc<TempDir>>,
}

/// Puts an image for its first platform into a store of its own.
pub(crate) fn stored(made: &Made, reference: &str) -> Stored {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    Stored { _folder: Some(Arc::new(folder)), ..stored_in(&store, made, 0, reference) }
}

/// Puts an image for one of its platforms into a store.
pub(crate) fn stored_in(store: &Store, made: &Made, platform: usize, reference: &str) -> Stored {
    let one = &made.platforms[platform];
    let verified = |of: &Descriptor| Verified::compare(made.bytes(of).to_vec(), &of.digest).unwrap();
    let (Document::Manifest(manifest), _) = Document::parse(&verified(&one.manifest), None).unwrap() else { panic!("no manifest") };
    let config = Config::parse(&verified(&one.config)).unwrap();
    let image = Image { via: made.via.clone(), ..Image::new(made.root.clone(), one.manifest.clone(), manifest, config).unwrap() };
    for blob in image.blobs() {
        let Some(mut ingest) = store.ingest(blob).unwrap() else { continue };
        ingest.write(made.bytes(blob)).unwrap();
        ingest.commit().unwrap();
    }
    let asked: Reference = reference.parse().unwrap();
    let pin = Pin::new(asked.clone(), asked.name(), &image, None);
    store.pin(&pin).unwrap();
    Stored { store: store.clone(), image, pin, _folder: None }
}

/// Settings under which only this address is asked for docker, or for containerd.
fn at(address: &str, timeout: Duration) -> Environment {
    let (docker_host, containerd_address) = (Some(address.to_owned()), Some(address.to_owned()));
    Environment { docker_host, containerd_address, timeout, root: "/nowhere".into(), ..Environment::default() }
}

const SOON: Duration = Duration::from_millis(100);

/// Answers every connection to a socket with this text, after reading a request's head.
fn answering(socket: &Path, answer: impl Into<String>) {
    let answer = answer.into();
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

fn with_status(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_place_without_an_engine_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let address = format!("unix://{}", socket.display());
    let ask_within = async |limit| engine::connect(&Choice::Auto, &at(&address, limit)).await.err().unwrap();
    let ask = async || ask_within(Duration::from_secs(30)).await;

    let missing = ask().await;
    assert!(
        matches!(&missing, EngineError::Unreachable { source, place } if source.kind() == std::io::ErrorKind::NotFound && place.address == address && place.found_by == "DOCKER_HOST"),
        "{missing:?}"
    );

    drop(UnixListener::bind(&socket).unwrap());
    let stale = ask().await;
    assert!(
        matches!(&stale, EngineError::Unreachable { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused),
        "{stale:?}"
    );

    fs::remove_file(&socket).unwrap();
    let silent = UnixListener::bind(&socket).unwrap();
    let late = ask_within(SOON).await;
    assert!(matches!(&late, EngineError::TimedOut { request, after, .. } if request == "GET /_ping" && *after == SOON), "{late:?}");
    drop(silent);

    for (answer, as_expected) in [
        ("SSH-2.0-OpenSSH\r\n".to_owned(), (|e| matches!(e, EngineError::Broken { .. })) as fn(&EngineError) -> bool),
        (String::new(), |e| matches!(e, EngineError::Broken { .. })),
        (
            with_status(403, r#"{"message":"go\naway"}"#),
            |e| matches!(e, EngineError::Refused { status: 403, said, .. } if said == "go away"),
        ),
        (with_status(200, "{}"), |e| matches!(e, EngineError::Unreadable { .. })),
        (with_status(200, "{}").replace(": 2", ": 9"), |e| matches!(e, EngineError::Broken { .. })),
    ] {
        fs::remove_file(&socket).unwrap();
        answering(&socket, answer.clone());
        let error = ask().await;
        assert!(as_expected(&error), "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_place_without_a_containerd_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("c.sock");
    let address = format!("unix://{}", socket.display());
    let ask_within = async |limit| engine::connect(&Choice::Containerd, &at(&address, limit)).await.err().unwrap();
    let ask = async || ask_within(Duration::from_secs(30)).await;
    let unreachable = |error: EngineError, kind| matches!(error, EngineError::Unreachable { source, .. } if source.kind() == kind);

    assert!(unreachable(ask().await, std::io::ErrorKind::NotFound));
    drop(UnixListener::bind(&socket).unwrap());
    assert!(unreachable(ask().await, std::io::ErrorKind::ConnectionRefused));
    fs::remove_file(&socket).unwrap();
    let silent = UnixListener::bind(&socket).unwrap();
    let late = ask_within(SOON).await;
    assert!(matches!(&late, EngineError::TimedOut { after, place, .. } if *after == SOON && place.kind == Kind::Containerd), "{late:?}");
    drop(silent);
    for answer in [with_status(200, "{}"), String::new()] {
        fs::remove_file(&socket).unwrap();
        answering(&socket, answer.clone());
        let error = ask().await;
        assert!(matches!(error, EngineError::Broken { .. }), "{answer:?}: {error:?}");
    }
    let environment = Environment { containerd_namespace: Some("no/such".to_owned()), ..at(&address, SOON) };
    let error = engine::connect(&Choice::Containerd, &environment).await.err().unwrap();
    assert!(matches!(&error, EngineError::Namespace { namespace } if namespace == "no/such"), "{error:?}");
}

#[tokio::test]
async fn when_nobody_answers_every_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment { root: folder.path().into(), home: Some(folder.path().into()), timeout: SOON, ..Environment::default() };
    let Err(EngineError::NoneAnswered { asked }) = engine::connect(&Choice::Auto, &environment).await else { panic!("somebody answered") };
    let kinds: Vec<_> = asked.iter().map(|(place, _)| place.kind).collect();
    let (docker, podman, containerd) = ([Kind::Docker; 8], [Kind::Podman; 3], [Kind::Containerd; 4]);
    assert_eq!(kinds, [&docker[..], &podman, &containerd].concat());
    assert!(asked.iter().all(|(place, why)| place.found_by == "the usual place" && matches!(why, EngineError::Unreachable { .. })));
    assert_eq!(engine::survey(&environment).await.len(), asked.len());
}

#[tokio::test]
async fn the_engine_is_what_answers() {
    const PODMAN: &str = r#"{"Components":[{"Name":"Podman Engine","Details":{"APIVersion":"4.3.1"}}],"Version":"4.3.1","ApiVersion":"1.41","Os":"linux","Arch":"amd64"}"#;
    const DOCKER: &str = r#"{"Version":"20.10.24","ApiVersion":"1.41","Os":"linux","Arch":"aarch64"}"#;
    let folder = tempfile::tempdir().unwrap();
    let (podman, docker) = (folder.path().join("p.sock"), folder.path().join("d.sock"));
    answering(&podman, with_status(200, PODMAN));
    answering(&docker, with_status(200, DOCKER));
    let at_podman = at(&format!("unix://{}", podman.display()), SOON);
    let found = engine::connect(&Choice::Docker, &at_podman).await.unwrap();
    let about = found.about();
    assert_eq!((about.kind, about.version.as_str(), about.api.as_str()), (Kind::Podman, "4.3.1", "4.3.1"));

    let environment = Environment { container_host: Some(format!("unix://{}", docker.display())), ..at("unix:///x", SOON) };
    let wrong = engine::connect(&Choice::Podman, &environment).await.err().unwrap();
    assert!(matches!(wrong, EngineError::WrongEngine { found: Kind::Docker, .. }), "{wrong:?}");
    let found = engine::connect(&Choice::Docker, &at(&format!("unix://{}", docker.display()), SOON)).await.unwrap();
    assert_eq!((found.about().kind, found.platform().await.unwrap().to_string().as_str()), (Kind::Docker, "linux/arm64"));
}

/// An engine that says it is docker and answers a load with this text, before it has read much of the archive.
async fn hasty(folder: &Path, answer: &str) -> Box<dyn Engine> {
    const DOCKER: &str = r#"{"Version":"20.10.24","ApiVersion":"1.41","Os":"linux","Arch":"amd64"}"#;
    let socket = folder.join("hasty.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            if [&b"GET /_ping "[..], b"GET /version "].iter().any(|start| head[..read].starts_with(start)) {
                let _ = stream.write_all(with_status(200, DOCKER).as_bytes());
                continue;
            }
            let _ = stream.shutdown(Shutdown::Read);
            for byte in answer.as_bytes() {
                let _ = stream.write_all(std::slice::from_ref(byte));
            }
        }
    });
    engine::connect(&Choice::Docker, &at(&format!("unix://{}", socket.display()), Duration::from_secs(5))).await.unwrap()
}

#[tokio::test]
async fn an_engine_that_gives_up_early_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let large = Recipe { layers: 1, layer_size: 4_000_000, compression: Compression::None, ..Recipe::default() }.make();
    let stored = stored(&large, "app:v1");
    let load =
        async |engine: Box<dyn Engine>| engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &event::silent).await;

    let full = with_status(200, "{\"errorDetail\":{\"message\":\"no space left on device\"},\"error\":\"no space\"}\r\n");
    // Whether the answer or the closed connection is seen first is a matter of luck.
    for _ in 0..20 {
        let error = load(hasty(folder.path(), &full).await).await.unwrap_err();
        assert!(matches!(&error, EngineError::NotLoaded { said, .. } if said == "no space left on device"), "{error:?}");
    }
    let refused = with_status(500, r#"{"message":"no way"}"#);
    let error = load(hasty(folder.path(), &refused).await).await.unwrap_err();
    assert!(matches!(&error, EngineError::NotLoaded { said, .. } if said.ends_with(": no way")), "{error:?}");

    let cut = with_status(200, r#"{"stream":"Loaded image: app:v1"}"#).replace(": 33", ": 333");
    for answer in ["", &cut] {
        let error = load(hasty(folder.path(), answer).await).await.unwrap_err();
        assert!(matches!(&error, EngineError::LoadBroken { sent, size, .. } if sent <= size), "{answer:?}: {error:?}");
    }
}
