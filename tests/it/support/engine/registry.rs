//! A registry of a test's own: Debian's, on a folder and a port that nothing else uses.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::Process;

/// A registry that nothing else uses.
pub struct RealRegistry {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl RealRegistry {
    /// Starts Debian's registry on a free port of the loopback interface.
    pub fn start() -> RealRegistry {
        let folder = tempfile::Builder::new().prefix("registry").tempdir().expect("a temporary folder can be made");
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
        let port = listener.local_addr().expect("a listener has an address").port();
        drop(listener);
        let config = serde_json::json!({
            "version": 0.1,
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": folder.path().join("data") }, "delete": { "enabled": true } },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        // JSON is YAML.
        let path = folder.path().join("config.yml");
        fs::write(&path, config.to_string()).expect("a new folder can be written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path);
        let answers = || TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
        let process = Process::start(command, &folder.path().join("log"), answers);
        RealRegistry { process, folder, port }
    }

    /// Its host and port, as references have it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it at once. It is not there any more.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.process.end(self.folder.path());
    }
}
