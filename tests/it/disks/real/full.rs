//! Full disks: what does not fit is refused before it begins, what came of it is kept, and what takes away works.

use std::fs;

use super::{Pantry, made};
use crate::support::mount::Mount;
use crate::support::registry::Fault;
use crate::support::scene::{self, PLATFORM};

#[test]
fn what_cannot_fit_is_refused_before_its_first_byte_and_goes_on_once_it_can() {
    let pantry = Pantry::on(|scene| Mount::tmpfs(&scene.sandbox.store(), "size=8m"));
    let (_, _, used) = pantry.mount().free();
    let (mut hopeless, mut halfway, mut fitted) = (0, 0, false);
    for step in 0..60 {
        pantry.mount().remount(&format!("size={}", used + 16_384 * (step + 1)));
        let (free, to_come) = (pantry.mount().free().0, pantry.missing() - pantry.begun());
        pantry.scene.registry.forget();
        let output = pantry.scene.pull(&pantry.wanted, &["--json"]);
        if output.code == Some(0) {
            fitted = true;
            break;
        }
        let output = output.expect(1);
        assert_eq!(output.one_json()["error"]["code"], "no-space", "{output}");
        for text in ["no space left", "needed:", "free:", "hint: make room"] {
            assert!(output.stderr.contains(text), "{output}");
        }
        let asked = pantry.layers_asked_for();
        match free < to_come {
            true => hopeless += 1,
            false => halfway += 1,
        }
        assert!(free >= to_come || asked == 0, "{asked} layers were asked for with {free} bytes free and {to_come} to come");
        pantry.what_was_kept_is_whole();
    }
    assert!(hopeless > 10 && fitted, "{hopeless} hopeless tries, {halfway} that ended halfway");
    pantry.what_was_kept_is_whole();
    assert_eq!(pantry.missing(), 0);
}

#[test]
fn parts_that_fill_the_disk_count_as_what_they_are() {
    let pantry = Pantry::on(|scene| Mount::tmpfs(&scene.sandbox.store(), "size=8m"));
    let layer = pantry.made.platform(PLATFORM).layers.iter().max_by_key(|layer| layer.size).unwrap().clone();
    // Nearly all of the largest layer came, and then the connection was cut.
    pantry.scene.registry.fault(layer.digest, Fault::CutAfter(layer.size - 100));
    let _ = pantry.scene.pull(&pantry.wanted, &["--tries", "1"]).expect(1);
    pantry.scene.registry.heal();
    let (_, _, used) = pantry.mount().free();
    // Room for what is still to come, and not for all that is missing.
    let rest: u64 = pantry.missing() - pantry.begun();
    assert!(pantry.begun() > 21 * 4096);
    pantry.mount().remount(&format!("size={}", used + rest + 20 * 4096));
    let output = pantry.scene.pull(&pantry.wanted, &[]).expect(0);
    assert!(output.stderr.contains("resuming"), "{output}");
}

#[test]
fn a_disk_that_takes_no_more_files_is_said_to() {
    let pantry = Pantry::on(|scene| Mount::tmpfs(&scene.sandbox.store(), "size=8m,nr_inodes=1000"));
    let files = 1000 - pantry.mount().free().1;
    let mut refused = 0;
    for more in 0..30 {
        pantry.mount().remount(&format!("nr_inodes={}", files + more));
        let output = pantry.scene.pull(&pantry.wanted, &[]);
        if output.code == Some(0) {
            break;
        }
        let output = output.expect(1);
        assert!(output.stderr.contains("no more files can be made"), "{output}");
        refused += 1;
        pantry.what_was_kept_is_whole();
    }
    assert!((8..30).contains(&refused), "{refused} tries were refused");
    pantry.what_was_kept_is_whole();
}

/// What takes away works where nothing can be added.
fn a_full_disk_can_be_made_empty(pantry: &Pantry) {
    let _ = pantry.scene.pull(&pantry.wanted, &[]).expect(0);
    let filling = pantry.mount().fill();
    for reader in [&["list"][..], &["verify"], &["inspect", "--no-engines", &pantry.kept]] {
        let _ = pantry.run(reader).expect(0);
    }
    let blobs = scene::verified(&pantry.scene.sandbox.store());
    let removed = pantry.run(&["remove", &pantry.wanted]).expect(0);
    assert!(removed.stderr.contains("freed") && scene::verified(&pantry.scene.sandbox.store()) < blobs, "{removed}");
    pantry.what_was_kept_is_whole();

    fs::remove_file(&filling).unwrap();
    let _ = pantry.scene.pull(&pantry.wanted, &[]).expect(0);
    let filling = pantry.mount().fill();
    let pruned = pantry.run(&["prune", "--keep-size", "0B"]).expect(0);
    assert_eq!(scene::verified(&pantry.scene.sandbox.store()), 0, "{pruned}");
    fs::remove_file(filling).unwrap();
    let _ = pantry.scene.pull(&pantry.kept, &[]).expect(0);
    pantry.what_was_kept_is_whole();
}

#[test]
fn a_full_tmpfs_can_be_made_empty() {
    a_full_disk_can_be_made_empty(&Pantry::on(|scene| Mount::tmpfs(&scene.sandbox.store(), "size=2m")));
}

#[test]
fn a_full_ext4_can_be_made_empty() {
    a_full_disk_can_be_made_empty(&made(0));
}

#[test]
fn a_full_xfs_can_be_made_empty() {
    a_full_disk_can_be_made_empty(&made(1));
}

#[test]
fn a_full_btrfs_can_be_made_empty() {
    a_full_disk_can_be_made_empty(&made(2));
}
