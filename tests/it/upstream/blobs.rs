//! Blobs: what survives, and what is refused.

use std::time::{Duration, Instant};

use larder::upstream::{Settings, UpstreamError as E};

use super::super::support::registry::{Access, Fault, TokenServer, Tokens};
use super::{Door, assert_matches, content, impatient, run};

#[test]
fn a_blob_comes_with_one_request() {
    let door = Door::new();
    for length in [0, 1, 300_000] {
        let blob = door.put(&content(length));
        door.registry.forget();
        door.get_whole(&blob);
        assert_eq!(door.registry.seen().len(), usize::from(length > 0), "{length}");
    }
    let seen = &door.registry.seen()[0];
    assert_eq!((seen.header("accept-encoding"), seen.header("range")), ("identity", ""));
    assert!(seen.header("user-agent").starts_with("larder/"));
    assert_eq!(door.registry.connections(), 1);
}

#[test]
fn the_rest_of_a_blob_is_asked_for_alone() {
    let door = Door::new();
    let body = content(50_000);
    let blob = door.put(&body);
    for offset in [1, 49_999, 50_000] {
        door.registry.forget();
        let (got, end) = door.get(&blob, offset);
        end.unwrap();
        assert!(got == body[offset as usize..]);
        let asked = door.ranges(&blob);
        assert_eq!(asked, if offset == 50_000 { vec![] } else { vec![format!("bytes={offset}-")] });
    }
    assert_matches!(door.get(&blob, 50_001).1, Err(E::NoRange { offset: 50_001, .. }));
}

#[test]
fn a_cut_blob_is_continued_without_fetching_a_byte_twice() {
    let door = Door::new();
    let blob = door.put(&content(60_000));
    for k in [1, 8191, 8192, 8193, 59_998, 59_999].into_iter().chain((0..60_000).step_by(300)) {
        door.registry.forget();
        door.registry.fault(blob.digest, Fault::CutOnceAfter(k));
        door.get_whole(&blob);
        let rest = if k == 0 { String::new() } else { format!("bytes={k}-") };
        assert_eq!(door.ranges(&blob), [String::new(), rest], "cut after {k}");
    }
}

#[test]
fn a_reset_blob_is_continued() {
    let door = Door::new();
    let blob = door.put(&content(60_000));
    for k in [0, 1, 20_000, 59_999] {
        door.registry.forget();
        door.registry.fault(blob.digest, Fault::ResetOnceAfter(k));
        door.get_whole(&blob);
        assert_eq!(door.ranges(&blob).len(), 2, "reset after {k}");
    }
}

#[test]
fn cuts_are_survived_as_long_as_something_is_gained() {
    let door = Door::new();
    let blob = door.put(&content(50_000));
    door.registry.fault(blob.digest, Fault::CutAfter(2_500));
    door.get_whole(&blob);
    assert_eq!(door.ranges(&blob).len(), 20);

    // One byte at a time would take all day.
    for (k, found) in [(0, 5), (1, 5)] {
        door.registry.heal();
        door.registry.forget();
        door.registry.fault(blob.digest, Fault::CutAfter(k));
        let (got, end) = door.get(&blob, 0);
        assert_matches!(end, Err(E::Broken { .. } | E::Short { .. }));
        assert_eq!((got.len() as u64, door.ranges(&blob).len()), (k * 5, found));
    }
}

#[test]
fn a_server_that_cannot_give_a_part_gives_the_whole_once_more() {
    let body = content(60_000);
    let lies = [Fault::IgnoreRange, Fault::RefuseRange, Fault::WrongTotal, Fault::OtherRange(1), Fault::OtherRange(1000)];
    for fault in lies {
        let door = Door::new();
        let blob = door.put(&body);
        door.registry.fault(blob.digest, Fault::CutOnceAfter(20_000));
        door.registry.fault(blob.digest, fault.clone());
        door.get_whole(&blob);
        assert!(door.ranges(&blob).len() <= 3, "{fault:?}: {:?}", door.ranges(&blob));
    }
    for fault in [Fault::IgnoreRange, Fault::RefuseRange, Fault::WrongTotal] {
        let door = Door::new();
        let blob = door.put(&body);
        door.registry.fault(blob.digest, fault.clone());
        let (got, end) = door.get(&blob, 12_345);
        end.unwrap();
        assert!(got == body[12_345..], "{fault:?}");
    }
    // What lies in its bytes alone is found out by whoever hashes them, and never gives too many.
    let door = Door::new();
    let blob = door.put(&body);
    door.registry.fault(blob.digest, Fault::LyingRange);
    let (got, _) = door.get(&blob, 10_000);
    assert_eq!(got.len(), 50_000);
}

