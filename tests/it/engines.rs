//! Engines: what they are sent, what they show afterwards, and how it is told when they cannot be had.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use larder::digest::Verified;
use larder::engine::{self, Choice, Engine, EngineError, Environment, Kind};
use larder::event;
use larder::oci::{Config, Descriptor, Document, Image};
use larder::pin::Pin;
use larder::reference::Reference;
use larder::store::Store;
use tempfile::TempDir;

use crate::support::image::{Compression, Made, Recipe};

/// A store with one image in it.
pub(crate) struct Stored {
    pub(crate) store: Store,
    pub(crate) image: Image,
    pub(crate) pin: Pin,
    _folder: TempDir,
}

/// Puts an image for its first platform into a store of its own.
pub(crate) fn stored(made: &Made, reference: &str) -> Stored {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let one = &made.platforms[0];
    let verified = |of: &Descriptor| Verified::compare(made.bytes(of).to_vec(), &of.digest).unwrap();
    let (Document::Manifest(manifest), _) = Document::parse(&verified(&one.manifest), None).unwrap() else { panic!("no manifest") };
    let config = Config::parse(&verified(&one.config)).unwrap();
    let image = Image::new(made.root.clone(), one.manifest.clone(), manifest, config).unwrap();
    for blob in image.blobs() {
        let Some(mut ingest) = store.ingest(blob).unwrap() else { continue };
        ingest.write(made.bytes(blob)).unwrap();
        ingest.commit().unwrap();
    }
    let asked: Reference = reference.parse().unwrap();
    let pin = Pin::new(asked.clone(), asked.name(), &image, None);
    Stored { store, image, pin, _folder: folder }
}

