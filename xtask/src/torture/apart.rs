//! Mounts and processes of the experiments' own, which end with them.
//!
//! The task runs itself again in namespaces for mounts and processes, and works on a file system in memory there. However it ends, by an
//! interrupt or `kill -9` too, the kernel ends every process of that namespace and takes its mounts away, and with the last mount of a loop
//! device the device. So there is no leftover of an earlier run to look for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::run::{self, Result};

/// Set for the run inside.
const APART: &str = "XTASK_APART";

/// Whether this process is the one inside.
pub(super) fn is_apart() -> bool {
    std::env::var_os(APART).is_some()
}

/// Runs this task once more, inside, to its end; ends as that did. What was wrong was said inside.
pub(super) fn run_again() -> Result {
    // `unshare` passes over interrupts while it waits, so it is to die with this process, and what is inside with it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child=KILL", "--"]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(APART, "1");
    let ended = command.status()?;
    if ended.success() { Ok(()) } else { std::process::exit(ended.code().unwrap_or(1)) }
}

/// Makes it look, to whoever runs inside, as if the system had been started anew.
pub(super) fn reboot(folder: &Path) -> Result {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    let id = folder.join("boot-id");
    // Another one each time: what is done from here on is done in this run, until the next.
    std::fs::write(&id, format!("00000000-0000-4000-8000-{:012x}\n", STARTS.fetch_add(1, Ordering::Relaxed)))?;
    run::run(Command::new("mount").arg("--bind").arg(&id).arg("/proc/sys/kernel/random/boot_id"))
}

/// An empty folder in memory, for all that an experiment writes. Fast, since nothing that is synced there waits for a disk.
pub(super) struct Memory {
    folder: PathBuf,
}

impl Memory {
    pub(super) fn new() -> Result<Memory> {
        // The same folder for all runs: each sees its own mount on it.
        let folder = run::root().join("target/torture");
        std::fs::create_dir_all(&folder)?;
        run::run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=75%", "larder-torture"]).arg(&folder))?;
        Ok(Memory { folder })
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // What still holds it ends with the namespace.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}
