//! What buildah builds and writes.

use super::*;

/// buildah on a storage of its own.
struct Buildah {
    folder: tempfile::TempDir,
}

impl Buildah {
    fn new() -> Buildah {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        Buildah { folder }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let (root, runs) = (self.at("root"), self.at("run"));
        run("buildah", &[&["--root", &root, "--runroot", &runs, "--storage-driver", "vfs"], arguments].concat()).trim().to_owned()
    }

    /// Builds an image from nothing, in one of the two formats, with these layers' files.
    fn build(&self, name: &str, format: &str, layers: &[&str]) -> Identity {
        let policy = self.at("policy.json");
        let mut from = "scratch".to_owned();
        for (number, file) in std::iter::once(&"").chain(layers).enumerate() {
            let container = self.run(&["from", "--signature-policy", &policy, "--pull-never", &from]);
            if !file.is_empty() {
                let path = self.folder.path().join(file);
                fs::write(&path, file.repeat(1000)).unwrap();
                self.run(&["copy", &container, &path.display().to_string(), "/"]);
            }
            self.run(&["config", "--label", &format!("step={number}"), &container]);
            self.run(&["commit", "--signature-policy", &policy, "--quiet", "--format", format, &container, name]);
            from = name.to_owned();
        }
        let said: Value = serde_json::from_str(&self.run(&["inspect", "--type", "image", name])).unwrap();
        let id = format!("sha256:{}", said["FromImageID"].as_str().unwrap());
        let diff_ids = said["OCIv1"]["rootfs"]["diff_ids"].as_array().into_iter().flatten();
        (id.parse().unwrap(), diff_ids.map(|id| id.as_str().unwrap().parse().unwrap()).collect())
    }
}

#[test]
fn buildah_writes() {
    let (mut scene, buildah) = (Scene::new(), Buildah::new());
    for format in ["docker", "oci"] {
        for (count, layers) in [&[][..], &["one", "two"]].into_iter().enumerate() {
            let name = format!("r.example.com/team/{format}{count}:v1");
            let (id, diff_ids) = buildah.build(&name, format, layers);
            assert!(diff_ids.len() >= layers.len());
            for to in ["docker-archive", "oci-archive", "oci"] {
                let file = scene.path(&format!("{format}{count}.{to}"));
                let target = format!("{to}:{}:{NAME}", file.display());
                buildah.run(&["push", "--signature-policy", &buildah.at("policy.json"), "--quiet", &name, &target]);
                // The config is written anew where an image goes into the other format.
                let config = run("skopeo", &["inspect", "--raw", "--config", &format!("{to}:{}", file.display())]);
                let expected = if format == to.split('-').next().unwrap() { id } else { Digest::of(config.as_bytes()) };
                let imported = scene.reads(&file, &[(expected, diff_ids.clone())]);
                assert!(names(&imported).contains(&NAME.to_owned()), "{to}: {:?}", names(&imported));
                assert_eq!(imported[0].proof == Proof::InFile, to != "docker-archive", "{to}");
            }
        }
    }
    assert_eq!(scene.read, 12);
}
