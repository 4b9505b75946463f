//! Engines that stop in the midst of something, and take and answer nothing any more.

use larder::event::Event;

use super::*;

async fn an_engine_that_stops_in_mid_load_is_not_waited_for(make: Make) {
    let real = RealEngine::start(make);
    let large = Recipe { layers: 3, layer_size: 10_000_000, compression: Compression::None, ..Recipe::default() };
    let stored = stored(&large.make(), NAME);
    let engine = engine::connect(&choice(&real), &at(&real.address(), Duration::from_secs(1))).await.unwrap();
    let sent = Mutex::new(0);
    let tell = |event| {
        let mut sent = sent.lock().unwrap();
        if let Event::LoadProgress { bytes, .. } = event {
            *sent += bytes;
            if *sent > 10_000_000 {
                real.freeze(true);
            }
        }
    };
    let parcel = engine::Parcel::whole(&stored.store, &stored.image, &stored.pin.name);
    let error = engine.load(parcel, &tell).await.unwrap_err();
    real.freeze(false);
    let asked = if make.is_containerd() { "Version/Version" } else { "GET /_ping" };
    assert!(matches!(&error, EngineError::TimedOut { request, .. } if request == asked), "{error:?}");
    let patient = connected(&real).await;
    let found = standing(&*patient, &stored.pin).await;
    assert!(!matches!(found, Standing::Held(_)), "{found:?}");
    load(&*patient, &stored).await.unwrap();
    assert_eq!(standing(&*patient, &stored.pin).await, identity(make, &stored.pin).0);
}

alone_on_every_engine!(an_engine_that_stops_in_mid_load_is_not_waited_for);