#[test]
fn a_stall_is_noticed_and_survived() {
    let door = Door::with(impatient());
    let blob = door.put(&content(60_000));
    for k in [0, 1, 30_000] {
        door.registry.fault(blob.digest, Fault::StallOnceAfter(k));
        door.get_whole(&blob);
    }
    door.registry.fault_times(blob.digest, Fault::Silent, 1);
    door.get_whole(&blob);
}

#[test]
fn a_server_that_gives_nothing_or_next_to_nothing_is_given_up() {
    let few = Settings { tries: 3, ..impatient() };
    let cases = [(Fault::StallAfter(0), 0), (Fault::StallAfter(7), 21), (Fault::Silent, 0), (Fault::Drip(Duration::from_millis(40)), 50)];
    for (fault, most) in cases {
        let door = Door::with(few.clone());
        let blob = door.put(&content(60_000));
        door.registry.fault(blob.digest, fault.clone());
        let began = Instant::now();
        let (got, end) = door.get(&blob, 0);
        match fault {
            Fault::Drip(_) => assert_matches!(end, Err(E::TooSlow { .. })),
            _ => assert_matches!(end, Err(E::TimedOut { .. }), "{fault:?}"),
        }
        assert!(got.len() <= most, "{fault:?}: {}", got.len());
        assert_eq!(door.registry.count("/blobs/"), 3, "{fault:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{fault:?}");
    }
}

#[test]
fn the_time_that_the_caller_takes_is_not_held_against_the_server() {
    let door = Door::with(Settings { tries: 1, ..impatient() });
    let blob = door.put(&content(4 << 20));
    let read = run(async {
        let mut stream = door.upstream.blob(&door.of, &blob, 0, None, &larder::event::silent).await.unwrap();
        let mut read = 0;
        while let Some(chunk) = stream.chunk().await.unwrap() {
            // A slow disk, which blocks the writer.
            if read == 0 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            read += chunk.len();
        }
        read
    });
    assert_eq!(read, 4 << 20);
}

#[test]
fn more_or_less_than_the_blob_is_refused() {
    let door = Door::new();
    let body = content(60_000);
    let blob = door.put(&body);
    for off in [-60_000, -1, 1, 1 << 40] {
        door.registry.heal();
        door.registry.forget();
        door.registry.fault(blob.digest, Fault::WrongLength(off));
        let (got, end) = door.get(&blob, 0);
        assert_matches!(end, Err(E::WrongLength { expected: 60_000, found, .. }) if found == (60_000 + off) as u64);
        assert_eq!((got.len(), door.registry.count("/blobs/")), (0, 1), "{off}");
    }
    for fault in [Fault::Longer(1), Fault::Longer(100_000), Fault::Endless] {
        door.registry.heal();
        door.registry.forget();
        door.registry.fault(blob.digest, fault.clone());
        let (got, end) = door.get(&blob, 0);
        assert_matches!(end, Err(E::TooLong { expected: 60_000, .. }), "{fault:?}");
        assert!(got.len() <= 60_000 && door.registry.count("/blobs/") == 1, "{fault:?}");
    }
    door.registry.heal();
    door.registry.fault(blob.digest, Fault::Chunked);
    door.get_whole(&blob);
}

#[test]
fn encoded_content_is_refused() {
    let door = Door::new();
    let blob = door.put(&content(100));
    for encoding in ["gzip", "zstd", "identity, br", "GZIP"] {
        door.registry.heal();
        door.registry.fault(blob.digest, Fault::Encoded(encoding));
        assert_matches!(door.get(&blob, 0), (got, Err(E::Encoded { .. })) if got.is_empty(), "{encoding}");
    }
    for encoding in ["identity", "Identity", ""] {
        door.registry.heal();
        door.registry.fault(blob.digest, Fault::Encoded(encoding));
        door.get_whole(&blob);
    }
}

#[test]
fn what_may_pass_is_asked_again_and_what_will_not_is_not() {
    let door = Door::new();
    let blob = door.put(&content(1000));
    let passing = [(408, None), (429, Some("0")), (500, None), (502, None), (503, Some("0")), (504, None)];
    for (status, after) in passing {
        door.registry.heal();
        door.registry.forget();
        door.registry.fault(blob.digest, Fault::Status(status, after, 2));
        door.get_whole(&blob);
        assert_eq!(door.registry.count("/blobs/"), 3, "{status}");

        door.registry.forget();
        door.registry.fault(blob.digest, Fault::Status(status, after, usize::MAX));
        let (_, end) = door.get(&blob, 0);
        assert_matches!(end, Err(E::Failed { .. } | E::TooManyRequests { .. }), "{status}");
        assert_eq!(door.registry.count("/blobs/"), 5, "{status}");
    }
    for status in [204, 206, 304, 400, 403, 404, 405, 410, 416, 418] {
        door.registry.heal();
        door.registry.forget();
        door.registry.fault(blob.digest, Fault::Status(status, None, usize::MAX));
        let (got, end) = door.get(&blob, 0);
        assert!(end.is_err() && got.is_empty(), "{status}");
        assert_eq!(door.registry.count("/blobs/"), 1, "{status}");
    }
}

