//! Registries that are at fault in every way there is: what each way costs, in bytes, requests and seconds.
//!
//! What is measured is what the registry saw and sent, against what it sends when nothing is wrong.

use std::time::Duration;

use jiff::Timestamp;
use larder::digest::Digest;
use larder::oci::Descriptor;
use serde_json::Value;

use super::{REPOSITORY, Scene, config, layer, manifest, root, verified};
use crate::support::image::{Compression, Recipe};
use crate::support::registry::{Access, Fault, TokenServer, Tokens};
use crate::support::sandbox::{Output, Sandbox};
use crate::upstream::raw;

/// What the head of one more answer may have.
const HEAD: u64 = 600;

/// Two layers that take a few hundred reads.
fn large() -> Recipe {
    Recipe { layers: 2, layer_size: 300_000, compression: Compression::None, ..Recipe::default() }
}

impl Scene {
    /// What the registry sends for a pull into nothing when nothing is wrong.
    fn cost(&self) -> u64 {
        self.registry.heal();
        let before = self.registry.sent();
        let _ = Scene::pull_into(self, &Sandbox::new(), &[]).expect(0);
        self.registry.sent() - before
    }

    /// As [`Scene::pull`], elsewhere.
    fn pull_into(&self, sandbox: &Sandbox, more: &[&str]) -> Output {
        let pinned = self.pinned();
        let stall: &[&str] = if more.contains(&"--stall") { &[] } else { &["--stall", "1"] };
        let arguments = ["pull", "--engine", "none", "--platform", "linux/amd64", "--json", &pinned];
        sandbox.run(arguments.iter().chain(stall).chain(more))
    }

    fn layers(&self) -> Vec<Descriptor> {
        let mut layers: Vec<_> = self.made.platform("linux/amd64").layers.iter().filter(|l| l.size > 100_000).cloned().collect();
        layers.dedup();
        layers
    }
}

