//! What can be written behind `larder`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use jiff::{SignedDuration, Span, SpanRelativeTo};
use larder::oci::Platform;

/// Keeps container images so that they are there when the network is not.
///
/// Pull `name:tag@sha256:…` once; larder checks every byte, keeps it, puts it into docker, podman or containerd under `name:tag`, and
/// proves, offline and in milliseconds, that what the engine holds is exactly what was pinned.
#[derive(Debug, Parser)]
#[command(name = "larder", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const SETTINGS: &str = "\
Where images are asked for, the first before the others; `pull --dry-run` shows it for a reference:
  mirrors     [mirrors] in larder's config.toml; podman's registries.conf; docker's daemon.json; containerd's
              certs.d/HOST/hosts.toml; then the registry itself
  credentials --creds; --authfile or REGISTRY_AUTH_FILE alone; else DOCKER_AUTH_CONFIG, $XDG_RUNTIME_DIR/containers/auth.json,
              ~/.config/containers/auth.json, ~/.docker/config.json ($DOCKER_CONFIG), with their helpers
  certificates the system's (SSL_CERT_FILE), --ca-file, certs.d/HOST:PORT of podman, docker and containerd
  proxies     HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY; never for loopback
Settings of other programs are read below ~/.config and /etc (LARDER_ETC names another folder). In config.toml `registries_conf = false`,
`daemon_json = false`, `hosts_toml = false` and `certs_d = false` switch them off; --no-mirrors does so for one run.";

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or held
  1  failed
  2  usage
  3  not there: offline and not in the store; for check, nothing under that name
  4  not what was pinned: bytes did not verify; for check, another image under that name
  5  the engine refused, is not there, or could not be asked
  6  the registry refused: credentials, not found
