//! Large blobs: in one as long as that is enough, and in stretches beside each other where that brings more.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use larder::digest::Digest;
use larder::oci::Descriptor;
use larder::upstream::{Settings, Unnamed, Upstream, UpstreamError as E};

use super::super::support::registry::{Fault, Registry};
use super::super::support::way::{Way, Wrong};
use super::{assert_matches, content, repository, run, settings};

const MB: usize = 1_000_000;

/// What a connection of the narrow way gives in a second.
const NARROW: Wrong = Wrong { delay: Duration::ZERO, each: Some(8 * MB as u64), cut_every: None };

/// A registry at the end of a way, with one blob.
struct Far {
    registry: Registry,
    way: Way,
    blob: Descriptor,
    settings: Settings,
    /// Where stretches wait.
    unnamed: &'static Unnamed<'static>,
}

/// What came of a pull.
struct Came {
    took: Duration,
    /// How many bytes came over the way for each of the blob.
    share: f64,
    connections: usize,
}

impl Far {
    fn new(length: usize, wrong: Wrong) -> Far {
        let registry = Registry::start();
        let digest = registry.put_blob(content(length));
        let blob = Descriptor { media_type: "application/octet-stream".into(), digest, size: length as u64 };
        let unnamed = &|| tempfile::tempfile().ok();
        Far { way: Way::to(&registry.host(), wrong), registry, blob, settings: settings(), unnamed }
    }

    /// A narrow one that goes wrong from the second answer on.
    fn then(length: usize, fault: Fault) -> Far {
        let far = Far::new(length, NARROW);
        far.registry.fault_times(far.blob.digest, Fault::WrongDigestHeader, 1);
        far.registry.fault(far.blob.digest, fault);
        far
    }

    /// Pulls the blob, which has to come as it is.
    fn pull(&self) -> Came {
        let (before, _) = (self.way.came(), self.way.most_connections());
        let began = Instant::now();
        let (got, end) = self.get();
        assert_matches!(end, Ok(()));
        assert_eq!(Digest::of(&got), self.blob.digest);
        let share = (self.way.came() - before) as f64 / self.blob.size as f64;
        Came { took: began.elapsed(), share, connections: self.way.most_connections() }
    }

    /// What comes of the blob, and how it ends.
    fn get(&self) -> (Vec<u8>, Result<(), E>) {
        let of = repository(&format!("{}/some/app", self.way.host()));
        let upstream = Upstream::new(self.settings.clone()).unwrap();
        let mut got = Vec::new();
        let end = run(async {
            let mut stream = upstream.blob(&of, &self.blob, 0, Some(self.unnamed), &larder::event::silent).await?;
            while let Some(chunk) = stream.chunk().await? {
                got.extend_from_slice(&chunk);
            }
            Ok(())
        });
        (got, end)
    }

    /// First byte and end of each stretch that was asked for behind the first answer.
    fn stretches(&self) -> Vec<(u64, u64)> {
        let bounds = |range: &str| {
            let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            (first.parse().unwrap(), last.parse().map_or(self.blob.size, |last: u64| last + 1))
        };
        let mut stretches: Vec<_> = self.registry.seen().iter().skip(1).map(|seen| bounds(seen.header("range"))).collect();
        stretches.sort_unstable();
        stretches
    }
}

#[test]
fn where_each_connection_gives_little_there_are_several() {
    let far = Far::new(32 * MB, NARROW);
    let several = far.pull();
    assert!(several.connections >= 4, "{}", several.connections);
    assert!(several.share < 1.1, "{}", several.share);
    assert_eq!(far.registry.seen()[0].header("range"), "", "the first answer is the whole");
    let stretches = far.stretches();
    assert!(stretches.windows(2).all(|pair| pair[0].1 == pair[1].0), "{stretches:?}");
    assert_eq!(stretches.last().unwrap().1, far.blob.size);

    let mut far = Far::new(32 * MB, NARROW);
    far.settings.connections = NonZeroUsize::MIN;
    let one = far.pull();
    assert_eq!((one.connections, far.registry.seen().len()), (1, 1));
    assert!(several.took < one.took * 3 / 4, "{:?} and {:?}", several.took, one.took);
}

#[test]
fn a_blob_for_which_nothing_can_wait_comes_in_one() {
    let mut far = Far::new(12 * MB, NARROW);
    far.unnamed = &|| None;
    let came = far.pull();
    assert_eq!((came.connections, far.registry.seen().len()), (1, 1));
}

#[test]
fn stretches_that_cannot_be_kept_are_asked_for_in_their_turn() {
    let mut far = Far::new(12 * MB, NARROW);
    // Every write to it fails, as on a full disk.
    far.unnamed = &|| std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").ok();
    let came = far.pull();
    assert!(came.share < 2.1, "{}", came.share);
}

#[test]
fn a_long_way_is_gone_once() {
    let far = Far::new(20 * MB, Wrong { delay: Duration::from_millis(100), ..Wrong::default() });
    let came = far.pull();
    assert_eq!((far.registry.seen().len(), came.connections), (1, 1));
}

#[test]
fn cuts_cost_next_to_nothing_where_there_are_several_connections() {
    for (each, cut_every) in [(None, 2 * MB as u64), (NARROW.each, 3 * MB as u64)] {
        let far = Far::new(32 * MB, Wrong { each, cut_every: Some(cut_every), ..Wrong::default() });
        let came = far.pull();
        assert!(came.share < 1.15, "{each:?}: {}", came.share);
    }
}

#[test]
fn a_server_that_gives_no_stretches_is_survived() {
    let faults = [
        Fault::IgnoreRange,
        Fault::RefuseRange,
        Fault::WrongTotal,
        Fault::OtherRange(1),
        Fault::Status(503, None, 2),
        Fault::Status(429, Some("0"), 3),
        Fault::CutAfter(100_000),
    ];
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                let far = Far::then(16 * MB, fault.clone());
                let came = far.pull();
                assert!(far.registry.seen().len() > 1, "{fault:?}: there was one request");
                assert!(came.share < 2.1, "{fault:?}: {}", came.share);
            });
        }
    });
}

#[test]
fn what_does_not_come_fails_when_it_is_its_turn() {
    let far = Far::then(16 * MB, Fault::Missing);
    let (got, end) = far.get();
    assert_matches!(end, Err(E::NoBlob { .. }));
    let first_beside = far.stretches()[0].0;
    assert!(got.len() as u64 == first_beside && got == content(16 * MB)[..got.len()], "what comes before it was handed out: {}", got.len());
}
