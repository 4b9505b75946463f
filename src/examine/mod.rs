//! Whether what an engine unpacked is what a layer holds.
//!
//! Owns the comparison of a layer's tar archive with the folder that it was unpacked into, as overlayfs wants it: whiteouts are devices with
//! the numbers 0, 0, and folders that hide what is below them bear an attribute. Always true: the archive and the files are read side
//! by side and once, nothing is kept of them but a mark for each path; times are not compared, since engines set them as they like; what is not in
//! the archive is not in the folder, or is a finding.
//!
//! Pure but for reading the folder, and blocking. Where the folder is, is the engine's to say.

mod finding;
mod layer;
mod marks;
#[cfg(test)]
mod tests;
mod tree;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use tar::{Entry, EntryType};

pub use finding::{Difference, Finding, Kind, Octal, Owner};
pub use layer::{LayerError, compare_layer};
use marks::{Mark, Marks};
use tree::{Place, Tree, cleaned, join, kind};

/// How many findings are kept of one layer; the rest is counted.
const KEPT: usize = 1000;
/// How many bytes are compared at once.
const STEP: usize = 128 << 10;
/// What stands before the name of a path that a layer hides
/// ([image-spec, layer.md, Whiteouts](https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts)).
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What tar archives put before the names of extended attributes.
const PAX_ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What came of comparing one layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Examined {
    /// How many entries the layer has.
    pub entries: u64,
    /// How many bytes of files were compared.
    pub bytes: u64,
    /// What differs, in order of the paths.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub more: u64,
}

/// A layer could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The layer is no archive that can be read.
    #[error("the layer cannot be read as a tar archive")]
    Archive {
        /// Why.
        source: io::Error,
    },
    /// A form of entry whose meaning larder does not know.
    #[error("the layer has an entry of a kind that larder does not compare: {path}")]
    Unknown {
        /// The entry's path.
        path: String,
    },
    /// The folder cannot be read.
    #[error("cannot read {}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Examined {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Compares the archive of a layer with the folder that it was unpacked into.
pub fn compare(archive: impl Read, folder: &Path) -> Result<Examined, ExamineError> {
    let unreadable = |source| ExamineError::Folder { path: folder.to_owned(), source };
    let tree = Tree::open(folder).map_err(unreadable)?;
    let mut comparison = Comparison { tree, marks: Marks::default(), examined: Examined::default() };
    let mut archive = tar::Archive::new(archive);
    let broken = |source| ExamineError::Archive { source };
    for entry in archive.entries().map_err(broken)? {
        let entry = Expected::read(entry.map_err(broken)?)?;
        comparison.entry(entry).map_err(|stopped| match stopped {
            Stopped::Archive(source) => broken(source),
            Stopped::Folder(source) => unreadable(source),
        })?;
    }
    comparison.extras().map_err(unreadable)?;
    let mut examined = comparison.examined;
    examined.findings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(examined)
}

/// Which side of a comparison failed.
enum Stopped {
    Archive(io::Error),
    Folder(io::Error),
}

impl From<io::Error> for Stopped {
    /// Nearly all that is read is the folder.
    fn from(source: io::Error) -> Stopped {
        Stopped::Folder(source)
    }
}

/// An entry of the archive, as engines understand it.
struct Expected<'a, R: Read> {
    path: Vec<u8>,
    is: Is,
    mode: u32,
    owner: Owner,
    attributes: tree::Attributes,
    content: Entry<'a, R>,
}

enum Is {
    /// Says something about other entries, or about the archive.
    Nothing,
    /// Makes its folder hide what lower layers have in it.
    OpaqueFolder,
    Whiteout,
    File,
    Folder,
    Symlink(Vec<u8>),
    SameAs(Vec<u8>),
    Device(Kind, (u32, u32)),
    Pipe,
}