The worst of several wins, in the order 4 5 6 3 1.";

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Folder that the images are kept in [default: $XDG_DATA_HOME/larder or ~/.local/share/larder]
    #[arg(long, global = true, value_name = "DIR", env = "LARDER_DIR", value_hint = ValueHint::DirPath, hide_env_values = true)]
    pub(crate) store: Option<PathBuf>,
    /// Settings file [default: $XDG_CONFIG_HOME/larder/config.toml or ~/.config/larder/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "LARDER_CONFIG", value_hint = ValueHint::FilePath, hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Open no connection to any registry (LARDER_OFFLINE=1 does the same)
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// Print one JSON object for each result, on a line of its own
    #[arg(long, global = true, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print names only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say on standard error what is asked where
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// Seconds to wait for what another process is doing in the store
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        env = "LARDER_LOCK_TIMEOUT",
        default_value_t = 600,
        value_parser = clap::value_parser!(u64).range(0..=86400),
        hide_env_values = true
    )]
    pub(crate) lock_timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make sure that the engine holds an image: pull what is missing, load what the engine lacks, prove it
    Ensure(Ensure),
    /// Bring images from their registries into the store
    Pull(Pull),
    /// Bring images from files into the store, whatever tool wrote them, and say what is proved of them
    Import(Import),
    /// Load images from the store into the engine, and prove it; never asks a registry
    Load(Load),
    /// Ask whether the engine holds exactly what was pinned; changes nothing
    Check(Check),
    /// Write images from the store into a file or folder that other tools read; never asks a registry
    Export(Export),
    /// List what is in the store
    #[command(visible_alias = "ls")]
    List(List),
    /// Show everything about an image in the store, and which engines hold it
    Inspect(Inspect),
    /// Remove images from the store
    #[command(visible_alias = "rm")]
    Remove(Remove),
    /// Hash everything in the store and say what is wrong; with --repair, bring it again
    Verify(Verify),
    /// Remove from the store what nobody needs, and images by age or size
    Prune(Prune),
    /// Show the engines that are there, how they were found, and why one cannot be used
    Engines,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Manual {
        /// The folder; made if it is not there
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct References {
    /// Images, as [host[:port]/]path[:tag][@sha256:…]
    #[arg(value_name = "REF", required = true, value_hint = ValueHint::Other)]
    pub(crate) references: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Engines {
    /// The engine to use; may be repeated. auto takes the first that answers, of docker, podman and containerd; all takes every one
    #[arg(
        long = "engine",
        value_name = "ENGINE",
        env = "LARDER_ENGINE",
        value_delimiter = ',',
        default_value = "auto",
        hide_env_values = true
    )]
    pub(crate) engines: Vec<EngineName>,
    /// Namespace of containerd: k8s.io for Kubernetes, moby for docker's own [default: default; that of k3s or docker on their sockets]
    #[arg(long, value_name = "NAME", env = "CONTAINERD_NAMESPACE", hide_env_values = true)]
    pub(crate) namespace: Option<String>,
    /// Seconds to wait for an engine's answer. A load may take longer, as long as the engine says that it lives
    #[arg(long, visible_alias = "timeout", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) engine_timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    /// The first that answers
    Auto,
    /// Every one that answers
    All,
    /// Docker, with either image store
    Docker,
    /// Podman
    Podman,
    /// containerd, in one of its namespaces
    Containerd,
    /// No engine: the store alone
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Naming {
    /// Name and tag the image is to bear, instead of those of its reference
    #[arg(long = "as", value_name = "NAME:TAG")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct OnePlatform {
    /// Platform, as os/architecture[/variant] [default: the engine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Registry options")]
pub(crate) struct Upstream {
    /// Another repository that may have the image, asked when its own does not give it; may be repeated
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) from: Vec<String>,
    /// Refuse references without a digest
    #[arg(long, conflicts_with = "allow_unpinned")]
    pub(crate) pinned_only: bool,
    /// Where a pinned digest cannot be had, take what the tag means now, and say so
    #[arg(long)]
    pub(crate) allow_unpinned: bool,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Registry options")]
pub(crate) struct Registry {
    /// User name and password for the one registry whose images are asked for; before all that is found in files
    #[arg(long, value_name = "USER[:PASSWORD]", env = "LARDER_CREDS", hide_env_values = true)]
    pub(crate) creds: Option<Creds>,
    /// Read the password for --creds USER from standard input
    #[arg(long, requires = "creds")]
    pub(crate) password_stdin: bool,
    /// File with credentials, as docker and podman write it; no other is read then (REGISTRY_AUTH_FILE does the same)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) authfile: Option<PathBuf>,
    /// Host that is asked without TLS; may be repeated. Loopback addresses need no mention
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) insecure: Vec<String>,
    /// Ask no mirror: pass over [mirrors], registries.conf, daemon.json and hosts.toml
    #[arg(long)]
    pub(crate) no_mirrors: bool,
    /// File with CA certificates (PEM) that are trusted besides the system's and those in certs.d/HOST:PORT; may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Vec<PathBuf>,
    /// How many layers are fetched at once
    #[arg(long, short, value_name = "N", default_value = "5", value_parser = jobs)]
    pub(crate) jobs: NonZeroUsize,
    /// Up to how many connections bring layers where each gives little and more bring more; 1 for one each
    #[arg(long, value_name = "N", default_value = "20", value_parser = jobs)]
    pub(crate) connections: NonZeroUsize,
    /// The most that is taken from registries in a second, such as 10MB
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) limit_rate: Option<NonZeroU64>,
    /// How often a request is tried before it is given up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) tries: u32,
    /// Seconds without a byte after which a connection is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) stall: u64,
    /// Seconds in which a connection has to come about [default: connect_timeout in config.toml, else 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) connect_timeout: Option<u64>,
    /// Time for all of it, loads into engines too, such as 90s or 10m; what is not done then has failed, and what came is kept
    /// [default: deadline in config.toml, else none]
    #[arg(long, value_name = "DURATION", env = "LARDER_DEADLINE", hide_env_values = true)]
    pub(crate) deadline: Option<Duration>,
}

