//! Platforms: what an image runs on, and which image suits a machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, a processor architecture and its variant, as Go names them
/// ([image-spec, image-index.md, Platform Variants](https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md#platform-variants)).
///
/// Kept in containerd's normal form: `linux/arm64`, never `linux/aarch64` or `linux/arm64/v8`; `linux/arm/v7`, never `linux/arm`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform, expected os/architecture or os/architecture/variant such as linux/arm64")]
pub struct PlatformError {
    text: String,
}

impl Platform {
    /// A platform in its normal form. Empty parts are no platform.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Option<Platform> {
        let word = |s: &str| !s.is_empty() && s.len() <= 64 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let variant = variant.filter(|v| !v.is_empty());
        if !word(os) || !word(architecture) || !variant.is_none_or(word) {
            return None;
        }
        let os = match os.to_ascii_lowercase() {
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant.map(str::to_ascii_lowercase).as_deref()) {
            ("i386" | "x86", _) => ("386", None),
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", Some(v)) => ("amd64", Some(v.to_owned())),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "8.0" | "v8.0")) => ("arm64", None),
            ("aarch64" | "arm64", Some("9" | "9.0" | "v9.0")) => ("arm64", Some("v9".to_owned())),
            ("aarch64" | "arm64", Some(v)) => ("arm64", Some(v.to_owned())),
            ("armhf", _) => ("arm", Some("v7".to_owned())),
            ("armel", _) => ("arm", Some("v6".to_owned())),
            ("arm", None | Some("7")) => ("arm", Some("v7".to_owned())),
            ("arm", Some(v @ ("5" | "6" | "8"))) => ("arm", Some(format!("v{v}"))),
            (other, v) => return Some(Platform { os, architecture: other.to_owned(), variant: v.map(str::to_owned) }),
        };
        Some(Platform { os, architecture: architecture.to_owned(), variant })
    }

    /// What artifacts are for: no platform at all. Builders write it so for attestations.
    pub fn none() -> Platform {
        Platform { os: "unknown".into(), architecture: "unknown".into(), variant: None }
    }

    /// The platform that this program runs on. Containers run on Linux, so that is the system everywhere but on Windows.
    pub fn host() -> Platform {
        let os = if cfg!(windows) { "windows" } else { "linux" };
        Platform::new(os, std::env::consts::ARCH, None).unwrap_or(Platform { os: os.into(), architecture: "amd64".into(), variant: None })
    }

    /// The operating system, such as `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The processor architecture, such as `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the architecture, such as `v7`.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// How well an image for `offered` runs here: smaller is better, `None` is not at all.
    ///
    /// The order is containerd's ([`platforms.Only`](https://pkg.go.dev/github.com/containerd/platforms#Only)): what was asked for, then what such a
    /// machine runs besides, the nearest first. `amd64` runs lower levels of it and at last `386`; `arm` lower versions down to `v5`;
    /// `arm64` lower versions, `v9.x` what `v8.(x+5)` does, and at last `arm`.
    pub fn rank(&self, offered: &Platform) -> Option<u8> {
        if self == offered {
            return Some(0);
        }
        if self.os != offered.os {
            return None;
        }
        let runs = self.runs_besides();
        let at = runs.iter().position(|(architecture, variant)| (*architecture, variant) == (&*offered.architecture, &offered.variant))?;
        u8::try_from(at + 1).ok()
    }

    /// The architectures and variants that it runs besides its own, the best first.
    fn runs_besides(&self) -> Vec<(&'static str, Option<String>)> {
        let variant = self.variant.as_deref().unwrap_or_default();
        match self.architecture.as_str() {
            "amd64" => {
                let lower = version(variant).into_iter().flat_map(|level| (1..level).rev());
                lower.map(|level| ("amd64", (level > 1).then(|| format!("v{level}")))).chain([("386", None)]).collect()
            }
            "arm" => arm_below(version(variant).unwrap_or(0)),
            "arm64" => {
                let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
                let major = if variant.is_empty() { Some(8) } else { version(major) };
                // One digit, as in every version that there is.
                let minor: u8 = minor.parse().ok().filter(|minor| *minor < 10).unwrap_or(0);
                let versions = match major {
                    Some(9) => (0..minor).rev().map(|minor| (9, minor)).chain((0..=minor + 5).rev().map(|minor| (8, minor))).collect(),
                    Some(8) => (0..minor).rev().map(|minor| (8, minor)).collect(),
                    _ => Vec::new(),
                };
                let named = |(major, minor)| match (major, minor) {
                    (8, 0) => None,
                    (major, 0) => Some(format!("v{major}")),
                    (major, minor) => Some(format!("v{major}.{minor}")),
                };
                let arm = major.filter(|major| *major >= 8).map(|_| arm_below(9)).unwrap_or_default();
                versions.into_iter().map(|version| ("arm64", named(version))).chain(arm).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The number in a variant such as `v7`.
fn version(variant: &str) -> Option<u8> {
    variant.strip_prefix('v')?.parse().ok()
}

/// The versions of 32-bit `arm` below this one, as far as they run.
fn arm_below(version: u8) -> Vec<(&'static str, Option<String>)> {
    // There is none above the eighth.
    (5..version.min(9)).rev().map(|version| ("arm", Some(format!("v{version}")))).collect()
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let platform = match parts[..] {
            [os, architecture] => Platform::new(os, architecture, None),
            [os, architecture, variant] if !variant.is_empty() => Platform::new(os, architecture, Some(variant)),
            _ => None,
        };
        platform.ok_or_else(|| PlatformError { text: text.chars().take(100).filter(|c| !c.is_control()).collect() })
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Platform, PlatformError> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> String {
        platform.to_string()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_have_one_normal_form() {
        for (text, normal) in [
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(platform(text).to_string(), normal);
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/arm/", "li nux/a", "all"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_runs_where_is_what_containerd_says() {
        // The table of containerd's own tests, and the order of its vectors.
        let table: [(&str, &[&str], &[&str]); 13] = [
            ("linux/amd64", &["linux/amd64", "linux/386"], &["linux/amd64/v2", "linux/arm/v7", "linux/arm64", "windows/amd64"]),
            ("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64/v1", "linux/386"], &["linux/amd64/v4", "linux/arm64"]),
            ("linux/386", &["linux/386"], &["linux/amd64", "linux/arm/v7"]),
            ("windows/amd64", &["windows/amd64", "windows/386"], &["linux/amd64", "windows/arm"]),
            (
                "linux/arm/v8",
                &["linux/arm/v8", "linux/arm", "linux/arm/v6", "linux/arm/v5"],
                &["linux/arm/v4", "linux/arm64", "linux/amd64"],
            ),
            ("linux/arm", &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"], &["linux/arm/v8", "linux/arm/v4"]),
            ("linux/arm/v6", &["linux/arm/v6", "linux/arm/v5"], &["linux/arm", "linux/arm/v8"]),
            ("linux/arm/v5", &["linux/arm/v5"], &["linux/arm/v4", "linux/arm/v6"]),
            ("linux/arm/v4", &["linux/arm/v4"], &["linux/arm/v5"]),
            (
                "linux/arm64",
                &["linux/arm64/v8", "linux/arm/v8", "linux/arm", "linux/arm/v6", "linux/arm/v5"],
                &["linux/arm64/v9", "linux/arm64/v8.1", "linux/arm/v9", "linux/arm/v4", "windows/arm"],
            ),
            (
                "linux/arm64/v8.1",
                &["linux/arm64/v8.1", "linux/arm64", "linux/arm/v8", "linux/arm/v5"],
                &["linux/arm64/v8.2", "linux/arm64/v9"],
            ),
            (
                "linux/arm64/v9.0",
                &["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64/v8.4", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v8", "linux/arm"],
                &["linux/arm64/v8.6", "linux/arm64/v9.1", "linux/arm/v4"],
            ),
            ("linux/riscv64", &["linux/riscv64"], &["linux/arm64", "linux/386"]),
        ];
        for (here, best_first, not) in table {
            let rank = |offered: &str| platform(here).rank(&platform(offered));
            let ranks: Vec<_> = best_first.iter().map(|offered| rank(offered).unwrap_or_else(|| panic!("{here} runs {offered}"))).collect();
            assert!(ranks[0] == 0 && ranks.is_sorted_by(|a, b| a < b), "{here}: {ranks:?}");
            for offered in not {
                assert_eq!(rank(offered), None, "{here} does not run {offered}");
            }
        }
        for odd in ["linux/arm64/v8.99", "linux/arm64/v9.x", "linux/arm64/v255.9", "linux/amd64/v255", "linux/arm/v255"] {
            assert_eq!(platform(odd).rank(&platform(odd)), Some(0));
        }
    }
}
