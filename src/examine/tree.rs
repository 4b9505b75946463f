//! A folder that an engine unpacked a layer into, read from its own descriptor on.
//!
//! Always true: nothing outside the folder is reached, wherever links in it lead; the links that the layer itself has are followed as engines follow them,
//! with the folder as their root, and no others; only files and folders are opened, and nothing is written.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::finding::Kind;

/// How many links one path may lead through, as in Linux.
const LINKS: usize = 40;
/// More than Linux lets the names or a value of a file's attributes have.
const ATTRIBUTES_LIMIT: usize = 256 << 10;

pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// The folder that was last asked for: a layer's entries come folder by folder.
    last: Option<(Vec<u8>, Place)>,
}

/// A folder in the tree.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) folder: Rc<OwnedFd>,
    /// Its path without links.
    pub(super) path: Vec<u8>,
}

/// An open folder or file's extended attributes, in order of their names.
pub(super) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

impl Tree {
    pub(super) fn open(folder: &Path) -> io::Result<Tree> {
        let root = rustix::fs::open(folder, folder_flags() | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Tree { root: Rc::new(root), last: None })
    }

    pub(super) fn root(&self) -> Place {
        Place { folder: self.root.clone(), path: Vec::new() }
    }

    /// The folder at a path; none if there is no such folder. Only those links are followed whose path `may_lead`.
    pub(super) fn folder(&mut self, path: &[u8], may_lead: &dyn Fn(&[u8]) -> bool) -> io::Result<Option<Place>> {
        if let Some((last, place)) = &self.last
            && last == path
        {
            return Ok(Some(place.clone()));
        }
        let found = self.walk(path, may_lead)?;
        self.last = found.clone().map(|place| (path.to_vec(), place));
        Ok(found)
    }

    fn walk(&self, path: &[u8], may_lead: &dyn Fn(&[u8]) -> bool) -> io::Result<Option<Place>> {
        let mut way = vec![self.root()];
        let mut ahead: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            let here = way.last().expect("the root is never left").clone();
            if part == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            match open_folder(&here, &part) {
                Ok(folder) => way.push(Place { folder: Rc::new(folder), path: join(&here.path, &part) }),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    if !may_lead(&join(&here.path, &part)) {
                        return Ok(None);
                    }
                    let Some(target) = link_target(&here, &part)? else { return Ok(None) };
                    links += 1;
                    if links > LINKS {
                        return Ok(None);
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    ahead.extend(parts(&target).rev().map(<[u8]>::to_vec));
                }
                Err(other) => return Err(other.into()),
            }
        }
        Ok(way.pop())
    }
}

impl Place {
    /// What has this name here, if anything.
    pub(super) fn stat(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// Opens a file that `stat` said is one.
    pub(super) fn file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?))
    }

    pub(super) fn inner(&self, name: &[u8]) -> io::Result<Place> {
        Ok(Place { folder: Rc::new(open_folder(self, name)?), path: join(&self.path, name) })
    }

    pub(super) fn target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.folder, name, Vec::new())?.into_bytes())
    }

    /// The names of all that is in the folder, in order.
    pub(super) fn names(&self) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

pub(super) fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link,
        FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Pipe,
        _ => Kind::Other,
    }
}

/// The extended attributes of an open file or folder; none where the file system has none.
pub(super) fn attributes(of: impl AsFd) -> io::Result<Attributes> {
    let names = match whole(|buffer| rustix::fs::flistxattr(&of, buffer)) {
        Err(Errno::NOTSUP) => return Ok(Attributes::new()),
        listed => listed?,
    };
    let mut all = Attributes::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match whole(|buffer| rustix::fs::fgetxattr(&of, name, buffer)) {
            // Gone meanwhile, or one that only the kernel reads.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            value => all.push((name.to_vec(), value?)),
        }
    }
    all.sort();
    Ok(all)
}

/// What the system writes into a buffer, which is made larger until it suffices.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1024];
    loop {
        match read(&mut buffer) {
            Err(Errno::RANGE) if buffer.len() < ATTRIBUTES_LIMIT => buffer.resize(buffer.len() * 4, 0),
            done => {
                buffer.truncate(done?);
                return Ok(buffer);
            }
        }
    }
}

fn open_folder(place: &Place, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(&place.folder, name, folder_flags() | OFlags::NOFOLLOW, Mode::empty())
}

/// Where the link of this name leads; none if it is no link.
fn link_target(place: &Place, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match place.stat(name)? {
        Some(stat) if kind(&stat) == Kind::Link => place.target(name).map(Some),
        _ => Ok(None),
    }
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// The parts of a path that mean something.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// A path of an archive, cleaned as engines do it: no leading slash, no `.`, and `..` only within.
pub(super) fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut clean: Vec<&[u8]> = Vec::new();
    for part in parts(path) {
        if part == b".." {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean.join(&b'/')
}