#[test]
fn a_registry_is_left_alone_for_as_long_as_it_asks_and_no_longer_than_is_sensible() {
    let door = Door::new();
    let blob = door.put(&content(1000));
    door.registry.fault(blob.digest, Fault::Status(503, Some("1"), 1));
    door.get_whole(&blob);
    assert_eq!(door.retries(), [Duration::from_secs(1)]);

    for (after, seconds) in [("61", Some(61)), ("1000000000", Some(1_000_000_000)), ("Tue, 31 Dec 2199 23:59:59 GMT", None)] {
        door.registry.heal();
        door.registry.forget();
        door.registry.fault(blob.digest, Fault::Status(429, Some(after), usize::MAX));
        let (_, end) = door.get(&blob, 0);
        assert_matches!(end, Err(E::TooManyRequests { after: Some(named), .. }) if seconds.is_none_or(|s| named.as_secs() == s), "{after}");
        assert_eq!(door.registry.count("/blobs/"), 1, "{after}");
    }
    for past in ["Thu, 01 Jan 1970 00:00:00 GMT", "-5", "soon"] {
        door.registry.heal();
        door.registry.fault(blob.digest, Fault::Status(503, Some(past), 1));
        door.get_whole(&blob);
    }
}

#[test]
fn a_registry_that_grants_no_more_is_not_asked_again() {
    let door = Door::new();
    let blob = door.put(&content(1000));
    let headers = vec![("ratelimit-limit", "100;w=21600".to_owned()), ("ratelimit-remaining", "0;w=21600".to_owned())];
    let said = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your\u001b[31m pull rate limit"}]}"#;
    door.registry.fault(blob.digest, Fault::Answer(429, headers, said.into()));
    let (_, end) = door.get(&blob, 0);
    let error = end.unwrap_err();
    assert_eq!(error.said().unwrap().to_string(), "TOOMANYREQUESTS: You have reached your [31m pull rate limit");
    assert_matches!(error, E::TooManyRequests { limits: Some(l), .. } if l.limit.as_deref() == Some("100;w=21600") && l.used_up());
    assert_eq!(door.registry.count("/blobs/"), 1);
}

#[test]
fn a_token_that_ends_in_the_middle_is_renewed() {
    let door = Door::new();
    let blob = door.put(&content(60_000));
    let tokens = Tokens::default();
    door.registry.require(Access::Bearer { realm: None, tokens: tokens.clone() });
    door.registry.serve_tokens(TokenServer { tokens: tokens.clone(), ..TokenServer::default() });
    door.registry.fault(blob.digest, Fault::CutOnceAfter(20_000));
    let got = run(async {
        let mut stream = door.upstream.blob(&door.of, &blob, 0, None, &larder::event::silent).await.unwrap();
        let mut got = Vec::new();
        while let Some(chunk) = stream.chunk().await.unwrap() {
            tokens.expire();
            got.extend_from_slice(&chunk);
        }
        got
    });
    assert_eq!(larder::digest::Digest::of(&got), blob.digest);
    assert_eq!(door.registry.count("/token"), 2);
    let statuses: Vec<u16> = door.registry.seen().iter().filter(|s| s.path.contains("/blobs/")).map(|s| s.status).collect();
    assert_eq!(statuses, [401, 200, 401, 206]);
}

#[test]
fn a_registry_that_goes_away_is_given_up() {
    let mut door = Door::new();
    let blob = door.put(&content(60_000));
    let gone = std::mem::replace(&mut door.registry, super::Registry::start());
    drop(gone);
    let (_, end) = door.get(&blob, 0);
    assert_matches!(end, Err(E::Refused { .. }));
    assert_eq!(door.retries().len(), 1);
}

#[test]
fn whoever_watches_is_told_why_something_is_tried_again() {
    let door = Door::new();
    let blob = door.put(&content(1000));
    door.registry.fault(blob.digest, Fault::Status(500, None, 1));
    door.get_whole(&blob);
    let told = door.told.lock().unwrap();
    let url = door.registry.url(&format!("/v2/some/app/blobs/{}", blob.digest));
    assert_matches!(&told[..], [larder::event::Event::Retrying { what, why, .. }] if *what == url && *why == format!("{url} failed with status 500"));
}
