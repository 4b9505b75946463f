//! What a name means in an engine: it moves, it is copied, it resembles another, and none of that is taken for a proof.

use larder::archive::{Archive, Layers, Parts};
use larder::ensure::Done;

use super::*;

pub(super) const CASES: &[Case] = cases![
    another_image_under_the_name_is_found_out_and_replaced,
    a_name_that_was_moved_by_hand_is_moved_back,
    a_name_that_begins_alike_is_another_name,
    a_name_that_the_engine_guesses_is_not_believed,
    a_name_of_docker_hub_is_one_in_all_its_spellings,
    one_image_bears_two_names,
    a_name_that_was_removed_is_absent,
    an_image_without_its_name_gets_it_back,
    an_image_without_all_its_layers_is_not_held,
];

fn revision(seed: &'static str, revision: u32) -> Made {
    Recipe { seed, revision, ..Recipe::default() }.make()
}

async fn another_image_under_the_name_is_found_out_and_replaced(ground: &mut Ground) {
    let name = "r.example.com/team/app:replaced";
    let (old, new) = (ground.stored(&revision("replaced", 1), name), ground.stored(&revision("replaced", 2), name));
    assert_eq!(ground.ensure(&old).await.unwrap().done, Done::Loaded);
    assert_eq!(ground.standing(&new).await, Standing::Another);
    let before = ground.engine.inspect(&old.pin.name).await.unwrap().unwrap();
    assert_eq!(ground.ensure(&new).await.unwrap().done, Done::Replaced(Box::new(before)));
    ground.holds(&new).await;
    assert_eq!(ground.standing(&old).await, Standing::Another);
    assert_eq!(ground.ensure(&new).await.unwrap().done, Done::Held);
}

async fn a_name_that_was_moved_by_hand_is_moved_back(ground: &mut Ground) {
    let (mine, other) = ("r.example.com/team/app:mine", "r.example.com/team/other:1");
    let (pinned, local) = (ground.stored(&revision("mine", 1), mine), ground.stored(&revision("local", 1), other));
    let _ = ground.sent(&pinned).await;
    let _ = ground.sent(&local).await;
    ground.real.tag(other, mine);
    assert_eq!(ground.standing(&pinned).await, Standing::Another);
    let _ = ground.sent(&pinned).await;
    ground.holds(&local).await;
}

async fn a_name_that_begins_alike_is_another_name(ground: &mut Ground) {
    let stored = ground.stored(&revision("alike", 1), "r.example.com/team/app:v1");
    let near = ground.stored(&revision("alike", 1), "r.example.com/team/app:v11");
    let longer = ground.stored(&revision("alike", 1), "r.example.com/team/app/v1:latest");
    ground.load(&stored).await.unwrap();
    assert_eq!((ground.standing(&near).await, ground.standing(&longer).await), (Standing::Absent, Standing::Absent));
}

async fn a_name_that_the_engine_guesses_is_not_believed(ground: &mut Ground) {
    let stored = ground.stored(&revision("guessed", 1), "r.example.com/team/app:guessed");
    ground.load(&stored).await.unwrap();
    ground.real.tag("r.example.com/team/app:guessed", "localhost/busybox:1");
    let short = ground.stored(&revision("guessed", 1), "busybox:1");
    assert_eq!(ground.standing(&short).await, Standing::Absent);
}

async fn a_name_of_docker_hub_is_one_in_all_its_spellings(ground: &mut Ground) {
    let stored = ground.stored(&revision("hub", 1), "short:1");
    let _ = ground.sent(&stored).await;
    let id = Some(ground.held(&stored).1);
    for spelling in ["short:1", "library/short:1", "docker.io/library/short:1", "index.docker.io/library/short:1"] {
        let named = ground.stored(&revision("hub", 1), spelling);
        assert_eq!(ground.ensure(&named).await.unwrap().done, Done::Held, "{spelling}");
        // How podman resolves short names is a matter of its settings.
        if ground.make.is_docker() {
            assert_eq!(ground.real.inspect_id(spelling), id, "{spelling}");
        }
    }
}

async fn one_image_bears_two_names(ground: &mut Ground) {
    let made = revision("twice", 1);
    let (one, two) = (ground.stored(&made, "r.example.com/one:1"), ground.stored(&made, "r.example.com/two:2"));
    let before = ground.real.count();
    let _ = ground.sent(&one).await;
    assert_eq!(ground.sent(&two).await, [], "the engine has all of its layers");
    ground.holds(&one).await;
    assert_eq!(ground.real.count(), before + 1);
    ground.is_tidy();
}

async fn a_name_that_was_removed_is_absent(ground: &mut Ground) {
    let stored = ground.stored(&revision("removed", 1), "r.example.com/team/app:removed");
    let _ = ground.sent(&stored).await;
    ground.real.remove("r.example.com/team/app:removed");
    assert_eq!(ground.standing(&stored).await, Standing::Absent);
    let _ = ground.sent(&stored).await;
}

async fn an_image_without_its_name_gets_it_back(ground: &mut Ground) {
    let (name, kept) = ("r.example.com/team/app:lost", "r.example.com/kept:1");
    let stored = ground.stored(&revision("lost", 1), name);
    let _ = ground.sent(&stored).await;
    ground.real.tag(name, kept);
    ground.real.remove(name);
    assert_eq!(ground.standing(&stored).await, Standing::Absent);
    assert_eq!(ground.sent(&stored).await, [], "it is there under another name");
    assert_eq!(ground.real.inspect_id(kept), ground.real.inspect_id(name));
}

/// What another tool's archive may leave behind.
async fn an_image_without_all_its_layers_is_not_held(ground: &mut Ground) {
    let stored = ground.stored(&revision("gaps", 1), "r.example.com/team/app:gaps");
    let mut cut = Vec::new();
    let parts = Parts { layers: Layers::AsStored, without: [stored.image.layers[2].digest].into() };
    Archive::new(&stored.store, &stored.image, &stored.pin.name, &parts).unwrap().write_to(&mut cut).unwrap();
    // Whether the engine notices is the engine's affair.
    let _ = ground.real.load(&cut);
    let bad: &[Standing] = match ground.make {
        Make::DockerWithContainerdOf(_) => &[Standing::Incomplete],
        // containerd gives such an image its name before version 2.
        Make::Containerd | Make::ContainerdOf(_) => &[Standing::Incomplete, Standing::Absent],
        _ => &[Standing::Absent],
    };
    assert!(bad.contains(&ground.standing(&stored).await));
    let _ = ground.sent(&stored).await;
}
