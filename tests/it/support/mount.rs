//! File systems of a test's own, gone when they are dropped. They need root.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// A mounted file system.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// One in memory, with these options, such as `size=8m,nr_inodes=100`.
    pub fn tmpfs(at: &Path, options: &str) -> Mount {
        Mount::new(at, &["-t", "tmpfs", "-o", &format!("mode=755,{options}"), "tmpfs"])
    }

    /// A new file system in a file, made by `mkfs.KIND` with these options.
    pub fn made(kind: &str, options: &[&str], megabytes: u64, file: &Path, at: &Path) -> Mount {
        File::create(file).and_then(|f| f.set_len(megabytes << 20)).expect("a large file with nothing in it");
        run(Command::new(format!("mkfs.{kind}")).args(options).arg(file));
        Mount::new(at, &["-t", kind, "-o", "loop", &file.display().to_string()])
    }

    /// The folder, which cannot be written where it is mounted.
    pub fn read_only(folder: &Path, at: &Path) -> Mount {
        let mount = Mount::new(at, &["--bind", &folder.display().to_string()]);
        mount.remount("bind,ro");
        mount
    }

    /// The folder packed into a squashfs.
    pub fn packed(folder: &Path, file: &Path, at: &Path) -> Mount {
        run(Command::new("mksquashfs").arg(folder).arg(file).args(["-quiet", "-no-progress"]));
        Mount::new(at, &["-t", "squashfs", "-o", "loop,ro", &file.display().to_string()])
    }

    /// An overlay over the folder; what is written goes elsewhere.
    pub fn overlay(folder: &Path, scratch: &Path, at: &Path) -> Mount {
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        for folder in [&upper, &work] {
            std::fs::create_dir_all(folder).expect("a folder can be made");
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", folder.display(), upper.display(), work.display());
        Mount::new(at, &["-t", "overlay", "-o", &options, "overlay"])
    }

    fn new(at: &Path, arguments: &[&str]) -> Mount {
        std::fs::create_dir_all(at).expect("a folder can be made");
        run(Command::new("mount").args(arguments).arg(at));
        Mount { at: at.to_owned() }
    }

    /// Changes its options.
    pub fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.at));
    }

    /// How many bytes and files still fit, and how many bytes are in use.
    pub fn free(&self) -> (u64, u64, u64) {
        let found = rustix::fs::statvfs(&self.at).expect("it is mounted");
        (found.f_bavail * found.f_frsize, found.f_favail, (found.f_blocks - found.f_bfree) * found.f_frsize)
    }

    /// Writes a file until nothing more fits.
    pub fn fill(&self) -> PathBuf {
        let path = self.at.join("filling");
        let mut file = File::create(&path).expect("there is room for a file");
        // Twice, since a sync may free what was reserved for too much.
        for size in [1 << 20, 4096, 1, 4096, 1] {
            let piece = vec![b'x'; size];
            while file.write_all(&piece).is_ok() {}
            // It may say once more that there is no room.
            let _ = file.sync_all();
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whoever holds it open lets go when the test ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
