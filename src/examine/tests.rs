use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;

/// A layer's archive, written entry by entry.
struct Layer {
    tar: tar::Builder<Vec<u8>>,
    owner: (u64, u64),
}

impl Layer {
    fn new() -> Layer {
        let here = tempfile::tempdir().unwrap();
        let owner = fs::metadata(here.path()).unwrap();
        Layer { tar: tar::Builder::new(Vec::new()), owner: (owner.uid().into(), owner.gid().into()) }
    }

    fn header(&self, kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header
    }

    fn file(mut self, path: &str, mode: u32, content: &str) -> Layer {
        let mut header = self.header(EntryType::Regular, mode, content.len());
        self.tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        self
    }

    fn folder(self, path: &str, mode: u32) -> Layer {
        self.special(path, EntryType::Directory, mode)
    }

    fn special(mut self, path: &str, kind: EntryType, mode: u32) -> Layer {
        let mut header = self.header(kind, mode, 0);
        self.tar.append_data(&mut header, path, &[][..]).unwrap();
        self
    }

    fn device(mut self, path: &str, major: u32, minor: u32) -> Layer {
        let mut header = self.header(EntryType::Char, 0o600, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.tar.append_data(&mut header, path, &[][..]).unwrap();
        self
    }

    fn link(mut self, path: &str, kind: EntryType, to: &str) -> Layer {
        let mut header = self.header(kind, 0o644, 0);
        self.tar.append_link(&mut header, path, to).unwrap();
        self
    }

    fn attribute(mut self, name: &str, value: &str) -> Layer {
        self.tar.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value.as_bytes())]).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }
}

fn sample() -> Layer {
    Layer::new()
        .folder("./", 0o755)
        .folder("./etc/", 0o755)
        .file("./etc/passwd", 0o644, "root:x:0:0")
        .file("./etc/shadow", 0o640, &"secret ".repeat(50_000))
        .link("./etc/link", EntryType::Symlink, "../../../etc/passwd")
        .link("./etc/same", EntryType::Link, "./etc/passwd")
        .file("usr/bin/tool", 0o4755, "tool")
        .folder("var/empty", 0o711)
        .special("var/pipe", EntryType::Fifo, 0o600)
}

