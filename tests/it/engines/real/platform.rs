//! The platform of podman, which takes long to tell it.

use larder::oci::Platform;

use super::aside::door;
use super::*;

async fn is_what_podman_tells(make: Make) {
    let real = RealEngine::start(make);
    let format = "{{.Server.OsArch}}";
    let told = real.program("podman").args(["--url", &real.address(), "version", "--format", format]).output().unwrap();
    let told: Platform = String::from_utf8_lossy(&told.stdout).trim().parse().unwrap();
    assert_eq!(connected(&real).await.platform().await.unwrap(), told);

    // Where another program listens, podman itself is asked.
    let folder = tempfile::tempdir().unwrap();
    let (address, asked) = door(&real, folder.path(), "GET /version");
    let engine = engine::connect(&Choice::Docker, &at(&address, Duration::from_secs(30))).await.unwrap();
    tokio::select! {
        platform = engine.platform() => panic!("{platform:?}"),
        () = asked.notified() => {}
    }
}

#[tokio::test]
async fn podman() {
    is_what_podman_tells(Make::Podman).await;
}

#[tokio::test]
async fn trixie_podman() {
    is_what_podman_tells(Make::PodmanOf("trixie")).await;
}
