//! Engines of a test's own: a real dockerd, podman service, containerd or registry, with everything they write under a temporary folder.
//!
//! They need root. What they started is gone when they are dropped: processes, mounts and files.

mod ctr;
mod registry;

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

pub use self::registry::RealRegistry;

/// How long an engine may take to answer or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many containers were started, so that each has a name of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Which engine is wanted, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// The installed docker, with its classic image store.
    Docker,
    /// The installed podman.
    Podman,
    /// The docker of another Debian release, with the classic image store.
    DockerOf(&'static str),
    /// The docker of another Debian release, with the containerd image store.
    DockerWithContainerdOf(&'static str),
    /// The podman of another Debian release.
    PodmanOf(&'static str),
    /// The installed containerd.
    Containerd,
    /// The containerd of another Debian release.
    ContainerdOf(&'static str),
}

/// An engine that nothing else uses.
pub struct RealEngine {
    make: Make,
    /// What its daemon is told besides.
    more: Vec<String>,
    process: Process,
    folder: TempDir,
}

impl RealEngine {
    /// Starts an engine and waits until it answers.
    pub fn start(make: Make) -> RealEngine {
        RealEngine::start_with(make, &[])
    }

    /// Starts a docker that is told more.
    pub fn start_with(make: Make, more: &[&str]) -> RealEngine {
        let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
        // In lower case: podman makes a name of the path of a layout.
        let name = format!("engine{:016x}", RandomState::new().hash_one(0));
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().expect("a temporary folder can be made");
        for name in ["config", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a new folder can be written");
        }
        // podman insists on a file where it is told that there is one.
        fs::write(folder.path().join("config/config.json"), "{}").expect("a new folder can be written");
        let containerd = matches!(make, Make::DockerWithContainerdOf(_));
        let config = serde_json::json!({ "features": { "containerd-snapshotter": containerd } });
        fs::write(folder.path().join("daemon.json"), config.to_string()).expect("a new folder can be written");
        let process = serve(make, folder.path(), &more);
        RealEngine { make, more, process, folder }
    }

    /// Which engine it is.
    pub fn make(&self) -> Make {
        self.make
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// Where it listens, as `DOCKER_HOST` and `CONTAINER_HOST` have it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The folder that all it writes is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it at once, as a power cut would. Its files stay.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Holds it where it is, so that it takes and answers nothing, until it is let go.
    pub fn freeze(&self, frozen: bool) {
        self.process.signal(if frozen { Signal::STOP } else { Signal::CONT });
        assert!(wait_until(|| self.process.threads_stopped() == frozen), "a signal takes effect");
    }

    /// Starts it again on the files it left.
    pub fn restart(&mut self) {
        self.process.end(self.folder.path());
        self.process = serve(self.make, self.folder.path(), &self.more);
    }

    /// What its own command line shows of the image with this name, in a form of [Go's templates](https://pkg.go.dev/text/template).
    pub fn inspect(&self, name: &str, format: &str) -> Option<String> {
        let output = self.command(&["image", "inspect", "--format", format, name]).output().expect("the engine's command line runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The image ID, or what the name points to, with `sha256:` before it; `None` if there is no such image.
    pub fn inspect_id(&self, name: &str) -> Option<String> {
        if self.make.is_containerd() {
            return self.targets().into_iter().find(|(known, _)| known == name).map(|(_, target)| target);
        }
        let id = self.inspect(name, "{{.Id}}")?;
        Some(if id.starts_with("sha256:") { id } else { format!("sha256:{id}") })
    }

    /// The number of its images.
    pub fn count(&self) -> usize {
        if self.make.is_containerd() {
            let targets: std::collections::HashSet<_> = self.targets().into_iter().map(|(_, target)| target).collect();
            return targets.len();
        }
        let output = self.must(&["image", "ls", "--quiet", "--no-trunc", "--all"]);
        let ids: std::collections::HashSet<_> = output.lines().collect();
        ids.len()
    }

    /// The names that containerd knows, and what they point to.
    fn targets(&self) -> Vec<(String, String)> {
        ctr::targets(&self.must(&["images", "list"]))
    }

    /// The names of its images.
    pub fn names(&self) -> Vec<String> {
        if self.make.is_containerd() {
            return self.targets().into_iter().map(|(name, _)| name).collect();
        }
        let output = self.must(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
        output.lines().map(str::to_owned).collect()
    }

    /// Gives an image another name.
    pub fn tag(&self, image: &str, name: &str) {
        let arguments: &[&str] = if self.make.is_containerd() { &["images", "tag", "--force"] } else { &["tag"] };
        self.must(&[arguments, &[image, name]].concat());
    }

    /// Removes an image, or its name if it has others.
    pub fn remove(&self, name: &str) {
        let arguments: &[&str] = if self.make.is_containerd() { &["images", "remove", "--sync"] } else { &["rmi", "--force"] };
        self.must(&[arguments, &[name]].concat());
    }

    /// Loads an archive with its own command line.
    pub fn load(&self, archive: &[u8]) -> Output {
        let path = self.folder.path().join("archive.tar");
        fs::write(&path, archive).expect("the engine's folder can be written");
        self.load_file(&path)
    }

    /// Loads an archive from a file that the engine sees.
    pub fn load_file(&self, path: &Path) -> Output {
        let path = path.display().to_string();
        let arguments: &[&str] = if self.make.is_containerd() { &["images", "import", &path] } else { &["load", "--input", &path] };
        self.command(arguments).output().expect("the engine's command line runs")
    }

    /// The command of its own that pulls from a registry on the loopback interface.
    pub fn pull(&self, reference: &str) -> Command {
        let arguments: &[&str] = match self.make {
            make if make.is_docker() => &["pull", "--quiet"],
            make if make.is_podman() => &["pull", "--quiet", "--tls-verify=false"],
            _ => &["images", "pull", "--plain-http"],
        };
        self.command(&[arguments, &[reference]].concat())
    }

    /// Where `skopeo copy` puts an image of this name into it, and what it needs to be told for that.
    pub fn skopeo_target(&self, name: &str) -> (String, Vec<String>) {
        if self.make.is_docker() {
            return (format!("docker-daemon:{name}"), vec!["--dest-daemon-host".to_owned(), self.address()]);
        }
        let (data, exec) = (self.folder.path().join("data"), self.folder.path().join("exec"));
        (format!("containers-storage:[overlay@{}+{}]{name}", data.display(), exec.display()), Vec::new())
    }

    /// Makes a container and does not start it.
    pub fn create(&self, image: &str, name: &str) {
        match self.make.is_containerd() {
            true => self.must(&["containers", "create", image, name, "/bin/true"]),
            false => self.must(&["create", "--name", name, "--pull", "never", "--network", "none", image, "/bin/true"]),
        };
    }

    /// Removes a container.
    pub fn remove_container(&self, name: &str) {
        let arguments: &[&str] = if self.make.is_containerd() { &["containers", "rm"] } else { &["rm", "--force"] };
        self.must(&[arguments, &[name]].concat());
    }

    /// Saves images with its own command line, into a file or folder below its own.
    pub fn save(&self, options: &[&str], to: &Path, images: &[&str]) {
        let to = to.display().to_string();
        self.must(&[&["save", "--output", &to], options, images].concat());
    }

    /// Where containerd listens that docker brings with it.
    pub fn containerd(&self) -> PathBuf {
        self.folder.path().join("exec/containerd/containerd.sock")
    }

    /// Runs a command in a container without a network.
    pub fn run(&self, image: &str, command: &[&str]) -> Output {
        if self.make.is_containerd() {
            return ctr::run(self.make, self.folder.path(), image, command);
        }
        if self.make.is_docker() {
            return self.run_and_ask(image, command);
        }
        let mut arguments = vec!["run", "--rm", "--pull", "never", "--network", "none"];
        // crun refuses a machine with both kinds of cgroups, and podman's own limits may be above what is allowed.
        arguments.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", image]);
        arguments.extend(command);
        self.command(&arguments).output().expect("the engine's command line runs")
    }

    /// What a container says that ends at once does not always reach whoever had docker start it; docker itself has it all the same.
    fn run_and_ask(&self, image: &str, command: &[&str]) -> Output {
        let name = format!("ran-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let start = ["run", "--name", &name, "--pull", "never", "--network", "none", image];
        let mut ran = self.command(&[&start, command].concat()).output().expect("the engine's command line runs");
        if ran.status.success() {
            ran.stdout = self.command(&["logs", &name]).output().expect("the engine's command line runs").stdout;
        }
        // There is none if it was not even made.
        let _ = self.command(&["rm", "--force", &name]).output();
        ran
    }

    /// A program of the release that the engine is from, with the engine's environment; it sees the engine's folder.
    pub fn program(&self, name: &str) -> Command {
        program(self.make, self.folder.path(), name)
    }

    /// Brings an image of an OCI layout in the engine's folder into podman.
    pub fn pull_layout(&self, layout: &Path, name: &str) -> Output {
        self.command(&["pull", &format!("oci:{}:{name}", layout.display())]).output().expect("the engine's command line runs")
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the engine's command line runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// containerd's command line in a namespace, which has to succeed.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> String {
        let output = ctr::ctr(self.make, self.folder.path(), namespace).args(arguments).output().expect("the engine's command line runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Leaves a part of some content in containerd, as a writer that broke off does.
    pub fn ingest(&self, reference: &str, size: u64, part: &[u8]) {
        ctr::ingest(self.make, self.folder.path(), (reference, size), part);
    }

    /// The engine's own command line.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.make {
            Make::Podman | Make::PodmanOf(_) => podman(self.make, self.folder.path()),
            Make::Containerd | Make::ContainerdOf(_) => ctr::ctr(self.make, self.folder.path(), ctr::NAMESPACE),
            _ => {
                let mut docker = program(Make::Docker, self.folder.path(), "docker");
                docker.args(["--host", &self.address()]);
                docker
            }
        };
        command.args(arguments).stdin(Stdio::null());
        command
    }
}

impl Drop for RealEngine {
    fn drop(&mut self) {
        self.process.end(self.folder.path());
    }
}

impl Make {
    /// Whether this is docker, with either image store.
    pub fn is_docker(self) -> bool {
        !self.is_podman() && !self.is_containerd()
    }

    /// Whether this is podman.
    pub fn is_podman(self) -> bool {
        matches!(self, Make::Podman | Make::PodmanOf(_))
    }

    /// Whether this is containerd by itself.
    pub fn is_containerd(self) -> bool {
        matches!(self, Make::Containerd | Make::ContainerdOf(_))
    }

    /// The Debian release it comes from, if that is not the one that is running.
    fn suite(self) -> Option<&'static str> {
        match self {
            Make::Docker | Make::Podman | Make::Containerd => None,
            Make::DockerOf(suite) | Make::DockerWithContainerdOf(suite) | Make::PodmanOf(suite) | Make::ContainerdOf(suite) => Some(suite),
        }
    }

    /// Whether it can be started here. Engines of other releases are there once `tests/engines/debian prepare` was run.
    pub fn is_there(self) -> bool {
        self.suite().is_none_or(|suite| debian("there", suite).status().is_ok_and(|s| s.success()))
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("engine.sock")
}

fn serve(make: Make, folder: &Path, more: &[String]) -> Process {
    let socket = socket(folder);
    // A killed engine leaves its socket and pid file, and dockerd minds the second.
    let _ = fs::remove_file(&socket);
    let _ = fs::remove_file(folder.join("pid"));
    if make.is_containerd() {
        return Process::start(ctr::serve(make, folder), &folder.join("log"), || ctr::answers(make, folder));
    }
    let mut command = if make.is_docker() { dockerd(make, folder) } else { podman(make, folder) };
    command.args(more);
    if make.is_podman() {
        command.args(["system", "service", "--time=0", &format!("unix://{}", socket.display())]);
    }
    let answers = || {
        let mut stream = UnixStream::connect(&socket).ok()?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains(" 200 OK").then_some(())
    };
    Process::start(command, &folder.join("log"), answers)
}

fn dockerd(make: Make, folder: &Path) -> Command {
    let mut command = program(make, folder, "dockerd");
    command.args(["--bridge=none", "--iptables=false", "--ip-masq=false", "--host", &format!("unix://{}", socket(folder).display())]);
    for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid"), ("--config-file", "daemon.json")] {
        command.arg(option).arg(folder.join(name));
    }
    command
}

fn podman(make: Make, folder: &Path) -> Command {
    let mut command = program(make, folder, "podman");
    for (option, name) in [("--root", "data"), ("--runroot", "exec"), ("--tmpdir", "libpod")] {
        command.arg(option).arg(folder.join(name));
    }
    command.args(["--events-backend", "file", "--runtime", "runc"]);
    command
}

/// A program of the engine's, in an environment where it reads and writes nothing of the user's.
fn program(make: Make, folder: &Path, name: &str) -> Command {
    let mut command = match make.suite() {
        None => Command::new(name),
        Some(suite) => {
            let mut command = debian("run", suite);
            command.arg(folder).arg(name);
            command
        }
    };
    let tmp = folder.join("tmp");
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", folder);
    command.env("TMPDIR", &tmp).env("DOCKER_TMPDIR", &tmp).env("DOCKER_CONFIG", folder.join("config"));
    command
}

fn debian(task: &str, suite: &str) -> Command {
    let above = |dir: &Path| Some(dir.join("tests/engines/debian")).filter(|script| script.is_file());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find_map(above);
    let mut command = Command::new(script.expect("the script lies in the project"));
    command.args([task, suite]);
    command
}

/// A program that serves, and whatever it starts.
pub(super) struct Process {
    child: Child,
    group: Pid,
}

impl Process {
    pub(super) fn start(mut command: Command, log: &Path, answers: impl Fn() -> Option<()>) -> Process {
        let out = fs::File::options().create(true).append(true).open(log).expect("a log can be written");
        let err = out.try_clone().expect("a file can be written by two");
        let name = command.get_program().display().to_string();
        let child = command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|e| panic!("{name} cannot be started ({e}): `cargo xtask test` installs what tests need"));
        let group = Pid::from_child(&child);
        let mut process = Process { child, group };
        let up = wait_until(|| process.child.try_wait().expect("a child can be waited for").is_some() || answers().is_some());
        if !up || process.child.try_wait().expect("a child can be waited for").is_some() {
            process.kill();
            panic!("{name} does not serve:\n{}", fs::read_to_string(log).unwrap_or_default());
        }
        process
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// Whether none of its threads runs or can run.
    fn threads_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        tasks.map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default()).all(stopped)
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Ends it in peace if it can, and takes away what it left but for its files.
    pub(super) fn end(&mut self, folder: &Path) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        if !wait_until(|| self.child.try_wait().expect("a child can be waited for").is_some()) {
            self.kill();
        }
        // dockerd's containerd is in a group of its own, and may outlive a dockerd that was killed.
        let pid_file = folder.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&pid_file).ok();
        let pid = pid.and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        // The number may be another process's by now.
        let ours = |pid: &Pid| {
            let command = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            command.contains(&folder.display().to_string())
        };
        if let Some(pid) = pid.filter(ours) {
            let _ = kill_process(pid, Signal::KILL);
            wait_until(|| !ours(&pid));
        }
        // The next dockerd takes a dead containerd that nobody waited for to be running.
        let _ = fs::remove_file(pid_file);
        for mount in mounts_below(folder) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).stderr(Stdio::null()).status();
        }
    }
}

/// Asks again and again, until the answer is yes or patience ends.
fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The mount points under a folder, the inner before the outer.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut below: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    below.reverse();
    below
}