/// The stable word of a failure.
fn code(output: &Output) -> String {
    let said: Value = output.json().last().cloned().unwrap_or_default();
    said["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn resets_at_two_hundred_places_cost_less_than_one_percent() {
    let scene = Scene::of(large());
    let (clean, layers) = (scene.cost(), scene.layers());
    let (mut extra, mut pulls) = (0, 0);
    for layer in &layers {
        let places = 200 / layers.len() as u64;
        for n in 0..places {
            // The first bytes and the last, and between them places that are no multiple of anything.
            let k = match n {
                0..4 => n,
                4..8 => layer.size - (n - 3),
                _ => (n * layer.size / places) | 1,
            };
            let reset = n % 2 == 0;
            scene.registry.fault(layer.digest, if reset { Fault::ResetOnceAfter(k) } else { Fault::CutOnceAfter(k) });
            let before = scene.registry.sent();
            let pulled = scene.pull_into(&Sandbox::new().in_memory(), &[]).expect(0);
            assert!(pulled.stderr.matches("trying again").count() == 1 && !pulled.stderr.contains("did not verify"), "at {k}: {pulled}");
            pulls += 1;
            // What a server resets it may not have sent yet, so those bytes cannot be counted there.
            extra += if reset { 0 } else { (scene.registry.sent() - before).saturating_sub(clean + HEAD) };
        }
    }
    assert!(pulls >= 190, "{pulls}");
    assert!(extra * 100 <= pulls / 2 * clean, "{extra} bytes came twice in {pulls} pulls of {clean}");
}

#[test]
fn what_a_failed_run_has_is_not_fetched_again_by_the_next() {
    // One, since others that are on their way when a pull fails lose what is still in the air.
    let scene = Scene::of(Recipe { layers: 1, layer_size: 2_000_000, compression: Compression::None, ..Recipe::default() });
    let clean = scene.cost();
    for layer in scene.layers() {
        for k in [1, layer.size / 3, layer.size - 1] {
            let sandbox = Sandbox::new().in_memory();
            let before = scene.registry.sent();
            scene.registry.fault(layer.digest, Fault::CutOnceAfter(k));
            let _ = scene.pull_into(&sandbox, &["--tries", "1"]).expect(1);
            let second = scene.pull_into(&sandbox, &[]).expect(0);
            assert!(second.stderr.contains("resuming"), "{second}");
            let extra = (scene.registry.sent() - before).saturating_sub(clean);
            // Manifests and config are kept with the layers, so they come twice.
            let documents = 20_000;
            assert!(extra <= documents + clean / 100, "{extra} of {clean} bytes came twice after a cut at {k}");
        }
    }
}

#[test]
fn lengths_that_are_not_true_are_made_up_for_or_refused() {
    let scene = Scene::of(large());
    let clean = scene.cost();
    for fault in [Fault::Chunked, Fault::Shorter(1), Fault::Shorter(100_000), Fault::CutOnceAfter(200_000)] {
        scene.registry.heal();
        scene.registry.fault_times(layer(&scene), fault.clone(), 1);
        let before = scene.registry.sent();
        let _ = scene.pull_into(&Sandbox::new(), &[]).expect(0);
        assert!(scene.registry.sent() - before <= clean + clean / 100 + 2 * HEAD, "{fault:?}");
    }
    let two = "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nContent-Length: 300001\r\n\r\n".to_owned() + &"x".repeat(300_001);
    let elsewhere = format!("http://{}/blob", raw(two.into_bytes()));
    for (fault, exit) in [(Fault::WrongLength(-1), 4), (Fault::WrongLength(1), 4), (Fault::Longer(1), 4), (Fault::RedirectTo(elsewhere), 1)]
    {
        scene.registry.heal();
        scene.registry.fault(layer(&scene), fault.clone());
        let sandbox = Sandbox::new();
        let _ = scene.pull_into(&sandbox, &[]).expect(exit);
        let digest = scene.layer().digest;
        assert!(!sandbox.store().join("blobs/sha256").join(digest.hex()).exists(), "{fault:?} was published");
        assert!(scene.registry.count(&digest.to_string()) > 0 && verified(&sandbox.store()) < 9, "{fault:?}");
    }
}

#[test]
fn a_stall_and_a_drip_are_noticed_in_the_time_that_was_set() {
    let scene = Scene::of(large());
    let clean = scene.cost();
    let second = Duration::from_secs(1);
    for fault in [Fault::StallOnceAfter(0), Fault::StallOnceAfter(150_000), Fault::Drip(second), Fault::Silent] {
        scene.registry.heal();
        scene.registry.fault_times(layer(&scene), fault.clone(), 1);
        let before = scene.registry.sent();
        let pulled = scene.pull_into(&Sandbox::new(), &[]).expect(0);
        assert!(pulled.took >= second && pulled.took < 5 * second, "{fault:?}: {pulled}");
        assert!(pulled.stderr.contains("trying again"), "{fault:?}: {pulled}");
        assert!(scene.registry.sent() - before <= clean + clean / 100 + 2 * HEAD, "{fault:?}");
    }
}

#[test]
fn a_busy_registry_is_asked_five_times_and_left_alone_when_it_says_so() {
    let scene = Scene::new();
    let date = |seconds: i64| (Timestamp::now() + Duration::from_secs(seconds as u64)).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for status in [408, 429, 500, 502, 503, 504] {
        scene.registry.heal();
        scene.registry.fault(layer(&scene), Fault::Status(status, None, 1));
        let pulled = scene.pull_into(&Sandbox::new(), &[]).expect(0);
        assert!(pulled.took < Duration::from_secs(5), "{pulled}");
    }
    for status in [429, 503] {
        scene.registry.heal();
        scene.registry.fault_times(layer(&scene), Fault::Answer(status, vec![("retry-after", date(3))], "".into()), 1);
        let pulled = scene.pull_into(&Sandbox::new(), &[]).expect(0);
        // A date has no fractions of a second.
        assert!(pulled.took > Duration::from_millis(1500) && pulled.took < Duration::from_secs(8), "{pulled}");
    }
    // Longer than is sensible, however that is written.
    for after in ["1000000000".to_owned(), "61".to_owned(), date(7200)] {
        scene.registry.heal();
        scene.registry.forget();
        scene.registry.fault(layer(&scene), Fault::Answer(503, vec![("retry-after", after.clone())], "".into()));
        let given_up = scene.pull_into(&Sandbox::new(), &[]).expect(1);
        assert!(given_up.took < Duration::from_secs(5) && given_up.stdout.contains("retry after"), "{after}: {given_up}");
        assert_eq!(scene.registry.count(&scene.layer().digest.to_string()), 1, "{after}");
    }
    scene.registry.heal();
    scene.registry.forget();
    scene.registry.fault(layer(&scene), Fault::Status(502, None, usize::MAX));
    let given_up = scene.pull_into(&Sandbox::new(), &[]).expect(1);
    assert!(given_up.took < Duration::from_secs(20), "{given_up}");
    assert_eq!(scene.registry.count(&scene.layer().digest.to_string()), 5);
}

#[test]
fn a_deadline_is_kept_whatever_goes_wrong() {
    let scene = Scene::of(large());
    let faults = [
        (Fault::Silent, "deadline"),
        (Fault::StallAfter(1000), "deadline"),
        (Fault::Drip(Duration::from_millis(5)), "deadline"),
        // What the registry says of its state is said, and at once.
        (Fault::Status(503, Some("30"), usize::MAX), "registry-failed"),
    ];
    for (fault, expected) in faults {
        scene.registry.heal();
        scene.registry.fault(layer(&scene), fault.clone());
        let sandbox = Sandbox::new();
        let output = scene.pull_into(&sandbox, &["--deadline", "1500ms", "--stall", "30"]).expect(1);
        assert!(output.took < Duration::from_secs(4), "{fault:?}: {output}");
        assert_eq!(code(&output), expected, "{output}");
        scene.registry.heal();
        let _ = scene.pull_into(&sandbox, &["--deadline", "1m"]).expect(0);
    }
    // Each image has its own result, also those that nobody came to.
    scene.registry.fault(layer(&scene), Fault::Silent);
    let tagged = scene.tagged();
    let output = scene.pull_into(&Sandbox::new(), &[&tagged, "--deadline", "700ms", "--stall", "30"]).expect(1);
    let results = output.json();
    assert_eq!(results.iter().map(|r| r["reference"].as_str().unwrap_or_default()).collect::<Vec<_>>(), [scene.pinned(), scene.tagged()]);
    assert!(results.iter().all(|r| r["error"]["code"] == "deadline"), "{output}");
    // An engine that says nothing is no way round it.
    let socket = scene.sandbox.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for command in ["ensure", "pull"] {
        let mut larder = scene.sandbox.command();
        larder.env("DOCKER_HOST", format!("unix://{}", socket.display())).args([
            command,
            "--engine",
            "docker",
            "--deadline",
            "500ms",
            &tagged,
        ]);
        let began = std::time::Instant::now();
        let output = larder.output().unwrap();
        assert!(began.elapsed() < Duration::from_secs(3) && output.status.code() == Some(1), "{command}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("it was not done in 500ms"), "{output:?}");
    }
    scene.registry.heal();
    scene.registry.fault(root(&scene), Fault::Silent);
    let output = scene.sandbox.run(["pull", "--engine", "none", "--deadline", "300ms", &scene.pinned()]).expect(1);
    insta::assert_snapshot!(output.stderr, @r"
    error: it was not done in 300ms
      hint: run it again: it goes on where it ended; --deadline sets how long it may take
    ");
}

#[test]
fn docker_hubs_limit_is_named_with_what_is_left_and_until_when() {
    let scene = Scene::new();
    let said = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit."}]}"#;
    let headers = |source: &'static str| {
        let pairs = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600"), ("docker-ratelimit-source", source)];
        pairs.map(|(name, value)| (name, value.to_owned())).to_vec()
    };
    let pull = |source: &'static str| {
        scene.registry.heal();
        scene.registry.forget();
        scene.registry.fault("/manifests/", Fault::Answer(429, headers(source), said.into()));
        let output = scene.sandbox.run(["pull", "--json", "--engine", "none", &scene.pinned()]).expect(6);
        assert_eq!((code(&output).as_str(), scene.registry.seen().len()), ("pull-limit", 1), "asked again: {output}");
        let error = output.one_json()["error"].clone();
        (error["details"].to_string(), error["hint"].as_str().unwrap_or_default().to_owned())
    };
    let (details, hint) = pull("203.0.113.9");
    for text in [
        "the pull limit of Docker Hub is used up: http://",
        "granted: 100 pulls in 6h",
        "left: 0 pulls",
        "counted for: 203.0.113.9",
        "more: after 6h at the latest, at 20",
        "it said: TOOMANYREQUESTS: You have reached your unauthenticated pull rate limit.",
    ] {
        assert!(details.contains(text), "`{text}` is not in {details}");
    }
    assert!(hint.contains("docker login") && hint.contains("mirror"), "{hint}");
    // Who has an account is not told to log in.
    let (_, hint) = pull("0b55ddcf-4c5a-4a4e-a5c7-1f0c9a0f7a13");
    assert!(!hint.contains("login") && hint.contains("mirror"), "{hint}");
}

#[test]
fn a_token_that_ends_costs_one_other_token_and_a_realm_that_lies_is_no_loop() {
    let scene = Scene::of(large());
    let tokens = Tokens::default();
    scene.registry.require(Access::Bearer { realm: None, tokens: tokens.clone() });
    scene.registry.serve_tokens(TokenServer { tokens: tokens.clone(), ..TokenServer::default() });
    let clean = scene.cost();
    scene.registry.forget();
    scene.registry.fault(layer(&scene), Fault::StallOnceAfter(150_000));
    let before = scene.registry.sent();
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| scene.pull_into(&Sandbox::new(), &[]));
        while !pull.is_finished() && scene.registry.count(&layer(&scene)) == 0 {
            std::thread::yield_now();
        }
        // While nothing comes of the layer, so that the rest of it needs another token.
        tokens.expire();
        let _ = pull.join().unwrap().expect(0);
    });
    assert!(scene.registry.sent() - before <= clean + clean / 100 + 8 * HEAD);
    let seen = scene.registry.seen();
    let statuses: Vec<u16> = seen.iter().filter(|s| s.path.contains(&layer(&scene))).map(|s| s.status).collect();
    assert!(statuses.first() == Some(&200) && statuses.last() == Some(&206) && statuses.len() <= 3, "{statuses:?}");
    // One for all at first, and one for all when that had ended.
    assert_eq!(scene.registry.count("/token"), 2, "{seen:?}");

    // Tokens that are good for nothing.
    scene.registry.heal();
    scene.registry.serve_tokens(TokenServer::default());
    scene.registry.require(Access::Bearer { realm: None, tokens: Tokens::default() });
    scene.registry.forget();
    let output = scene.pull_into(&Sandbox::new(), &[]).expect(6);
    assert_eq!(scene.registry.count("/token"), 1, "{output}");
    assert_eq!(scene.registry.count("/manifests/"), 2, "{output}");
}

