//! containerd of a test's own, and its command line.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{Make, program, socket};

/// The namespace that containerd's command line uses.
pub(super) const NAMESPACE: &str = "default";

/// The program that serves, set up to write nowhere but in its folder.
pub(super) fn serve(make: Make, folder: &Path) -> Command {
    let at = |name: &str| folder.join(name).display().to_string();
    // The first two would write outside of the folder, the last ask for a collector of traces.
    let off = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"];
    let config = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = {off:?}\n[grpc]\naddress = \"{}\"\n",
        at("data"),
        at("exec"),
        socket(folder).display()
    );
    fs::write(folder.join("config.toml"), config).expect("a new folder can be written");
    let mut command = program(make, folder, "containerd");
    command.arg("--config").arg(folder.join("config.toml"));
    command
}

/// Its command line.
pub(super) fn ctr(make: Make, folder: &Path, namespace: &str) -> Command {
    let mut command = program(make, folder, "ctr");
    command.arg("--address").arg(socket(folder)).args(["--namespace", namespace]).stdin(Stdio::null());
    command
}

/// Whether it answers.
pub(super) fn answers(make: Make, folder: &Path) -> Option<()> {
    let asked = ctr(make, folder, NAMESPACE).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success()).then_some(())
}

/// The digests in a listing of images, by name.
pub(super) fn targets(listing: &str) -> Vec<(String, String)> {
    let columns = listing.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns.filter(|columns| columns.len() > 2).map(|columns| (columns[0].to_owned(), columns[2].to_owned())).collect()
}

/// Runs a command in a container without a network.
pub(super) fn run(make: Make, folder: &Path, image: &str, command: &[&str]) -> Output {
    let mut ctr = ctr(make, folder, NAMESPACE);
    ctr.args(["run", "--rm", "--cgroup", ""]);
    // Both ends have to see these, whatever else they see.
    ctr.arg("--fifo-dir").arg(folder.join("fifo")).arg("--runc-root").arg(folder.join("runc"));
    ctr.args([image, "one"]).args(command).output().expect("the engine's command line runs")
}

/// Leaves a part of some content: it is said to be longer, so containerd takes it and does not commit it.
pub(super) fn ingest(make: Make, folder: &Path, (reference, size): (&str, u64), part: &[u8]) {
    let mut ctr = ctr(make, folder, NAMESPACE);
    ctr.args(["content", "ingest", "--expected-size", &size.to_string(), reference]).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = ctr.spawn().expect("the engine's command line runs");
    child.stdin.take().expect("it was asked for").write_all(part).expect("it takes a few bytes");
    assert!(!child.wait().expect("it ends").success(), "what is too short is not committed");
}
