//! File systems on disks of our own: one whose every write is recorded, and those that a power cut left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::log;
use crate::run::{self, Message, Result, fail, shown};

/// How long a program may take to start, or a busy mount to become free.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file system as its users make and mount it.
pub(super) struct FileSystem {
    pub(super) name: &'static str,
    make: &'static [&'static str],
    /// As small as it can be made.
    size: u64,
    /// Mounts that a second one of the same disk needs.
    options: &'static str,
}

/// Those that stores lie on.
pub(super) const ALL: [FileSystem; 3] = [
    FileSystem {
        name: "ext4",
        make: &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
        size: 96 << 20,
        options: "loop",
    },
    FileSystem { name: "xfs", make: &["mkfs.xfs", "-q"], size: 320 << 20, options: "loop,nouuid" },
    FileSystem { name: "btrfs", make: &["mkfs.btrfs", "-q"], size: 128 << 20, options: "loop" },
];

impl FileSystem {
    /// Makes an empty one.
    pub(super) fn make(&self, disk: &Path) -> Result {
        File::create(disk)?.set_len(self.size)?;
        quietly(Command::new(self.make[0]).args(&self.make[1..]).arg(disk))
    }

    /// Mounts one.
    pub(super) fn mount(&self, disk: &Path, at: &Path) -> Result<Mounted> {
        fs::create_dir_all(at)?;
        quietly(Command::new("mount").args(["-t", self.name, "-o", self.options]).arg(disk).arg(at))?;
        Ok(Mounted { at: at.to_owned() })
    }
}

/// A mount, and the loop device below it, which goes with it.
pub(super) struct Mounted {
    at: PathBuf,
}

impl Mounted {
    pub(super) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A program that another thread starts holds our open files until it has begun.
        let since = Instant::now();
        while let Err(e) = quietly(Command::new("umount").arg(&self.at)) {
            if since.elapsed() > PATIENCE {
                eprintln!("{e}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A disk whose writes are recorded while it is mounted.
pub(super) struct Recorded {
    // Dropped in this order: the mount writes to the disk for as long as it is there.
    mounted: Mounted,
    daemon: Daemon,
    log: PathBuf,
}

/// The program that is the disk.
struct Daemon(Child);

impl Recorded {
    /// Mounts a disk in a folder; what it looked like before is in `base` from then on.
    pub(super) fn start(system: &FileSystem, folder: &Path, base: &Path) -> Result<Recorded> {
        let [disk, log, door] = ["disk", "log", "door"].map(|name| folder.join(name));
        run::run(Command::new("cp").arg("--sparse=always").arg(base).arg(&disk))?;
        for file in [&log, &door] {
            File::create(file)?;
        }
        let daemon = Daemon::start(&disk, &log, &door, system.size)?;
        let mounted = system.mount(&door, &folder.join("recorded"))?;
        Ok(Recorded { mounted, daemon, log })
    }

    pub(super) fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// How many requests the disk was told so far.
    pub(super) fn position(&self) -> Result<usize> {
        log::position(&self.log)
    }

    /// Unmounts it, and gives all that it was told.
    pub(super) fn stop(self) -> Result<log::Log> {
        let Recorded { mounted, daemon, log } = self;
        drop(mounted);
        drop(daemon);
        log::Log::read(&log)
    }
}

impl Daemon {
    fn start(disk: &Path, log: &Path, door: &Path, size: u64) -> Result<Daemon> {
        let mut command = Command::new("qemu-storage-daemon");
        command.arg("--blockdev").arg(format!("driver=file,node-name=disk,filename={}", disk.display()));
        command.arg("--blockdev").arg(format!("driver=file,node-name=log,filename={}", log.display()));
        command
            .args(["--blockdev", "driver=blklogwrites,node-name=both,file=disk,log=log,log-sector-size=512,log-super-update-interval=1"]);
        command.arg("--export").arg(format!("type=fuse,id=door,node-name=both,mountpoint={},writable=on", door.display()));
        let child = command.stdin(Stdio::null()).spawn().map_err(|e| Message(format!("`{}`: {e}", shown(&command))))?;
        let mut daemon = Daemon(child);
        // The file is empty until the disk is shown in its place.
        let since = Instant::now();
        while fs::metadata(door)?.len() != size {
            if daemon.0.try_wait()?.is_some() || since.elapsed() > PATIENCE {
                return fail(format!("`{}` shows no disk at {}", shown(&command), door.display()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked to end, it brings its log to an end.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// Runs a program whose words are of interest only if it fails.
fn quietly(command: &mut Command) -> Result {
    let text = shown(command);
    let output = command.stdin(Stdio::null()).output().map_err(|e| Message(format!("`{text}`: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    fail(format!("`{text}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