/// What an engine makes of [`sample`].
fn unpacked() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for (folder, mode) in [("etc", 0o755), ("usr", 0o700), ("usr/bin", 0o755), ("var", 0o755), ("var/empty", 0o711)] {
        fs::create_dir(at(folder)).unwrap();
        set_mode(&at(folder), mode);
    }
    let shadow = "secret ".repeat(50_000);
    for (file, mode, content) in [("etc/passwd", 0o644, "root:x:0:0"), ("etc/shadow", 0o640, &shadow), ("usr/bin/tool", 0o4755, "tool")] {
        fs::write(at(file), content).unwrap();
        set_mode(&at(file), mode);
    }
    symlink("../../../etc/passwd", at("etc/link")).unwrap();
    fs::hard_link(at("etc/passwd"), at("etc/same")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("var/pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    set_mode(root.path(), 0o755);
    root
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn differences(layer: Layer, folder: &Path) -> Vec<String> {
    let examined = compare(layer.bytes().as_slice(), folder).unwrap();
    assert_eq!(examined.more, 0);
    examined.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_was_unpacked_right_is_the_same() {
    let root = unpacked();
    let examined = compare(sample().bytes().as_slice(), root.path()).unwrap();
    assert_eq!((examined.findings.as_slice(), examined.entries, examined.bytes), (&[][..], 9, 350_014));
}

#[test]
fn whatever_is_not_as_it_was_is_found() {
    type Damage = fn(&Path);
    let table: [(Damage, &[&str]); 22] = [
        (|root| fs::write(root.join("etc/passwd"), "root").unwrap(), &["etc/passwd: 4 bytes, expected 10"]),
        (|root| fs::write(root.join("etc/passwd"), "root:y:0:0").unwrap(), &["etc/passwd: other content after the first 5 bytes"]),
        (
            |root| {
                let mut text = fs::read(root.join("etc/shadow")).unwrap();
                text[300_000] ^= 1;
                fs::write(root.join("etc/shadow"), text).unwrap();
            },
            &["etc/shadow: other content after the first 300000 bytes"],
        ),
        (|root| fs::write(root.join("usr/bin/more"), "").unwrap(), &["usr/bin/more: a file that is not in the layer"]),
        (|root| fs::create_dir_all(root.join("opt/deep/er")).unwrap(), &["opt: a folder that is not in the layer"]),
        (|root| fs::remove_file(root.join("usr/bin/tool")).unwrap(), &["usr/bin/tool: missing"]),
        (|root| fs::remove_dir_all(root.join("usr")).unwrap(), &["usr/bin/tool: missing"]),
        (|root| fs::remove_dir_all(root.join("etc")).unwrap(), &["etc: missing"]),
        (|root| fs::remove_dir(root.join("var/empty")).unwrap(), &["var/empty: missing"]),
        (|root| set_mode(&root.join("usr/bin/tool"), 0o755), &["usr/bin/tool: mode 0755, expected 4755"]),
        (|root| set_mode(&root.join("var/empty"), 0o755), &["var/empty: mode 0755, expected 0711"]),
        (|root| set_mode(root, 0o700), &[".: mode 0700, expected 0755"]),
        (
            |root| {
                fs::remove_file(root.join("etc/link")).unwrap();
                symlink("/etc/passwd", root.join("etc/link")).unwrap();
            },
            &["etc/link: leads to `/etc/passwd`, expected `../../../etc/passwd`"],
        ),
        (
            |root| {
                fs::remove_file(root.join("etc/same")).unwrap();
                fs::copy(root.join("etc/passwd"), root.join("etc/same")).unwrap();
            },
            &["etc/same: not the same file as etc/passwd"],
        ),
        (|root| fs::remove_file(root.join("etc/same")).unwrap(), &["etc/same: missing"]),
        (
            |root| {
                fs::remove_file(root.join("etc/passwd")).unwrap();
                fs::create_dir(root.join("etc/passwd")).unwrap();
            },
            &["etc/passwd: a folder, expected a file", "etc/same: not the same file as etc/passwd"],
        ),
        (
            |root| {
                fs::remove_dir(root.join("var/empty")).unwrap();
                symlink("/etc", root.join("var/empty")).unwrap();
            },
            &["var/empty: a symbolic link, expected a folder"],
        ),
        (
            |root| {
                // The same files, reached through a link: not what the layer has.
                fs::rename(root.join("usr"), root.join("moved")).unwrap();
                symlink("moved", root.join("usr")).unwrap();
            },
            &["moved: a folder that is not in the layer", "usr: a symbolic link, expected a folder", "usr/bin/tool: missing"],
        ),
        (
            |root| {
                fs::remove_file(root.join("var/pipe")).unwrap();
                fs::write(root.join("var/pipe"), "").unwrap();
            },
            &["var/pipe: a file, expected a named pipe"],
        ),
        (
            |root| {
                let _ = std::os::unix::net::UnixListener::bind(root.join("var/socket")).unwrap();
            },
            &["var/socket: a socket or the like that is not in the layer"],
        ),
        (
            |root| fs::write(root.join("etc/\u{1b}[31m\u{202e}ü"), "").unwrap(),
            &["etc/\\u{1b}[31m\\u{202e}ü: a file that is not in the layer"],
        ),
        (
            |root| {
                fs::remove_dir_all(root.join("var")).unwrap();
                fs::remove_file(root.join("etc/passwd")).unwrap();
            },
            &["etc/passwd: missing", "var/empty: missing", "var/pipe: missing"],
        ),
    ];
    for (number, (damage, expected)) in table.into_iter().enumerate() {
        let root = unpacked();
        damage(root.path());
        assert_eq!(differences(sample(), root.path()), expected, "case {number}");
    }
}

#[test]
fn links_in_the_folder_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("bin")).unwrap();
    fs::write(outside.path().join("bin/tool"), "tool").unwrap();
    set_mode(&outside.path().join("bin/tool"), 0o4755);
    let root = unpacked();
    fs::remove_dir_all(root.path().join("usr")).unwrap();
    for to in [outside.path(), Path::new("../../../../../../../usr"), Path::new("usr")] {
        symlink(to, root.path().join("usr")).unwrap();
        assert_eq!(differences(sample(), root.path()), ["usr: a symbolic link, expected a folder", "usr/bin/tool: missing"], "{to:?}");
        fs::remove_file(root.path().join("usr")).unwrap();
    }
}

#[test]
fn a_later_entry_stands_in_place_of_an_earlier_one() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("a")).unwrap();
    set_mode(&root.path().join("a"), 0o700);
    fs::write(root.path().join("a/b"), "second").unwrap();
    set_mode(&root.path().join("a/b"), 0o600);
    fs::write(root.path().join("c"), "now a file").unwrap();
    set_mode(&root.path().join("c"), 0o644);
    let layer = || {
        let first = Layer::new().folder("a", 0o755).file("a/b", 0o644, "first").folder("c", 0o755).file("c/d", 0o644, "gone");
        first.folder("./a/", 0o700).file("./a/./b", 0o600, "second").file("./c", 0o644, "now a file")
    };
    assert_eq!(differences(layer(), root.path()), [] as [&str; 0]);
    fs::write(root.path().join("a/b"), "first").unwrap();
    assert_eq!(differences(layer(), root.path()), ["a/b: 5 bytes, expected 6"]);
}

#[test]
fn paths_are_cleaned_as_engines_do_it() {
    for (path, clean) in [("./a/b/", "a/b"), ("/a//b", "a/b"), ("a/../b", "b"), ("../../b", "b"), ("./", ""), ("a/.", "a")] {
        assert_eq!(cleaned(path.as_bytes()), clean.as_bytes(), "{path}");
    }
}