impl<'a, R: Read> Expected<'a, R> {
    fn read(mut entry: Entry<'a, R>) -> Result<Self, ExamineError> {
        let broken = |source| ExamineError::Archive { source };
        let mut path = cleaned(&entry.path_bytes());
        let unknown = |path: &[u8]| ExamineError::Unknown { path: shown(path) };
        let mut attributes = tree::Attributes::new();
        for record in entry.pax_extensions().map_err(broken)?.into_iter().flatten() {
            let record = record.map_err(broken)?;
            if let Some(name) = record.key_bytes().strip_prefix(PAX_ATTRIBUTE) {
                attributes.push((name.to_vec(), record.value_bytes().to_vec()));
            } else if record.key_bytes().starts_with(b"GNU.sparse.") {
                return Err(unknown(&path));
            }
        }
        attributes.sort();
        let header = entry.header();
        let number = |field: io::Result<Option<u32>>| field.map(Option::unwrap_or_default).map_err(broken);
        let device = |kind| Ok(Is::Device(kind, (number(header.device_major())?, number(header.device_minor())?)));
        let target = || entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
        let mut is = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if entry.path_bytes().ends_with(b"/") => Is::Folder,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Is::File,
            EntryType::Directory => Is::Folder,
            EntryType::Symlink => Is::Symlink(target()),
            EntryType::Link => Is::SameAs(cleaned(&target())),
            EntryType::Char => device(Kind::CharDevice)?,
            EntryType::Block => device(Kind::BlockDevice)?,
            EntryType::Fifo => Is::Pipe,
            EntryType::XGlobalHeader | EntryType::XHeader => Is::Nothing,
            _ => return Err(unknown(&path)),
        };
        let (folder, name) = split(&path);
        if name == OPAQUE {
            (is, path) = (Is::OpaqueFolder, folder.to_vec());
        } else if name.starts_with(b".wh..wh.") {
            is = Is::Nothing;
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            (is, path) = (Is::Whiteout, join(folder, hidden));
        }
        let owner = Owner { user: header.uid().map_err(broken)?, group: header.gid().map_err(broken)? };
        let mode = header.mode().map_err(broken)? & 0o7777;
        Ok(Expected { path, is, mode, owner, attributes, content: entry })
    }
}

impl Is {
    fn kind(&self) -> Kind {
        match self {
            Is::Whiteout => Kind::Whiteout,
            Is::Folder | Is::OpaqueFolder => Kind::Folder,
            Is::Symlink(_) => Kind::Link,
            // Overlayfs would take it for a whiteout, and so do engines.
            Is::Device(Kind::CharDevice, (0, 0)) => Kind::Whiteout,
            Is::Device(kind, _) => *kind,
            Is::Pipe => Kind::Pipe,
            Is::File | Is::SameAs(_) | Is::Nothing => Kind::File,
        }
    }
}

struct Comparison {
    tree: Tree,
    marks: Marks,
    examined: Examined,
}

impl Comparison {
    fn entry<R: Read>(&mut self, mut entry: Expected<'_, R>) -> Result<(), Stopped> {
        self.examined.entries += 1;
        if matches!(entry.is, Is::Nothing) {
            return Ok(());
        }
        let (folder, name) = split(&entry.path);
        let (folder, name) = (folder.to_vec(), name.to_vec());
        let place = if name.is_empty() { Some(self.tree.root()) } else { self.folder(&folder)? };
        // Where the archive's own links lead, that is where engines put it.
        let path = match &place {
            Some(place) if !name.is_empty() => join(&place.path, &name),
            _ => entry.path.clone(),
        };
        if let Is::OpaqueFolder = entry.is {
            self.marks.opaque(&path);
            return Ok(());
        }
        let mark = match entry.is.kind() {
            Kind::Folder => Mark::Folder,
            Kind::Link => Mark::Link,
            _ => Mark::Leaf,
        };
        if let Some(before) = self.marks.put(&path, mark) {
            self.forget(&path, before, mark);
        }
        let stat = match &place {
            Some(place) if name.is_empty() => Some(rustix::fs::fstat(&place.folder).map_err(io::Error::from)?),
            Some(place) => place.stat(&name)?,
            None => None,
        };
        let (Some(place), Some(stat)) = (place, stat) else {
            self.missing(&path, mark);
            return Ok(());
        };
        let (expected, found) = (entry.is.kind(), kind(&stat));
        if expected != found {
            self.found(&path, Difference::Kind { expected, found });
            return Ok(());
        }
        self.same_kind(&mut entry, &path, &place, &name, &stat)
    }