#[test]
fn a_server_that_lies_about_parts_costs_one_restart_at_most() {
    let scene = Scene::of(large());
    let clean = scene.cost();
    let size = scene.layer().size;
    let lies = [
        (Fault::LyingRange, true),
        (Fault::IgnoreRange, false),
        (Fault::RefuseRange, false),
        (Fault::OtherRange(1), false),
        (Fault::WrongTotal, false),
        (Fault::Header("etag", "\"another\""), false),
        (Fault::ContentType("text/html"), false),
        (Fault::WrongDigestHeader, false),
    ];
    for (lie, restarts) in lies {
        for in_a_later_run in [false, true] {
            scene.registry.heal();
            let sandbox = Sandbox::new();
            scene.registry.fault(layer(&scene), Fault::CutOnceAfter(200_000));
            scene.registry.fault(layer(&scene), lie.clone());
            let before = scene.registry.sent();
            if in_a_later_run {
                let _ = scene.pull_into(&sandbox, &["--tries", "1"]).expect(1);
            }
            let pulled = scene.pull_into(&sandbox, &[]).expect(0);
            assert_eq!(pulled.stderr.matches("did not verify").count(), usize::from(restarts), "{lie:?}: {pulled}");
            let most = clean + 2 * size + 20_000;
            assert!(scene.registry.sent() - before <= most, "{lie:?}: {} of {most}", scene.registry.sent() - before);
            verified(&sandbox.store());
        }
    }
}

