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
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64" | "arm64", Some(v)) => ("arm64", Some(v.to_owned())),
            ("armhf", _) => ("arm", Some("v7".to_owned())),
            ("armel", _) => ("arm", Some("v6".to_owned())),
            ("arm", None | Some("7")) => ("arm", Some("v7".to_owned())),
            ("arm", Some(v @ ("5" | "6" | "8"))) => ("arm", Some(format!("v{v}"))),
            (other, v) => return Some(Platform { os, architecture: other.to_owned(), variant: v.map(str::to_owned) }),
        };
        Some(Platform { os, architecture: architecture.to_owned(), variant })
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
    /// The variant that was asked for comes first, then what it can run besides: lower variants of `arm` and `amd64`, and an image that names no variant.
    pub fn rank(&self, offered: &Platform) -> Option<u8> {
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        let level = |p: &Platform| match &p.variant {
            None if p.architecture == "arm64" => Some(8),
            None => Some(1),
            Some(v) => v.strip_prefix('v')?.parse::<u8>().ok(),
        };
        match (level(self), level(offered)) {
            _ if self.variant == offered.variant => Some(0),
            (Some(here), Some(there)) if there <= here => Some(here - there),
            _ => None,
        }
    }
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
}