    fn folder(&mut self, path: &[u8]) -> io::Result<Option<Place>> {
        self.tree.folder(path, &|link| self.marks.of(link) == Some(Mark::Link))
    }

    fn same_kind<R: Read>(
        &mut self,
        entry: &mut Expected<'_, R>,
        path: &[u8],
        place: &Place,
        name: &[u8],
        stat: &Stat,
    ) -> Result<(), Stopped> {
        match &entry.is {
            Is::Whiteout | Is::OpaqueFolder | Is::Nothing => return Ok(()),
            Is::SameAs(to) => return Ok(self.same_as(entry.mode, entry.owner, &to.clone(), path, stat)?),
            Is::File => self.content(entry, path, place, name, stat)?,
            Is::Folder => {
                let opened = if name.is_empty() { place.clone() } else { place.inner(name)? };
                self.attributes(&entry.attributes, path, &tree::attributes(&opened.folder)?);
            }
            Is::Symlink(target) => {
                let found = place.target(name)?;
                if found != *target {
                    self.found(path, Difference::Target { expected: shown(target), found: shown(&found) });
                }
            }
            Is::Device(_, expected) => {
                let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                if found != *expected {
                    self.found(path, Difference::Device { expected: *expected, found });
                }
            }
            Is::Pipe => {}
        }
        let (mode, owner) = (stat.st_mode & 0o7777, owner(stat));
        // The mode of a symbolic link means nothing.
        if mode != entry.mode && !matches!(entry.is, Is::Symlink(_)) {
            self.found(path, Difference::Mode { expected: Octal(entry.mode), found: Octal(mode) });
        }
        if owner != entry.owner {
            self.found(path, Difference::Owner { expected: entry.owner, found: owner });
        }
        Ok(())
    }

    /// A hard link: one file under two paths. What it is was compared under the first.
    fn same_as(&mut self, mode: u32, own: Owner, to: &[u8], path: &[u8], stat: &Stat) -> io::Result<()> {
        let (folder, name) = split(to);
        let Some(place) = self.folder(folder)? else { return Ok(()) };
        let Some(other) = place.stat(name)? else { return Ok(()) };
        if (other.st_dev, other.st_ino) != (stat.st_dev, stat.st_ino) {
            self.found(path, Difference::Link { to: shown(to) });
        } else if (other.st_mode & 0o7777, owner(&other)) == (mode, own) {
            // Engines set what the later entry says, and both say it of the one file.
            let to = shown(to);
            self.examined
                .findings
                .retain(|finding| finding.path != to || !matches!(finding.difference, Difference::Mode { .. } | Difference::Owner { .. }));
        }
        Ok(())
    }

    fn content<R: Read>(
        &mut self,
        entry: &mut Expected<'_, R>,
        path: &[u8],
        place: &Place,
        name: &[u8],
        stat: &Stat,
    ) -> Result<(), Stopped> {
        let file = place.file(name)?;
        self.attributes(&entry.attributes, path, &tree::attributes(&file)?);
        let (expected, found) = (entry.content.size(), u64::try_from(stat.st_size).unwrap_or(0));
        if expected != found {
            self.found(path, Difference::Size { expected, found });
            return Ok(());
        }
        self.examined.bytes += expected;
        if let Some(same) = differ(&mut entry.content, file)? {
            self.found(path, Difference::Content { same });
        }
        Ok(())
    }

