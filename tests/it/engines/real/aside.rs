//! Docker with the containerd image store, where images are loaded under a name of larder's own: what becomes of it when larder is killed.

use std::os::unix::net::UnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;

const ASIDE: &str = "larder.invalid/loading";

/// A socket that leads to an engine, until a request comes whose first line begins so: that one is never answered.
pub(super) fn door(to: &RealEngine, folder: &Path, last: &'static str) -> (String, Arc<Notify>) {
    let socket = folder.join("door.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let (engine, reached) = (to.socket(), Arc::new(Notify::new()));
    let tell = reached.clone();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let (engine, tell) = (engine.clone(), tell.clone());
            tokio::spawn(async move {
                let mut head = vec![0; 16 << 10];
                let read = here.read(&mut head).await.unwrap();
                if String::from_utf8_lossy(&head[..read]).starts_with(last) {
                    tell.notify_one();
                    return std::future::pending().await;
                }
                let there = UnixStream::connect(engine).unwrap();
                there.set_nonblocking(true).unwrap();
                let mut there = tokio::net::UnixStream::from_std(there).unwrap();
                there.write_all(&head[..read]).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            });
        }
    });
    (format!("unix://{}", socket.display()), reached)
}

/// A load that is given up where it would send this request, as if larder had been killed.
async fn killed_before(request: &'static str, ground: &Ground, stored: &Stored) {
    let folder = tempfile::tempdir().unwrap();
    let (address, reached) = door(&ground.real, folder.path(), request);
    let engine = engine::connect(&Choice::Docker, &at(&address, Duration::from_secs(30))).await.unwrap();
    tokio::select! {
        done = engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &event::silent) => panic!("it came to an end: {done:?}"),
        () = reached.notified() => {}
    }
}

async fn a_name_that_a_killed_larder_left_goes_with_the_next_run(make: Make) {
    let ground = Ground::start(make).await;
    let left = || ground.real.names().iter().any(|name| name.starts_with(ASIDE));
    let made = |seed| Recipe { seed, ..Recipe::default() }.make();

    // It is loaded aside, and has no name.
    let stored = ground.stored(&made("aside"), "r.example.com/aside/app:1");
    killed_before("POST /images/larder.invalid/loading", &ground, &stored).await;
    assert!(left());
    assert_eq!(ground.standing(&stored).await, Standing::Absent);
    assert!(matches!(ground.ensure(&stored).await.unwrap().done, Done::Loaded));
    ground.holds(&stored).await;
    ground.is_tidy();

    // It has its name, and the other one too: nothing is left to be loaded.
    let stored = ground.stored(&made("aside too"), "r.example.com/aside/app:2");
    killed_before("DELETE /images/larder.invalid/loading", &ground, &stored).await;
    assert!(left());
    ground.holds(&stored).await;
    let _ = Cache { store: &stored.store, upstream: None, tell: &event::silent }
        .check(&stored.pin.pinned(), &stored.pin.name, None, &*ground.engine)
        .await
        .unwrap();
    assert!(left(), "whoever only asks changes nothing");
    assert!(matches!(ground.ensure(&stored).await.unwrap().done, Done::Held));
    ground.holds(&stored).await;
    ground.is_tidy();
}

#[tokio::test]
async fn trixie() {
    a_name_that_a_killed_larder_left_goes_with_the_next_run(Make::DockerWithContainerdOf("trixie")).await;
}

#[tokio::test]
async fn sid() {
    let make = Make::DockerWithContainerdOf("sid");
    if !left_out(make) {
        a_name_that_a_killed_larder_left_goes_with_the_next_run(make).await;
    }
}
