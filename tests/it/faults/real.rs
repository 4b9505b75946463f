//! Addresses that names lead to. Needs root, to have names of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};

use super::{REPOSITORY, Scene};
use crate::support::registry::{Fault, Registry};
use crate::upstream::connections::{fixture, secure};

/// Runs the command where `/etc/hosts` says this: its exit code, what it said, and how long it took.
fn with_names(scene: &Scene, hosts: &str, arguments: &[&str]) -> (i32, String, Duration) {
    with_names_and(scene, hosts, &[], arguments)
}

/// The same, with these variables besides.
fn with_names_and(scene: &Scene, hosts: &str, variables: &[(&str, String)], arguments: &[&str]) -> (i32, String, Duration) {
    let file = scene.sandbox.path().join("hosts");
    std::fs::write(&file, hosts).unwrap();
    let larder = scene.sandbox.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", "mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"", "sh"]);
    command.arg(&file).arg(larder.get_program()).args(arguments);
    command.env_clear().envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let began = Instant::now();
    let output = command.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned(), began.elapsed())
}

/// An address where connections are neither taken nor refused, for as long as the value lives.
async fn black_hole(address: &str) -> (std::net::SocketAddr, Vec<TcpStream>, tokio::net::TcpListener) {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    // What is not accepted fills the queue; whatever comes then gets no answer.
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream);
        assert!(waiting.len() < 10, "the queue has an end");
    }
    (address, waiting, listener)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn each_reason_why_no_connection_comes_about_has_its_own_words() {
    let scene = Scene::new();
    let names = "127.0.0.1 localhost plain.example secure.example far.example\n";
    let (good, expired, gone) = (secure("good.pem"), secure("expired.pem"), Registry::start().port());
    let (proxy, ca) = (Registry::start(), fixture("ca.pem").display().to_string());
    proxy.fault("", Fault::Status(407, None, usize::MAX));
    let nowhere = format!("{}.example", "a".repeat(64));
    let trusting = ["--ca-file", ca.as_str()];
    let cases: [(String, &[&str], bool, &[&str]); 7] = [
        (nowhere.clone(), &["--insecure", &nowhere], false, &["could not be resolved"]),
        (format!("127.0.0.1:{gone}"), &[], false, &["was refused", "see whether the registry is there"]),
        (format!("plain.example:{}", scene.registry.port()), &[], false, &["does not speak TLS", "--insecure"]),
        (format!("secure.example:{}", good.port()), &[], false, &["no secure connection", "UnknownIssuer", "--ca-file"]),
        (format!("secure.example:{}", good.port()), &trusting, false, &["no secure connection", "not valid for name"]),
        (format!("secure.example:{}", expired.port()), &trusting, false, &["no secure connection", "expired"]),
        ("far.example".to_owned(), &["--insecure", "far.example"], true, &["the proxy did not let the request"]),
    ];
    for (host, more, by_proxy, says) in cases {
        let reference = format!("{host}/{REPOSITORY}@{}", scene.made.root.digest);
        let arguments = [&["pull", "--engine", "none", "--tries", "2"], more, &[reference.as_str()]].concat();
        let variables: &[(&str, String)] = if by_proxy { &[("HTTP_PROXY", proxy.url(""))] } else { &[] };
        let (code, said, took) = with_names_and(&scene, names, variables, &arguments);
        assert!(code == 1 && says.iter().all(|text| said.contains(text)), "{host} {more:?} should say {says:?}: {code} {said}");
        assert!(took < Duration::from_secs(5), "{host}: {took:?}");
    }
    assert_eq!((good.seen().len(), expired.seen().len()), (0, 0), "nothing was asked");
}

#[test]
fn names_of_secrets_addresses_are_not_dialled() {
    let scene = Scene::new();
    for address in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254"] {
        let reference = format!("metadata.example/{REPOSITORY}@{}", scene.made.root.digest);
        let hosts = format!("127.0.0.1 localhost\n{address} metadata.example\n");
        let arguments = ["pull", "--engine", "none", "--insecure", "metadata.example", &reference];
        let (code, said, took) = with_names(&scene, &hosts, &arguments);
        assert!(code == 1 && said.contains("where no registry may be") && said.contains("allowed_addresses"), "{address}: {code} {said}");
        assert!(took < Duration::from_secs(2), "{address}: {took:?}");
    }
    // Beside an address that is open, the other is passed over.
    let hosts = "169.254.169.254 both.example\n127.0.0.1 both.example\n";
    let reference = format!("both.example:{}/{REPOSITORY}:v1@{}", scene.registry.port(), scene.made.root.digest);
    let arguments = ["pull", "--engine", "none", "--platform", "linux/amd64", "--insecure", "both.example", &reference];
    let (code, said, _) = with_names(&scene, hosts, &arguments);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn an_address_that_swallows_everything_costs_its_name_a_third_of_a_second() {
    let scene = Scene::new();
    runtime().block_on(async {
        let hole = black_hole(&format!("[::1]:{}", scene.registry.port())).await;
        let reference = format!("two.example:{}/{REPOSITORY}:v1@{}", hole.0.port(), scene.made.root.digest);
        let arguments = ["pull", "--engine", "none", "--platform", "linux/amd64", "--insecure", "two.example", &reference];
        // The first connection alone waits; those that come later know no better, and go on beside it.
        let (code, said, took) = with_names(&scene, "::1 two.example\n127.0.0.1 two.example\n", &arguments);
        assert_eq!(code, 0, "{said}");
        assert!(took > Duration::from_millis(250), "the address was not tried first: {took:?}");
        assert!(took < Duration::from_millis(2500), "{took:?}: {said}");
    });
}

#[test]
fn a_host_that_does_not_answer_is_given_up_in_the_time_that_was_set() {
    let scene = Scene::new();
    runtime().block_on(async {
        let hole = black_hole("127.0.0.1:0").await;
        let reference = format!("{}/{REPOSITORY}@{}", hole.0, scene.made.root.digest);
        let began = Instant::now();
        let output =
            scene.sandbox.run(["pull", "--json", "--engine", "none", "--connect-timeout", "1", "--tries", "1", &reference]).expect(1);
        assert!(began.elapsed() < Duration::from_secs(3), "{output}");
        assert!(output.stdout.contains("\"code\":\"connect\""), "{output}");
    });
}