/// What was given as `--creds`. It cannot be printed.
#[derive(Clone)]
pub(crate) struct Creds(pub(crate) String);

impl std::fmt::Debug for Creds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl std::str::FromStr for Creds {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Creds, Self::Err> {
        Ok(Creds(text.to_owned()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Dry {
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// Examine what the engine unpacked, and take an image that is damaged out and load it again. Containers that use it are
    /// named, never stopped
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
#[command(after_long_help = SETTINGS)]
pub(crate) struct Ensure {
    #[command(flatten)]
    pub(crate) references: References,
    #[command(flatten)]
    pub(crate) engines: Engines,
    #[command(flatten)]
    pub(crate) platform: OnePlatform,
    #[command(flatten)]
    pub(crate) naming: Naming,
    #[command(flatten)]
    pub(crate) upstream: Upstream,
    #[command(flatten)]
    pub(crate) replace: Replace,
    #[command(flatten)]
    pub(crate) dry: Dry,
}

#[derive(Debug, Args)]
#[command(after_long_help = SETTINGS)]
pub(crate) struct Pull {
    #[command(flatten)]
    pub(crate) references: References,
    /// Platform, as os/architecture[/variant], or all; may be repeated [default: the engine's, else this machine's]
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<PlatformOrAll>,
    /// Keep with the image what names it as its subject: signatures, lists of what is in it, statements of how it was built
    #[arg(long = "referrers")]
    pub(crate) keep_referrers: bool,
    #[command(flatten)]
    pub(crate) engines: Engines,
    #[command(flatten)]
    pub(crate) naming: Naming,
    #[command(flatten)]
    pub(crate) upstream: Upstream,
    #[command(flatten)]
    pub(crate) dry: Dry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlatformOrAll {
    One(Platform),
    All,
}

impl std::str::FromStr for PlatformOrAll {
    type Err = larder::oci::PlatformError;

    fn from_str(text: &str) -> Result<PlatformOrAll, Self::Err> {
        if text == "all" { Ok(PlatformOrAll::All) } else { text.parse().map(PlatformOrAll::One) }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) references: References,
    #[command(flatten)]
    pub(crate) engines: Engines,
    #[command(flatten)]
    pub(crate) platform: OnePlatform,
    #[command(flatten)]
    pub(crate) naming: Naming,
    #[command(flatten)]
    pub(crate) replace: Replace,
    #[command(flatten)]
    pub(crate) dry: Dry,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Archives of docker, podman, skopeo, crane and others, OCI layouts, or folders of minikube's cache; - is standard input
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<String>,
    /// What the image is: its name and tag, and with a digest the pin that it has to be
    #[arg(long = "as", value_name = "REF")]
    pub(crate) reference: Option<String>,
    /// Give the images the names that the file gives them
    #[arg(long, conflicts_with = "reference")]
    pub(crate) accept_names: bool,
    /// The only platform that is wanted, as os/architecture[/variant] [default: all that are there]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
    /// Another repository that may have the manifests of the image; may be repeated
    #[arg(long, value_name = "REPOSITORY", help_heading = "Registry options")]
    pub(crate) from: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) references: References,
    /// File to write, or - for standard output; a folder for the formats layout and minikube. It grows as PATH.part and has its name when it is
    /// whole; the next export to that name replaces what a killed one left
    #[arg(long, short, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) output: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value_t = Format::Archive)]
    pub(crate) format: Format,
    /// Platform, as os/architecture[/variant], or all; may be repeated. One alone goes by its own manifest, which
    /// `ctr images import --all-platforms`, kind and k3d need [default: all that the store has, under the index that was pinned; for the formats
    /// docker and minikube, which hold one, this machine's]
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<PlatformOrAll>,
    /// Compression of the whole file; layers that are compressed already are passed on as they are
    #[arg(long, value_enum, default_value_t = Compress::None)]
    pub(crate) compress: Compress,
    #[command(flatten)]
    pub(crate) naming: Naming,
    #[command(flatten)]
    pub(crate) dry: Dry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A tar archive for every engine: an OCI layout and a docker archive at once
    Archive,
    /// A docker archive for older readers; layers compressed with zstd become plain ones
    Docker,
    /// An OCI archive
    Oci,
    /// An OCI layout in a folder; added to what is there
    Layout,
    /// A file in minikube's own cache; the folder is minikube's home, such as ~/.minikube
    Minikube,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    /// None
    None,
    /// gzip, which docker and podman read, and containerd since 2.0
    Gzip,
    /// Zstandard, which docker reads since 23, podman, and containerd since 2.0
    Zstd,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) references: References,
    #[command(flatten)]
    pub(crate) engines: Engines,
    #[command(flatten)]
    pub(crate) platform: OnePlatform,
    #[command(flatten)]
    pub(crate) naming: Naming,
    /// Compare what the engine unpacked with the layers in the store, file by file, not only identities. As root on the engine's
    /// own machine; else the archive that the engine makes of the image is compared, and the level that was reached is said
    #[arg(long)]
    pub(crate) deep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only images whose name contains this text
    #[arg(value_name = "TEXT")]
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) references: References,
    #[command(flatten)]
    pub(crate) platform: OnePlatform,
    /// Ask no engine whether it holds the image
    #[arg(long)]
    pub(crate) no_engines: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    pub(crate) references: References,
    #[command(flatten)]
    pub(crate) platform: OnePlatform,
    /// Where a tag has several digests in the store, remove them all
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) dry: Dry,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Only these images, as [host[:port]/]path[:tag][@sha256:…] [default: the whole store]
    #[arg(value_name = "REF", value_hint = ValueHint::Other)]
    pub(crate) references: Vec<String>,
    /// Look at names and sizes only; says nothing of content
    #[arg(long)]
    pub(crate) quick: bool,
    /// Bring again what is damaged or missing, from where it was pulled or from --from
    #[arg(long)]
    pub(crate) repair: bool,
    /// Another repository, or an OCI layout or tar archive of images, that may have what is missing; may be repeated
    #[arg(long, value_name = "REPOSITORY|FILE", requires = "repair", help_heading = "Registry options")]
    pub(crate) from: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove images that were not used for so long, such as 30d, 12h or 2w
    #[arg(long, value_name = "DURATION")]
    pub(crate) unused_for: Option<Duration>,
    /// Remove the images used longest ago until the others have no more bytes than this, such as 20GB or 500MiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) keep_size: Option<ByteSize>,
    /// Remove what interrupted pulls left that is older than this; younger ones are continued by the next pull
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    pub(crate) parts_older_than: Duration,
    /// Remove what was found damaged and set aside
    #[arg(long)]
    pub(crate) damaged: bool,
    #[command(flatten)]
    pub(crate) dry: Dry,
}

/// A length of time as people write it: `30d`, `1d 12h`. A day has 24 hours, a week seven days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Duration(pub(crate) SignedDuration);

impl TryFrom<String> for Duration {
    type Error = String;

    fn try_from(text: String) -> Result<Duration, String> {
        text.parse()
    }
}

impl std::str::FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Duration, String> {
        let expected = "expected a number and a unit, such as 30d, 12h or 2w";
        let span: Span = text.parse().map_err(|_| expected.to_owned())?;
        if span.is_negative() || span.get_years() != 0 || span.get_months() != 0 {
            return Err(format!("{expected}; months and years have no fixed length"));
        }
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map(Duration).map_err(|_| expected.to_owned())
    }
}

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= 64);
    number.ok_or_else(|| "expected a number from 1 to 64".to_owned())
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    let rate = text.trim_end_matches("/s").parse::<ByteSize>().ok().and_then(|size| NonZeroU64::new(size.as_u64()));
    rate.ok_or_else(|| "expected a number of bytes a second, such as 10MB or 512KiB".to_owned())
}
