//! Real servers of a test's own: Debian's registry with whatever settings, nginx, tinyproxy and microsocks, and the keys they use.
//!
//! What they started and wrote is gone when they are dropped.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::engine::Process;
use super::image::Recipe;

/// The password of alice, as `htpasswd -B` writes it: `s3cret`.
pub const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// A server on a port of 127.0.0.1, with a folder for all it writes.
pub struct Server {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Server {
    /// Debian's registry over this folder of images; `more` is added to its settings.
    pub fn registry(images: &Path, more: &Value) -> Server {
        Server::start("registry", |folder, port| {
            let mut config = json!({
                "version": 0.1,
                "log": { "level": "info", "accesslog": { "disabled": false } },
                "storage": { "filesystem": { "rootdirectory": images } },
                "http": { "addr": format!("127.0.0.1:{port}") },
            });
            merge(&mut config, more);
            fs::write(folder.join("htpasswd"), HTPASSWD).expect("a new folder can be written");
            // JSON is YAML.
            fs::write(folder.join("config.yml"), config.to_string()).expect("a new folder can be written");
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg("config.yml").current_dir(folder);
            command
        })
    }

    /// nginx with these servers inside `http { }`; `PORT` is its port. The log says of each request what it showed.
    pub fn nginx(servers: &str) -> Server {
        Server::start("nginx", |folder, port| {
            let at = folder.display();
            let temporary: String =
                ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).concat();
            let config = format!(
                "daemon off;\nuser root;\npid {at}/pid;\nerror_log {at}/error.log;\nworker_processes 1;\nevents {{}}\nhttp {{\n{temporary}\
                 log_format all '$status $request_method $host $request_uri a=[$http_authorization] p=[$http_proxy_authorization] c=[$ssl_client_s_dn]';\n\
                 access_log {at}/access.log all;\n{}\n}}\n",
                servers.replace("PORT", &port.to_string())
            );
            fs::write(folder.join("nginx.conf"), config).expect("a new folder can be written");
            let mut command = Command::new("/usr/sbin/nginx");
            command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(folder.join("nginx.conf"));
            command
        })
    }

    /// tinyproxy, which asks for alice's password, and knows `registry.test` as 127.0.0.1.
    pub fn tinyproxy() -> Server {
        Server::start("tinyproxy", |folder, port| {
            let log = folder.join("access.log");
            let config = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nLogLevel Connect\nLogFile \"{}\"\nBasicAuth alice s3cret\n",
                log.display()
            );
            fs::write(folder.join("tinyproxy.conf"), config).expect("a new folder can be written");
            with_hosts(folder, &format!("exec tinyproxy -d -c {}/tinyproxy.conf", folder.display()))
        })
    }

    /// microsocks, which asks for alice's password, and knows `registry.test` as 127.0.0.1.
    pub fn microsocks() -> Server {
        Server::start("microsocks", |folder, port| {
            with_hosts(folder, &format!("exec microsocks -i 127.0.0.1 -p {port} -u alice -P s3cret"))
        })
    }

    fn start(name: &str, command: impl FnOnce(&Path, u16) -> Command) -> Server {
        let folder = tempfile::Builder::new().prefix(name).tempdir().expect("a temporary folder can be made");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("there are free ports").port();
        let command = command(folder.path(), port);
        let answers = || TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
        let process = Process::start(command, &folder.path().join("log"), answers);
        Server { process, folder, port }
    }

    /// Its host and port, as references have it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it wrote about whom it served.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("{}{}", read("log"), read("access.log"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.end(self.folder.path());
    }
}

/// A shell command that sees a list of hosts of its own.
fn with_hosts(folder: &Path, command: &str) -> Command {
    let hosts = folder.join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost registry.test\n").expect("a new folder can be written");
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", &format!("mount --bind {} /etc/hosts && {command}", hosts.display())]);
    shell
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, more) => *into = more.clone(),
    }
}

/// Images as a registry keeps them, for any number of registries to serve.
pub struct Images {
    folder: TempDir,
    /// The digest of `team/app:v1`.
    pub digest: String,
}

impl Images {
    /// One image, `team/app:v1`, pushed into a registry by skopeo.
    pub fn push(recipe: &Recipe) -> Images {
        let folder = tempfile::Builder::new().prefix("images").tempdir().expect("a temporary folder can be made");
        let made = recipe.make();
        made.write_layout(&folder.path().join("layout"), "v1").expect("a new folder can be written");
        let images = Images { folder, digest: made.root.digest.to_string() };
        let registry = Server::registry(&images.path(), &json!({}));
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--all", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        copy.arg(format!("oci:{}:v1", images.folder.path().join("layout").display()));
        super::run(copy.arg(format!("docker://{}/team/app:v1", registry.host())));
        images
    }

    /// The folder that a registry serves.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The image at a registry, by tag and digest.
    pub fn pinned(&self, host: &str) -> String {
        format!("{host}/team/app:v1@{}", self.digest)
    }
}

/// An authority, and what it signed: `server` for 127.0.0.1, localhost and registry.test, `client` for alice, `signer` for tokens.
pub struct Keys(TempDir);

impl Keys {
    /// Makes new ones.
    pub fn make() -> Keys {
        let folder = tempfile::Builder::new().prefix("keys").tempdir().expect("a temporary folder can be made");
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.current_dir(folder.path()).args(arguments.split_whitespace());
            super::run(&mut command)
        };
        let key = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2";
        openssl(&format!("{key} -keyout ca.key -out ca.crt -subj /CN=authority"));
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test";
        let signed = "-CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE";
        openssl(&format!("{key} {signed} -keyout server.key -out server.crt -subj /CN=server -addext {names}"));
        openssl(&format!("{key} {signed} -keyout client.key -out client.cert -subj /CN=alice"));
        openssl(&format!("{key} -keyout signer.key -out signer.crt -subj /CN=signer"));
        openssl("pkcs8 -topk8 -nocrypt -in signer.key -outform DER -out signer.der");
        openssl("x509 -in signer.crt -outform DER -out signer.crt.der");
        Keys(folder)
    }

    /// One of the files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts files into a folder of certificates, each under another name.
    pub fn put(&self, folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).expect("a folder can be made");
        for (file, name) in files {
            fs::copy(self.file(file), folder.join(name)).expect("a new folder can be written");
        }
    }

    /// What nginx needs to be told to speak TLS.
    pub fn nginx(&self) -> String {
        format!("ssl_certificate {}; ssl_certificate_key {};", self.file("server.crt").display(), self.file("server.key").display())
    }
}