/// Settings under which only this address is asked for docker.
fn at(address: &str, timeout: Duration) -> Environment {
    Environment { docker_host: Some(address.to_owned()), timeout, root: "/nowhere".into(), ..Environment::default() }
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
    let ask = async || engine::connect(&Choice::Auto, &at(&address, SOON)).await.err().unwrap();

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
    let late = ask().await;
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
async fn when_nobody_answers_every_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment { root: folder.path().into(), home: Some(folder.path().into()), timeout: SOON, ..Environment::default() };
    let Err(EngineError::NoneAnswered { asked }) = engine::connect(&Choice::Auto, &environment).await else { panic!("somebody answered") };
    let kinds: Vec<_> = asked.iter().map(|(place, _)| place.kind).collect();
    assert_eq!(kinds, [Kind::Docker, Kind::Docker, Kind::Docker, Kind::Docker, Kind::Podman, Kind::Podman]);
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
    const DOCKER: &str = r#"{"Version":"26.1.5","ApiVersion":"1.45","Os":"linux","Arch":"amd64"}"#;
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
    let load = async |engine: Box<dyn Engine>| engine.load(&stored.store, &stored.image, &stored.pin.name, &event::silent).await;

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

mod real {
    use std::sync::Mutex;

    use larder::archive::{Archive, ArchiveError, Layers};
    use larder::digest::Digest;
    use larder::engine::proof::{Proof, Standing, prove};
    use larder::event::Event;
    use larder::oci::Platform;
    use larder::pin::Identity;
    use serde_json::json;

    use super::*;
    use crate::support::engine::{Make, RealEngine};
    use crate::support::image::{Media, OnePlatform};

    const NAME: &str = "r.example.com/team/app:v1";

    /// What kind of identity an engine shows, and which digest that is for an image.
    fn identity(make: Make, pin: &Pin) -> (Standing, String) {
        let (identity, digest) = match make {
            Make::DockerWithContainerdOf(_) => (Identity::Root, pin.root.digest),
            _ => (Identity::ImageId, pin.image_id()),
        };
        (Standing::Held(Proof::Identity(identity)), digest.to_string())
    }

    async fn connected(to: &RealEngine) -> Box<dyn Engine> {
        engine::connect(&Choice::Docker, &at(&to.address(), Duration::from_secs(30))).await.unwrap()
    }

    async fn standing(engine: &dyn Engine, pin: &Pin) -> Standing {
        let shown = engine.inspect(&pin.name).await.unwrap();
        prove(pin, shown.as_ref(), None)
    }

    async fn load(engine: &dyn Engine, stored: &Stored) -> Result<u64, EngineError> {
        engine.load(&stored.store, &stored.image, &stored.pin.name, &event::silent).await
    }

    /// Changes one byte in the middle of a blob on the disk.
    fn damage(stored: &Stored, blob: &Descriptor) {
        use std::os::unix::fs::PermissionsExt;
        let path = stored.store.root().join("blobs/sha256").join(blob.digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    async fn every_kind_of_image_is_loaded_and_proved(make: Make) {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        let recipes = [
            (Media::Docker, Compression::Gzip, true),
            (Media::Docker, Compression::None, false),
            (Media::Oci, Compression::Gzip, true),
            (Media::Oci, Compression::Mixed, false),
            (Media::Oci, Compression::Zstd, true),
        ];
        for (number, (media, compression, index)) in (1..).zip(recipes) {
            let made = Recipe { media, compression, index, attestations: index, revision: number, ..Recipe::default() }.make();
            let name = if index { format!("library/app:v{number}") } else { format!("localhost:5000/app:v{number}") };
            let stored = stored(&made, &name);
            assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
            loaded_as_told(&*engine, &stored).await;
            let (held, id) = identity(make, &stored.pin);
            assert_eq!(standing(&*engine, &stored.pin).await, held);
            assert_eq!(real.inspect_id(&stored.pin.name.to_string()), Some(id.clone()));
            assert_eq!(real.count(), number as usize, "one load brings one image");

            let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
            assert_eq!((shown.platform.as_ref(), &shown.diff_ids), (Some(&stored.pin.platform), &stored.pin.diff_ids));
            let usable = engine.usable(&stored.pin, &shown);
            assert_eq!(real.inspect_id(&usable), Some(id), "{usable}");
            assert_eq!(usable.contains('@'), !matches!(make, Make::Docker | Make::DockerOf(_)), "{usable}");
        }
    }

    /// Loads an image and compares what is told on the way with what was sent.
    async fn loaded_as_told(engine: &dyn Engine, stored: &Stored) {
        let told = Mutex::new(Vec::new());
        let tell = |event| told.lock().unwrap().push(event);
        let sent = engine.load(&stored.store, &stored.image, &stored.pin.name, &tell).await.unwrap();
        let told = told.into_inner().unwrap();
        let bytes: u64 = told.iter().map(|event| if let Event::LoadProgress { bytes } = event { *bytes } else { 0 }).sum();
        assert!(matches!(&told[0], Event::LoadStarted { bytes, .. } if *bytes == sent), "{told:?}");
        assert_eq!((bytes, &told[told.len() - 2..]), (sent, &[Event::LoadSent, Event::LoadFinished][..]));
    }

    /// Docker's media types have no name for zstd layers, but builders write one. Engines differ in what they make of it.
    async fn zstd_under_dockers_media_types_is_proved_or_refused(make: Make) {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        let stored = stored(&Recipe { media: Media::Docker, compression: Compression::Mixed, ..Recipe::default() }.make(), NAME);
        match load(&*engine, &stored).await {
            Ok(_) => {
                let (held, id) = identity(make, &stored.pin);
                assert_eq!(standing(&*engine, &stored.pin).await, held);
                let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
                assert_eq!(real.inspect_id(&engine.usable(&stored.pin, &shown)), Some(id));
            }
            Err(EngineError::NotLoaded { .. }) => {
                assert!(matches!(make, Make::DockerWithContainerdOf(_)), "{make:?} can load such an image");
                let standing = standing(&*engine, &stored.pin).await;
                assert!(!matches!(standing, Standing::Held(_)), "{standing:?}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn archive(stored: &Stored, layers: Layers) -> Vec<u8> {
        let mut out = Vec::new();
        Archive::new(&stored.store, &stored.image, &stored.pin.name, layers).unwrap().write_to(&mut out).unwrap();
        out
    }

    async fn what_another_tool_loaded_is_proved_by_its_content(make: Make) {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        let zstd = |revision| stored(&Recipe { compression: Compression::Zstd, revision, ..Recipe::default() }.make(), NAME);
        let (stored, next) = (zstd(1), zstd(2));
        let loaded = real.load(&archive(&stored, Layers::WithoutZstd));
        assert!(loaded.status.success(), "{loaded:?}");
        let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
        let standing = |of: &Stored| prove(&of.pin, Some(&shown), of.store.document(&of.pin.image_id()).unwrap().as_ref());
        match make {
            Make::DockerWithContainerdOf(_) => assert_eq!(standing(&stored), Standing::Held(Proof::Content)),
            _ => assert_eq!(standing(&stored), identity(make, &stored.pin).0),
        }
        assert_eq!(standing(&next), Standing::Another);
        assert_eq!(engine.usable(&stored.pin, &shown), NAME);
    }

    async fn an_image_without_all_its_layers_is_not_held(make: Make) {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        let stored = stored(&Recipe::default().make(), NAME);
        let whole = archive(&stored, Layers::AsStored);
        let mut cut = tar::Builder::new(Vec::new());
        for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            if !entry.path().unwrap().ends_with(stored.image.layers[2].digest.hex()) {
                let header = entry.header().clone();
                cut.append(&header, entry).unwrap();
            }
        }
        // Whether the engine notices is the engine's affair.
        let _ = real.load(&cut.into_inner().unwrap());
        let bad = match make {
            Make::DockerWithContainerdOf(_) => Standing::Incomplete,
            _ => Standing::Absent,
        };
        assert_eq!(standing(&*engine, &stored.pin).await, bad);
        load(&*engine, &stored).await.unwrap();
        assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
    }

    async fn what_is_usable_runs(make: Make) {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        let stored = stored(&runnable(), NAME);
        load(&*engine, &stored).await.unwrap();
        let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
        let ran = real.run(&engine.usable(&stored.pin, &shown), &["/bin/cat", "/greeting"]);
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "hello", "{ran:?}");
    }

    /// An image that prints a greeting, with this machine's `cat` and what that needs.
    fn runnable() -> Made {
        let mut tar = tar::Builder::new(Vec::new());
        let linked = std::process::Command::new("ldd").arg("/bin/cat").output().unwrap();
        let linked = String::from_utf8(linked.stdout).unwrap();
        for path in linked.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/cat"]) {
            tar.append_path_with_name(fs::canonicalize(path).unwrap(), path.trim_start_matches('/')).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(5);
        tar.append_data(&mut header, "greeting", &b"hello"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut blobs = std::collections::BTreeMap::new();
        let mut put = |kind: &str, bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            let media_type = format!("application/vnd.oci.image.{kind}");
            let descriptor = Descriptor { media_type, digest, size: bytes.len() as u64 };
            blobs.insert(digest, bytes);
            descriptor
        };
        let platform = Platform::host();
        let diff_ids = vec![Digest::of(&tar)];
        let config =
            json!({ "os": platform.os(), "architecture": platform.architecture(), "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config = put("config.v1+json", config.to_string().into_bytes());
        let layers = vec![put("layer.v1.tar", tar)];
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let manifest = put("manifest.v1+json", manifest.to_string().into_bytes());
        let one = OnePlatform { platform, manifest: manifest.clone(), config, layers, diff_ids };
        Made { root: manifest, platforms: vec![one], blobs, documents: Vec::new() }
    }

    async fn another_image_under_the_name_is_found_out(make: Make) {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        let (old, new) = (stored(&Recipe::default().make(), NAME), stored(&Recipe { revision: 2, ..Recipe::default() }.make(), NAME));
        load(&*engine, &old).await.unwrap();
        assert_eq!(standing(&*engine, &new.pin).await, Standing::Another);
        load(&*engine, &new).await.unwrap();
        let (held, _) = identity(make, &new.pin);
        assert_eq!((standing(&*engine, &new.pin).await, standing(&*engine, &old.pin).await), (held, Standing::Another));

        let near = stored(&Recipe::default().make(), "r.example.com/team/app:v11");
        assert_eq!(standing(&*engine, &near.pin).await, Standing::Absent);
        real.tag(NAME, "localhost/busybox:1");
        let short = stored(&Recipe { revision: 2, ..Recipe::default() }.make(), "busybox:1");
        assert_eq!(standing(&*engine, &short.pin).await, Standing::Absent, "an engine that guesses is not believed");
        real.remove(NAME);
        assert_eq!(standing(&*engine, &new.pin).await, Standing::Absent);
    }

    async fn damage_on_the_disk_names_nothing(make: Make) {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        for pick in 0..4 {
            let stored = stored(&Recipe::default().make(), NAME);
            let image = &stored.image;
            let blob = [&image.layers[2], &image.config, &image.manifest, &image.root][pick].clone();
            damage(&stored, &blob);
            let error = load(&*engine, &stored).await.unwrap_err();
            assert_eq!(error.damaged(), Some(blob.digest), "{error:?}");
            assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
            assert_eq!(real.count(), 0);

            let error = load(&*engine, &stored).await.unwrap_err();
            let missing = match error {
                EngineError::Archive(ArchiveError::Incomplete { layers, missing_layers, missing_documents, missing_bytes, .. }) => {
                    assert_eq!((layers, missing_bytes), (8, blob.size));
                    (missing_layers, missing_documents)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(missing, if pick == 0 { (1, 0) } else { (0, 1) });
        }
    }

    async fn an_engine_that_dies_has_loaded_nothing(make: Make) {
        let mut real = RealEngine::start(make);
        let engine = connected(&real).await;
        let large = Recipe { layers: 3, layer_size: 10_000_000, compression: Compression::None, ..Recipe::default() };
        let stored = stored(&large.make(), NAME);
        let dying = Mutex::new((0, &mut real));
        let tell = |event| {
            let mut dying = dying.lock().unwrap();
            if let Event::LoadProgress { bytes } = event {
                dying.0 += bytes;
                if dying.0 > 10_000_000 {
                    dying.1.kill();
                }
            }
        };
        let error = engine.load(&stored.store, &stored.image, &stored.pin.name, &tell).await.unwrap_err();
        assert!(matches!(&error, EngineError::LoadBroken { sent, size, .. } if *sent > 10_000_000 && sent < size), "{error:?}");
        let error = engine.inspect(&stored.pin.name).await.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");

        real.restart();
        assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
        load(&*engine, &stored).await.unwrap();
        assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
    }

    async fn an_engine_that_hangs_is_not_waited_for(make: Make) {
        let real = RealEngine::start(make);
        let stored = stored(&Recipe::default().make(), NAME);
        let engine = engine::connect(&Choice::Auto, &at(&real.address(), Duration::from_secs(1))).await.unwrap();
        real.freeze(true);
        let error = engine.inspect(&stored.pin.name).await.unwrap_err();
        real.freeze(false);
        assert!(matches!(error, EngineError::TimedOut { .. }), "{error:?}");
        assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
    }

    /// The engines of an unstable release are tested where somebody prepared them; all others always.
    fn left_out(make: Make) -> bool {
        !make.is_there() && matches!(make, Make::DockerOf("sid") | Make::DockerWithContainerdOf("sid") | Make::PodmanOf("sid"))
    }

    macro_rules! on_every_engine {
        ($($test:ident),*) => {
            on_every_engine!(@docker Make::Docker, $($test),*);
            on_every_engine!(@podman Make::Podman, $($test),*);
            on_every_engine!(@trixie_docker Make::DockerOf("trixie"), $($test),*);
            on_every_engine!(@trixie_docker_with_containerd Make::DockerWithContainerdOf("trixie"), $($test),*);
            on_every_engine!(@trixie_podman Make::PodmanOf("trixie"), $($test),*);
            on_every_engine!(@sid_docker Make::DockerOf("sid"), $($test),*);
            on_every_engine!(@sid_docker_with_containerd Make::DockerWithContainerdOf("sid"), $($test),*);
            on_every_engine!(@sid_podman Make::PodmanOf("sid"), $($test),*);
        };
        (@$engine:ident $make:expr, $($test:ident),*) => {
            mod $engine {
                use super::*;
                $(#[tokio::test]
                async fn $test() {
                    if !left_out($make) {
                        super::$test($make).await;
                    }
                })*
            }
        };
    }
    on_every_engine!(
        every_kind_of_image_is_loaded_and_proved,
        zstd_under_dockers_media_types_is_proved_or_refused,
        what_another_tool_loaded_is_proved_by_its_content,
        an_image_without_all_its_layers_is_not_held,
        what_is_usable_runs,
        another_image_under_the_name_is_found_out,
        damage_on_the_disk_names_nothing,
        an_engine_that_dies_has_loaded_nothing,
        an_engine_that_hangs_is_not_waited_for
    );
}
