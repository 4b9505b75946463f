//! Tar archives block by block: right ones, and such as no tool would write.

use larder::digest::Digest;
use serde_json::{Value, json};

const BLOCK: usize = 512;

/// An archive that is being written.
#[derive(Debug, Clone, Default)]
pub struct Tarball(Vec<u8>);

/// A member's header, field by field.
#[derive(Debug, Clone)]
pub struct Head {
    pub name: Vec<u8>,
    pub size: Vec<u8>,
    pub flag: u8,
    pub target: Vec<u8>,
    pub magic: [u8; 8],
    /// What stands at a place, over all else.
    pub patch: (usize, Vec<u8>),
    /// Whether the sum is right.
    pub sum: bool,
}

impl Head {
    /// A header as usual tools write it.
    pub fn new(name: &str, flag: u8, size: usize) -> Head {
        Head {
            name: name.as_bytes().to_vec(),
            size: format!("{size:011o}\0").into_bytes(),
            flag,
            target: Vec::new(),
            magic: *b"ustar\x0000",
            patch: (0, Vec::new()),
            sum: true,
        }
    }

    /// A link.
    pub fn link(name: &str, flag: u8, target: &str) -> Head {
        Head { target: target.as_bytes().to_vec(), ..Head::new(name, flag, 0) }
    }

    /// A file with this in its field for the size.
    pub fn sized(name: &str, size: &[u8]) -> Head {
        Head { size: size.to_vec(), ..Head::new(name, b'0', 0) }
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, &self.size);
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[self.flag]);
        put(157, &self.target);
        put(257, &self.magic);
        put(self.patch.0, &self.patch.1);
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        let sum = if self.sum { sum } else { sum + 1 };
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

impl Tarball {
    /// An archive with nothing in it yet.
    pub fn new() -> Tarball {
        Tarball::default()
    }

    /// An archive of these files.
    pub fn of<'a, N: AsRef<str>>(files: impl IntoIterator<Item = (N, &'a [u8])>) -> Tarball {
        files.into_iter().fold(Tarball::new(), |tar, (name, content)| tar.file(name.as_ref(), content))
    }

    /// Adds a file.
    pub fn file(self, name: &str, content: &[u8]) -> Tarball {
        self.member(&Head::new(name, b'0', content.len()), content)
    }

    /// Adds a member with any header.
    pub fn member(mut self, head: &Head, content: &[u8]) -> Tarball {
        self.0.extend(head.block());
        self.bytes(content).padded()
    }

    /// Adds an extension of the standard for the next member.
    pub fn pax(self, records: &[u8]) -> Tarball {
        self.member(&Head::new("PaxHeaders/x", b'x', records.len()), records)
    }

    /// Adds a long name for the next member, as GNU tar does.
    pub fn long_name(self, name: &[u8]) -> Tarball {
        self.member(&Head { magic: *b"ustar  \0", ..Head::new("././@LongLink", b'L', name.len()) }, name)
    }

    /// Adds any bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Tarball {
        self.0.extend_from_slice(bytes);
        self
    }

    fn padded(mut self) -> Tarball {
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The archive with its end.
    pub fn end(self) -> Vec<u8> {
        self.bytes(&[0; 2 * BLOCK]).0
    }

    /// The archive without an end.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// A record of an extension.
pub fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// A config over these unpacked layers.
pub fn config(layers: &[&[u8]]) -> Value {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids } })
}

/// The files of a docker archive: a config, layers under short names, and the list.
pub fn docker_files(config: &Value, layers: &[&[u8]], tag: &str) -> Vec<(String, Vec<u8>)> {
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", Digest::of(&config).hex());
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let list = json!([{ "Config": name, "RepoTags": [tag], "Layers": paths }]);
    let mut files = vec![(name, config)];
    files.extend(paths.into_iter().zip(layers).map(|(path, layer)| (path, layer.to_vec())));
    files.push(("manifest.json".to_owned(), list.to_string().into_bytes()));
    files
}

/// The archive of these files.
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    Tarball::of(files.iter().map(|(name, content)| (name, content.as_slice()))).end()
}