#[test]
fn entries_behind_the_archives_own_links_lie_where_those_lead() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    symlink("/usr/bin", root.path().join("bin")).unwrap();
    fs::write(root.path().join("usr/bin/sh"), "sh").unwrap();
    set_mode(&root.path().join("usr/bin/sh"), 0o755);
    let layer = || Layer::new().link("bin", EntryType::Symlink, "/usr/bin").file("bin/sh", 0o755, "sh");
    assert_eq!(differences(layer(), root.path()), [] as [&str; 0]);
}

#[test]
fn attributes_that_matter_are_compared() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    set_mode(&file, 0o644);
    let with = |name: &str| Layer::new().attribute(name, "value").file("file", 0o644, "");
    assert_eq!(differences(with("user.larder"), root.path()), ["file: the attribute user.larder is missing"]);
    assert_eq!(differences(with("security.selinux"), root.path()), [] as [&str; 0]);
    let set = |name: &str, value: &str| rustix::fs::setxattr(&file, name, value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    set("user.larder", "value");
    assert_eq!(differences(with("user.larder"), root.path()), [] as [&str; 0]);
    set("user.larder", "other");
    assert_eq!(differences(with("user.larder"), root.path()), ["file: the attribute user.larder has another value"]);
    let without = Layer::new().file("file", 0o644, "");
    assert_eq!(differences(without, root.path()), ["file: the attribute user.larder is not in the layer"]);
}

#[test]
fn what_is_no_layer_or_no_folder_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let cut = sample().bytes()[..1000].to_vec();
    assert!(matches!(compare(cut.as_slice(), root.path()), Err(ExamineError::Archive { .. })));
    let odd = Layer::new().special("x", EntryType::new(b'V'), 0o644).bytes();
    assert!(matches!(compare(odd.as_slice(), root.path()), Err(ExamineError::Unknown { path }) if path == "x"));
    let nowhere = root.path().join("nowhere");
    assert!(matches!(compare(&[][..], &nowhere), Err(ExamineError::Folder { path, .. }) if path == nowhere));
}

#[test]
fn of_very_many_findings_some_are_kept_and_all_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let many = (0..KEPT + 5).fold(Layer::new(), |layer, n| layer.file(&n.to_string(), 0o644, ""));
    let examined = compare(many.bytes().as_slice(), root.path()).unwrap();
    assert_eq!((examined.findings.len(), examined.more), (KEPT, 5));
}

/// Devices and overlayfs's attributes are root's.
mod real {
    use rustix::fs::{CWD, FileType, XattrFlags, makedev, mknodat, setxattr};

    use super::*;

    fn layer() -> Layer {
        let whiteouts = Layer::new().folder("etc", 0o755).file("etc/.wh.gone", 0o644, "").file("opt/.wh..wh..opq", 0o644, "");
        whiteouts.file(".wh..wh.aufs", 0o644, "").device("null", 1, 3).file("etc/kept", 0o644, "kept")
    }

    fn device(path: &Path, major: u32, minor: u32) {
        mknodat(CWD, path, FileType::CharacterDevice, 0o600.into(), makedev(major, minor)).unwrap();
    }

    fn opaque(folder: &Path) {
        setxattr(folder, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    }

    fn unpacked() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc", "opt"] {
            fs::create_dir(root.path().join(folder)).unwrap();
            set_mode(&root.path().join(folder), 0o755);
        }
        device(&root.path().join("etc/gone"), 0, 0);
        device(&root.path().join("null"), 1, 3);
        opaque(&root.path().join("opt"));
        fs::write(root.path().join("etc/kept"), "kept").unwrap();
        set_mode(&root.path().join("etc/kept"), 0o644);
        root
    }

    #[test]
    fn whiteouts_devices_and_owners_are_compared() {
        type Damage = fn(&Path);
        let table: [(Damage, &[&str]); 8] = [
            (|_| {}, &[]),
            (|root| fs::remove_file(root.join("etc/gone")).unwrap(), &["etc/gone: missing"]),
            (
                |root| {
                    fs::remove_file(root.join("etc/gone")).unwrap();
                    fs::write(root.join("etc/gone"), "back").unwrap();
                },
                &["etc/gone: a file, expected a whiteout"],
            ),
            (|root| device(&root.join("etc/shadow"), 0, 0), &["etc/shadow: a whiteout that is not in the layer"]),
            (
                |root| rustix::fs::removexattr(root.join("opt"), "trusted.overlay.opaque").unwrap(),
                &["opt: no longer hides what lower layers have in it"],
            ),
            (|root| opaque(&root.join("etc")), &["etc: hides what lower layers have in it"]),
            (
                |root| {
                    fs::remove_file(root.join("null")).unwrap();
                    device(&root.join("null"), 1, 5);
                },
                &["null: device 1:5, expected 1:3"],
            ),
            (|root| std::os::unix::fs::lchown(root.join("etc/kept"), Some(7), Some(8)).unwrap(), &["etc/kept: owner 7:8, expected 0:0"]),
        ];
        for (number, (damage, expected)) in table.into_iter().enumerate() {
            let root = unpacked();
            damage(root.path());
            assert_eq!(differences(layer(), root.path()), expected, "case {number}");
        }
    }
}
