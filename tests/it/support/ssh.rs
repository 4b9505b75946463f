//! A real sshd of a test's own, and a client that knows it: keys, settings and port are nobody else's.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::engine::Process;

/// An sshd on a port of the loopback interface.
pub struct Sshd {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Sshd {
    /// Starts it. Whoever has the key of [`Sshd::key`] logs in as root.
    pub fn start() -> Sshd {
        let folder = tempfile::Builder::new().prefix("sshd").tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        for name in ["host", "key", "stranger"] {
            super::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(name)));
        }
        fs::copy(at("key.pub"), at("authorized")).expect("a new folder can be written");
        // Where sshd locks itself up; its service would make it.
        fs::create_dir_all("/run/sshd").expect("root may write there");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("there are free ports").port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            at("host").display(),
            at("authorized").display()
        );
        fs::write(at("sshd.conf"), config).expect("a new folder can be written");
        let host_key = fs::read_to_string(at("host.pub")).expect("it was just made");
        fs::write(at("known"), format!("[127.0.0.1]:{port} {host_key}")).expect("a new folder can be written");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(at("sshd.conf"));
        let answers = || TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
        let process = Process::start(command, &at("log"), answers);
        Sshd { process, folder, port }
    }

    /// Its address, with the path of a socket behind it.
    pub fn address(&self, socket: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, socket.display())
    }

    /// The key that it lets in.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// A key that it does not know.
    pub fn stranger(&self) -> PathBuf {
        self.folder.path().join("stranger")
    }

    /// A `PATH` whose `ssh` is the real one with these hosts and this key, if any, instead of the user's.
    pub fn path(&self, knows_the_host: bool, key: Option<&Path>) -> String {
        let bin = tempfile::Builder::new().prefix("bin").tempdir_in(self.folder.path()).expect("a temporary folder can be made").keep();
        let known = if knows_the_host { self.folder.path().join("known") } else { "/dev/null".into() };
        let mut config =
            format!("Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  IdentityAgent none\n", known.display());
        config.push_str(&key.map_or("  IdentityFile none\n".to_owned(), |key| format!("  IdentityFile {}\n", key.display())));
        fs::write(bin.join("config"), config).expect("a new folder can be written");
        let script = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", bin.join("config").display());
        fs::write(bin.join("ssh"), script).expect("a new folder can be written");
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).expect("it is ours");
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.process.end(self.folder.path());
    }
}