#[test]
fn headers_decide_nothing_about_content() {
    let scene = Scene::new();
    let clean = scene.cost();
    for at in [root, manifest, config, layer] {
        for fault in [Fault::WrongDigestHeader, Fault::NoDigestHeader, Fault::Header("etag", "W/\"0\"")] {
            scene.registry.heal();
            scene.registry.fault(at(&scene), fault.clone());
            let before = scene.registry.sent();
            let _ = scene.pull_into(&Sandbox::new(), &[]).expect(0);
            assert!(scene.registry.sent() - before <= clean + HEAD, "{fault:?}");
        }
    }
    for wrong in ["application/vnd.oci.image.config.v1+json", "text/html", "application/vnd.docker.distribution.manifest.v1+prettyjws"] {
        scene.registry.heal();
        scene.registry.fault(root(&scene), Fault::ContentType(wrong));
        let _ = scene.pull_into(&Sandbox::new(), &[]).expect(1);
    }
}

#[test]
fn an_index_whose_manifest_is_gone_is_not_pinned() {
    let scene = Scene::new();
    scene.registry.fault(manifest(&scene), Fault::Missing);
    let output = scene.pull_into(&scene.sandbox, &[]).expect(6);
    let child = scene.made.platform("linux/amd64").manifest.digest;
    assert!(output.stdout.contains(&child.to_string()) || output.stdout.contains("a manifest of"), "{output}");
    assert!(scene.sandbox.run(["list"]).expect(0).stdout.is_empty());
}

#[test]
fn a_digest_wins_over_a_tag_that_moves_meanwhile() {
    let scene = Scene::new();
    let newer = Recipe { revision: 2, ..Recipe::default() }.make();
    super::serve(&scene.registry, &newer, "v1");
    let output = scene.pull_into(&scene.sandbox, &[]).expect(0);
    assert_eq!(output.one_json()["root"], scene.made.root.digest.to_string());
    assert!(output.stderr.contains(&format!("has moved to {}", newer.root.digest)), "{output}");
    // What a tag names while its digest cannot be had is not taken for it.
    let gone = format!("{}/{REPOSITORY}:v1@{}", scene.registry.host(), Digest::of(b"gone"));
    let output = scene.sandbox.run(["pull", "--json", "--engine", "none", &gone]).expect(6);
    assert_eq!(code(&output), "no-manifest", "{output}");
}
