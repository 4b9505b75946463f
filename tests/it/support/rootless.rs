//! Podman of a user who is not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::engine::Process;

/// The user, whom nobody else knows.
pub const USER: u32 = 48_213;

/// A podman service at the place where podman has it for a user, and larder looks for it.
pub struct Rootless {
    process: Process,
    runtime: PathBuf,
    folder: TempDir,
}

impl Rootless {
    /// Starts it for a user with this home and this folder for sockets, which become the user's.
    pub fn start(home: &Path, runtime: &Path) -> Rootless {
        let folder = tempfile::Builder::new().prefix("rootless").tempdir().expect("a temporary folder can be made");
        let users = fs::read_to_string("/etc/passwd").expect("every Debian has users");
        let ids = format!("user:{}:65536\n", 1_000_000_000);
        let user = format!("{users}user:x:{USER}:{USER}::{}:/bin/sh\n", home.display());
        for (name, text) in [("passwd", &user), ("subuid", &ids), ("subgid", &ids)] {
            fs::write(folder.path().join(name), text).expect("a new folder can be written");
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o644)).expect("a new file is ours");
        }
        fs::create_dir(runtime.join("podman")).expect("the folder can be written");
        for path in [home.to_owned(), runtime.to_owned(), runtime.join("podman")] {
            chown(path, Some(USER), Some(USER)).expect("tests of engines run as root");
        }
        let socket = runtime.join("podman/podman.sock");
        // Only the processes in here know the user; on the machine nothing changes.
        let script = r#"
            for file in passwd subuid subgid; do mount --bind "$1/$file" "/etc/$file"; done
            user=$2; shift 2
            exec setpriv --reuid "$user" --regid "$user" --clear-groups podman "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]);
        command.arg(folder.path()).arg(USER.to_string());
        command.args([
            "--storage-driver=overlay",
            "--events-backend=file",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",
            "system",
            "service",
            "--time=0",
        ]);
        command.arg(format!("unix://{}", socket.display()));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home).env("XDG_RUNTIME_DIR", runtime);
        let answers = || UnixStream::connect(&socket).ok().map(drop);
        let process = Process::start(command, &folder.path().join("log"), answers);
        Rootless { process, runtime: runtime.to_owned(), folder }
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        self.process.end(self.folder.path());
        // It keeps the user's namespace for the next podman.
        let pause = fs::read_to_string(self.runtime.join("libpod/tmp/pause.pid")).ok();
        if let Some(pause) = pause.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            let _ = kill_process(pause, Signal::KILL);
        }
    }
}