    fn attributes(&mut self, expected: &tree::Attributes, path: &[u8], found: &tree::Attributes) {
        let of = |list: &tree::Attributes, name: &[u8]| list.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let mut names: Vec<&Vec<u8>> = expected.iter().chain(found).map(|(name, _)| name).filter(|name| matters(name)).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (expected, found) = (of(expected, name), of(found, name));
            if expected != found {
                let (expected, found) = (expected.is_some(), found.is_some());
                self.found(path, Difference::Attribute { name: shown(name), expected, found });
            }
        }
    }

    /// Looks for what is in the folder and not in the archive, and whether the right folders hide what is below them.
    fn extras(&mut self) -> io::Result<()> {
        let mut ahead = vec![self.tree.root()];
        while let Some(place) = ahead.pop() {
            let (expected, found) = (self.marks.is_opaque(&place.path), is_opaque(&tree::attributes(&place.folder)?));
            if expected != found {
                self.found(&place.path, Difference::Opaque { expected });
            }
            for name in place.names()? {
                let path = join(&place.path, name.as_bytes());
                let Some(stat) = place.stat(name.as_bytes())? else { continue };
                match (self.marks.of(&path), kind(&stat)) {
                    (None, found) => self.found(&path, Difference::Added { found }),
                    (Some(_), Kind::Folder) => ahead.push(place.inner(name.as_bytes())?),
                    // What an entry says of the path itself was compared when it came.
                    (Some(Mark::Implied), found) => self.found(&path, Difference::Kind { expected: Kind::Folder, found }),
                    (Some(_), _) => {}
                }
            }
        }
        Ok(())
    }

    /// Says that something is missing, unless it is in a folder of which that was said.
    fn missing(&mut self, path: &[u8], mark: Mark) {
        let said = self.marks.is_gone(split(path).0);
        if mark == Mark::Folder {
            self.marks.gone(path);
        }
        if !said {
            self.found(path, Difference::Missing);
        }
    }

    fn found(&mut self, path: &[u8], difference: Difference) {
        if self.examined.findings.len() == KEPT {
            self.examined.more += 1;
            return;
        }
        self.examined.findings.push(Finding { path: shown(path), difference });
    }

    /// A later entry for a path stands in place of an earlier one; only two folders become one.
    fn forget(&mut self, path: &[u8], before: Mark, now: Mark) {
        let path = shown(path);
        let below = format!("{path}/");
        let replaced = (before, now) != (Mark::Folder, Mark::Folder);
        self.examined.findings.retain(|finding| finding.path != path && !(replaced && finding.path.starts_with(&below)));
    }
}

/// How many bytes are the same, if not all are.
fn differ(content: &mut impl Read, mut file: File) -> Result<Option<u64>, Stopped> {
    let (mut one, mut other) = (vec![0; STEP], vec![0; STEP]);
    let mut same = 0;
    loop {
        let length = fill(content, &mut one).map_err(Stopped::Archive)?;
        let there = fill(&mut file, &mut other[..length.max(1)]).map_err(Stopped::Folder)?;
        if one[..length] != other[..there] {
            let equal = one[..length].iter().zip(&other[..there]).take_while(|(a, b)| a == b).count();
            return Ok(Some(same + equal as u64));
        }
        if length == 0 {
            return Ok(None);
        }
        same += length as u64;
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

/// Attributes that say what a program may do or read. Others are the kernel's, the file system's or the machine's.
fn matters(name: &[u8]) -> bool {
    let ours = name == b"security.capability" || name.starts_with(b"system.posix_acl_") || name.starts_with(b"user.");
    ours && !name.starts_with(b"user.overlay.")
}

fn is_opaque(attributes: &tree::Attributes) -> bool {
    let says =
        |(name, value): &(Vec<u8>, Vec<u8>)| matches!(name.as_slice(), b"trusted.overlay.opaque" | b"user.overlay.opaque") && value == b"y";
    attributes.iter().any(says)
}

fn owner(stat: &Stat) -> Owner {
    Owner { user: u64::from(stat.st_uid), group: u64::from(stat.st_gid) }
}

/// The folder and the name of a clean path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// A path or name fit to be shown: control characters and what is not text are escaped.
fn shown(text: &[u8]) -> String {
    if text.is_empty() {
        return ".".to_owned();
    }
    let plain = |c: char| !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::new();
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if plain(c) { out.push(c) } else { out.extend(c.escape_default()) }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}
