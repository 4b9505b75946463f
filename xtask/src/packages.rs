//! The programs that tests and measurements need, and the Debian packages that have them.

use std::ffi::OsString;
use std::process::Command;

use crate::run::{self, Result, fail};

/// Programs and their packages.
pub(crate) const ENGINES: &[(&str, &str)] = &[
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("podman", "podman"),
    ("crun", "crun"),
    ("newuidmap", "uidmap"),
    ("docker-registry", "docker-registry"),
];

/// What brings the engines of other Debian releases.
pub(crate) const RELEASES: &[(&str, &str)] = &[("debootstrap", "debootstrap")];

/// Programs that read and write images besides the engines, and those that lead to engines.
pub(crate) const OTHERS: &[(&str, &str)] = &[
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("buildah", "buildah"),
    ("strace", "strace"),
    ("xz", "xz-utils"),
    ("openssl", "openssl"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("nginx", "nginx"),
    ("tinyproxy", "tinyproxy"),
    ("microsocks", "microsocks"),
    ("unshare", "util-linux"),
];

/// What makes file systems, cuts their power and makes them unchangeable.
pub(crate) const FAULTS: &[(&str, &str)] = &[
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    // In Debian 13 it comes with qemu-utils.
    ("qemu-storage-daemon", "qemu-system-common"),
    ("mksquashfs", "squashfs-tools"),
    ("chattr", "e2fsprogs"),
    ("filefrag", "e2fsprogs"),
    ("setpriv", "util-linux"),
    ("prlimit", "util-linux"),
    ("script", "bsdutils"),
    ("mount", "mount"),
];

/// What builds libFuzzer.
pub(crate) const FUZZ: &[(&str, &str)] = &[("g++", "g++")];

/// What larder is measured beside, and with.
pub(crate) const PEERS: &[(&str, &str)] = &[("skopeo", "skopeo"), ("time", "time")];

/// What `make-image.py` needs.
pub(crate) const FIXTURES: &[(&str, &str)] = &[("python3", "python3"), ("dpkg-deb", "dpkg"), ("apt-get", "apt"), ("zstd", "zstd")];

/// Makes sure that the programs are there; offers to install what is missing.
pub(crate) fn require(lists: &[&[(&str, &str)]]) -> Result {
    let missing: Vec<_> = lists.iter().copied().flatten().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    let command = format!("apt-get install -y --no-remove --no-install-recommends {}", packages.join(" "));
    if !is_there("apt-get") {
        return fail(format!("these programs are missing: {}\n  hint: install them; on Debian: {command}", programs.join(", ")));
    }
    eprintln!("These programs are missing: {}.", programs.join(", "));
    eprintln!("They come with `{command}`; Debian starts docker, docker-registry, nginx and tinyproxy as services when it installs them.");
    if !run::ask("Install them now?", true)? {
        return fail(format!("these programs are missing: {}\n  hint: {command}", programs.join(", ")));
    }
    if !is_root() {
        return fail(format!("installing needs root\n  hint: sudo {command}"));
    }
    run::run(apt().args(["update", "-qq"]))?;
    run::run(apt().args(["install", "-qq", "-y", "--no-remove", "--no-install-recommends"]).args(&packages))?;
    match missing.iter().find(|(program, _)| !is_there(program)) {
        Some((program, package)) => fail(format!("{package} was installed, and there is still no `{program}` on the PATH")),
        None => Ok(()),
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether a program is on the PATH, or where Debian puts those for root.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

/// The PATH with the folders where Debian puts the programs for root.
pub(crate) fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    std::env::join_paths(folders).unwrap_or(path)
}

/// Whether this runs as root, which engines of our own need.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
