//! Podman of a user who is not root, asked by the same user.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::*;
use crate::support::rootless::{Rootless, USER};
use crate::support::sandbox::Sandbox;

#[test]
fn a_users_podman_is_found_and_used_without_settings() {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(sandbox.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let runtime = sandbox.path().join("run");
    let _podman = Rootless::start(&sandbox.home(), &runtime);
    let layout = sandbox.path().join("layout");
    let made = Recipe::default().make();
    made.write_layout(&layout, NAME).unwrap();
    let run = |arguments: &[&str]| sandbox.run_as(USER, arguments);

    let socket = format!("unix://{}", runtime.join("podman/podman.sock").display());
    let found = sandbox.run_as(USER, ["engines", "--json"]).expect(0).json();
    let podman: &Value = found.iter().find(|found| found["address"] == *socket).unwrap();
    assert_eq!(
        (&podman["engine"], &podman["status"], &podman["image_store"], &podman["found_by"]),
        (&"podman".into(), &"usable".into(), &"overlay".into(), &"the usual place".into())
    );

    let _ = run(&["import", "--accept-names", &layout.display().to_string()]).expect(0);
    let engine = ["--engine", "podman", "--json", NAME];
    for (command, status) in [("load", "loaded"), ("load", "held"), ("check", "held")] {
        let said = run(&[&[command], &engine[..]].concat()).expect(0).one_json();
        assert_eq!((&said["status"], &said["proof"]["by"]), (&status.into(), &"image-id".into()), "{said}");
    }
    // Its files have other owners there than in the layers: what can be compared is what podman makes of them.
    let deep = run(&[&["check", "--deep"], &engine[..]].concat()).expect(0).one_json();
    assert_eq!((&deep["status"], &deep["deep"]["level"]), (&"held".into(), &"content".into()), "{deep}");
    let said = run(&["check", "--deep", "--engine", "podman", NAME]).expect(0);
    assert!(format!("{said}").contains("the engine runs with user numbers of its own"), "{said}");
}
