//! What an unpacked layer differs in from the layer it was made of.

use std::fmt;

use serde::Serialize;

/// One file, folder, link or device that is not as the layer has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it lies in the image, without a leading slash; the layer's own folder is `.`.
    pub path: String,
    /// What it differs in.
    #[serde(flatten)]
    pub difference: Difference,
}

/// What a path differs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Difference {
    /// The layer has it, and the engine's folder does not.
    Missing,
    /// The engine's folder has it, and the layer does not.
    Added {
        /// What it is.
        found: Kind,
    },
    /// It is of another kind.
    Kind {
        /// What the layer has.
        expected: Kind,
        /// What is there.
        found: Kind,
    },
    /// The file is shorter or longer.
    Size {
        /// The bytes that the layer has.
        expected: u64,
        /// The bytes that are there.
        found: u64,
    },
    /// The file has the right size and other bytes.
    Content {
        /// How many of its first bytes are right.
        same: u64,
    },
    /// The permission bits are others.
    Mode {
        /// Those in the layer.
        expected: Octal,
        /// Those that are there.
        found: Octal,
    },
    /// It belongs to another user or group.
    Owner {
        /// User and group in the layer.
        expected: Owner,
        /// Those that are there.
        found: Owner,
    },
    /// The symbolic link leads elsewhere.
    Target {
        /// Where it leads in the layer.
        expected: String,
        /// Where it leads now.
        found: String,
    },
    /// It is to be the same file as another path, and is a file of its own.
    Link {
        /// The other path.
        to: String,
    },
    /// The device has other numbers.
    Device {
        /// Major and minor number in the layer.
        expected: (u32, u32),
        /// Those that are there.
        found: (u32, u32),
    },
    /// An extended attribute is another, gone, or not the layer's.
    Attribute {
        /// Its name.
        name: String,
        /// Whether the layer has it.
        expected: bool,
        /// Whether it is there.
        found: bool,
    },
    /// The folder hides what lower layers have in it, or no longer does.
    Opaque {
        /// Whether it hides it in the layer.
        expected: bool,
    },
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Pipe,
    /// Something that no layer has, such as a socket.
    Other,
    /// What hides a path of a lower layer: overlayfs has a device with the numbers 0, 0 for it.
    Whiteout,
}

/// Permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Octal(pub u32);

/// A user's and a group's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The user's.
    pub user: u64,
    /// The group's.
    pub group: u64,
}

impl From<Octal> for String {
    fn from(mode: Octal) -> String {
        mode.to_string()
    }
}

impl fmt::Display for Octal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::File => "a file",
            Kind::Folder => "a folder",
            Kind::Link => "a symbolic link",
            Kind::CharDevice => "a character device",
            Kind::BlockDevice => "a block device",
            Kind::Pipe => "a named pipe",
            Kind::Other => "a socket or the like",
            Kind::Whiteout => "a whiteout",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Missing => f.write_str("missing"),
            Difference::Added { found } => write!(f, "{found} that is not in the layer"),
            Difference::Kind { expected, found } => write!(f, "{found}, expected {expected}"),
            Difference::Size { expected, found } => write!(f, "{found} bytes, expected {expected}"),
            Difference::Content { same } => write!(f, "other content after the first {same} bytes"),
            Difference::Mode { expected, found } => write!(f, "mode {found}, expected {expected}"),
            Difference::Owner { expected, found } => write!(f, "owner {found}, expected {expected}"),
            Difference::Target { expected, found } => write!(f, "leads to `{found}`, expected `{expected}`"),
            Difference::Link { to } => write!(f, "not the same file as {to}"),
            Difference::Device { expected: (major, minor), found } => {
                write!(f, "device {}:{}, expected {major}:{minor}", found.0, found.1)
            }
            Difference::Attribute { name, expected: true, found: true } => write!(f, "the attribute {name} has another value"),
            Difference::Attribute { name, expected: true, .. } => write!(f, "the attribute {name} is missing"),
            Difference::Attribute { name, .. } => write!(f, "the attribute {name} is not in the layer"),
            Difference::Opaque { expected: true } => f.write_str("no longer hides what lower layers have in it"),
            Difference::Opaque { .. } => f.write_str("hides what lower layers have in it"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.difference)
    }
}
