//! The members of a tar archive, one after the other.
//!
//! Owns what a tar archive is to larder. Always true: what GNU tar, Go, Python or an engine would read differently is refused by name: an extension that belongs to no member or
//! comes twice, a size that is said twice and differently, an end that is missing or has something behind it. Nothing of a member's content is
//! kept; what the members mean is for others.

use std::collections::HashMap;
use std::io::{self, Read};

use super::header::{BLOCK, Header};

/// The most bytes that a name may have, and the extension that it stands in.
const NAME_LIMIT: u64 = 4096;
const EXTENSION_LIMIT: u64 = 64 << 10;

/// The most bytes that a member may have: 256 GiB.
const SIZE_LIMIT: u64 = 256 << 30;

/// From here on a size does not fit into a header's octal digits.
const FITS: u64 = 8 << 30;

/// The most members, as no archive of images has them.
const MEMBERS: usize = 100_000;

/// The most bytes that may fill an archive up behind its end; GNU tar writes up to ten kilobytes.
const FILLING: u64 = 1 << 20;

/// An archive is not one that every reader would read alike.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It cannot be read.
    #[error("the archive cannot be read")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// It does not begin as a tar archive does.
    #[error("it is not a tar archive")]
    NotTar,
    /// There is no header where one has to be.
    #[error("there is no header of a tar archive at byte {at}")]
    NotAHeader {
        /// Where.
        at: u64,
    },
    /// A header that readers understand differently.
    #[error("the header at byte {at} has {what}")]
    Ambiguous {
        /// Where.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A number in a header that is none.
    #[error("the header at byte {at} has a {field} that is {why}")]
    Number {
        /// Where.
        at: u64,
        /// Which number.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A member is larger than any layer.
    #[error("`{path}` is said to have {size} bytes, more than the {limit} that larder takes")]
    TooLarge {
        /// The member.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The size in the header and the size in the extension before it are different.
    #[error("`{path}` is said to have {header} bytes and {extension} bytes")]
    TwoSizes {
        /// The member.
        path: String,
        /// The size in its header.
        header: u64,
        /// The size in the extension.
        extension: u64,
    },
    /// A member that is no file, folder or link.
    #[error("`{path}` is {kind}, which has no place in an archive of images")]
    Special {
        /// The member.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A member of a kind that larder does not know.
    #[error("`{path}` is of the unknown kind `{}`", flag.escape_ascii())]
    UnknownKind {
        /// The member.
        path: String,
        /// The letter for its kind.
        flag: u8,
    },
    /// Something that has no content has a size.
    #[error("`{path}` is {kind} and is said to have {size} bytes")]
    ContentOfNothing {
        /// The member.
        path: String,
        /// What it is.
        kind: &'static str,
        /// The size that is said.
        size: u64,
    },
    /// An extension of the next header that is not as the standard has it, comes twice, or belongs to no member.
    #[error("the extension at byte {at} {what}")]
    Extension {
        /// Where.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A name that is not text, or that no plain file has.
    #[error("the name of a member, `{path}`, {why}")]
    Name {
        /// The name, as far as it is text.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More members than any archive of images has.
    #[error("it has more than {limit} members")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// It ends before its end.
    #[error("it ends at byte {at}, before its end")]
    Truncated {
        /// Where.
        at: u64,
    },
    /// Something stands behind its end.
    #[error("something stands behind its end, at byte {at}")]
    Trailing {
        /// Where.
        at: u64,
    },
}

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name, as it is written.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A link, and where it points to as seen from its own folder.
    Symlink(String),
    /// A link to a member that came before.
    Hardlink(String),
}

/// Reads an archive.
pub(super) struct Tar<R> {
    from: R,
    at: u64,
    /// How much of the present member's content was not read yet.
    left: u64,
    members: usize,
    ended: bool,
}

/// What an extension says of the member behind it.
#[derive(Default)]
struct Extension {
    at: u64,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    /// Whether it is one of the standard's; GNU's have one header for each name.
    pax: bool,
}

impl<R: Read> Tar<R> {
    pub(super) fn new(from: R) -> Tar<R> {
        Tar { from, at: 0, left: 0, members: 0, ended: false }
    }

    /// The next member; `None` when all that follows is the end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, TarError> {
        self.skip()?;
        let mut extension: Option<Extension> = None;
        while let Some((at, header)) = self.header()? {
            match header.flag {
                b'x' => extension = Some(self.pax(at, &header, extension)?),
                b'L' | b'K' => extension = Some(self.long_name(at, &header, extension)?),
                b'g' => return Err(TarError::Extension { at, what: "is for all members behind it, which not all readers heed" }),
                _ => {
                    self.members += 1;
                    if self.members > MEMBERS {
                        return Err(TarError::TooMany { limit: MEMBERS });
                    }
                    let member = member(header, extension.unwrap_or_default())?;
                    self.left = member.size;
                    return Ok(Some(member));
                }
            }
        }
        match extension {
            Some(Extension { at, .. }) => Err(TarError::Extension { at, what: "belongs to no member" }),
            None => Ok(None),
        }
    }

    /// The present member's content. Where the archive ends before it does, the error carries a [`TarError`].
    pub(super) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// The next header and where it begins; `None` at the end.
    fn header(&mut self) -> Result<Option<(u64, Header)>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.at;
        let block = self.block()?;
        if block.iter().any(|b| *b != 0) {
            return Header::parse(&block, at).map(|header| Some((at, header)));
        }
        if at == 0 {
            return Err(TarError::NotTar);
        }
        if self.block()?.iter().any(|b| *b != 0) {
            return Err(TarError::Trailing { at: self.at - BLOCK as u64 });
        }
        self.end()?;
        self.ended = true;
        Ok(None)
    }

    /// Reads what fills the archive up, to the very end.
    fn end(&mut self) -> Result<(), TarError> {
        let (end, mut some) = (self.at, vec![0; 64 << 10]);
        loop {
            let n = read(&mut self.from, &mut some).map_err(|source| TarError::Read { source })?;
            if n == 0 {
                return Ok(());
            }
            if let Some(i) = some[..n].iter().position(|b| *b != 0) {
                return Err(TarError::Trailing { at: self.at + i as u64 });
            }
            self.at += n as u64;
            if self.at - end > FILLING {
                return Err(TarError::Trailing { at: end });
            }
        }
    }

    fn pax(&mut self, at: u64, header: &Header, before: Option<Extension>) -> Result<Extension, TarError> {
        if before.is_some() {
            return Err(TarError::Extension { at, what: "comes after another one for the same member" });
        }
        let records = self.extension(at, header)?;
        Extension::of_records(at, &records).map_err(|what| TarError::Extension { at, what })
    }

    fn long_name(&mut self, at: u64, header: &Header, before: Option<Extension>) -> Result<Extension, TarError> {
        let mut name = self.extension(at, header)?;
        // GNU tar ends it with a NUL, others do not.
        name.pop_if(|b| *b == 0);
        let failed = |what| Err(TarError::Extension { at, what });
        if name.is_empty() || name.contains(&0) {
            return failed("has no name, or more than one");
        }
        let extension = before.unwrap_or(Extension { at, ..Extension::default() });
        match (header.flag, &extension) {
            (_, Extension { pax: true, .. }) => failed("comes after another one for the same member"),
            (b'L', Extension { path: None, .. }) => Ok(Extension { path: Some(name), ..extension }),
            (b'K', Extension { target: None, .. }) => Ok(Extension { target: Some(name), ..extension }),
            _ => failed("comes twice for one member"),
        }
    }

    fn extension(&mut self, at: u64, header: &Header) -> Result<Vec<u8>, TarError> {
        if header.size > EXTENSION_LIMIT {
            return Err(TarError::Extension { at, what: "is longer than any" });
        }
        self.left = header.size;
        let mut content = Vec::new();
        self.content().read_to_end(&mut content).map_err(of_content)?;
        self.skip()?;
        Ok(content)
    }

    /// Passes over what is left of a member, up to the next header.
    fn skip(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.content(), &mut io::sink()).map_err(of_content)?;
        let filling = (BLOCK as u64 - self.at % BLOCK as u64) % BLOCK as u64;
        let mut some = [0; BLOCK];
        self.exactly(&mut some[..filling as usize])
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let mut block = [0; BLOCK];
        self.exactly(&mut block)?;
        Ok(block)
    }

    fn exactly(&mut self, mut into: &mut [u8]) -> Result<(), TarError> {
        while !into.is_empty() {
            let n = read(&mut self.from, into).map_err(|source| TarError::Read { source })?;
            if n == 0 {
                // Too little for one header.
                return Err(if self.at < BLOCK as u64 { TarError::NotTar } else { TarError::Truncated { at: self.at } });
            }
            self.at += n as u64;
            into = &mut into[n..];
        }
        Ok(())
    }
}

/// What a member contains.
pub(super) struct Content<'a, R>(&'a mut Tar<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let tar = &mut *self.0;
        let most = usize::try_from(tar.left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let n = read(&mut tar.from, &mut into[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Truncated { at: tar.at }));
        }
        tar.at += n as u64;
        tar.left -= n as u64;
        Ok(n)
    }
}

/// Why a member's content could not be read.
pub(super) fn of_content(error: io::Error) -> TarError {
    match error.downcast::<TarError>() {
        Ok(error) => error,
        Err(source) => TarError::Read { source },
    }
}

fn read(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(into) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Extension {
    /// Reads records of the form `<length> <key>=<value>\n`.
    fn of_records(at: u64, mut records: &[u8]) -> Result<Extension, &'static str> {
        let mut values: HashMap<&[u8], &[u8]> = HashMap::new();
        while !records.is_empty() {
            let (record, rest) = split_record(records).ok_or("has a record that is not as the standard has it")?;
            let eq = record.iter().position(|b| *b == b'=').ok_or("has a record without a key")?;
            let (key, value) = (&record[..eq], &record[eq + 1..]);
            // GNU's, star's and Solaris' ways to say it.
            if key.starts_with(b"GNU.sparse.") || [&b"SCHILY.realsize"[..], b"SUN.holesdata"].contains(&key) {
                return Err("describes a sparse file");
            }
            if key == b"hdrcharset" {
                return Err("says that names are not text");
            }
            if values.insert(key, value).is_some() {
                return Err("has the same key twice");
            }
            records = rest;
        }
        let text = |key: &str| match values.get(key.as_bytes()) {
            Some(value) if value.is_empty() || value.contains(&0) => Err("has no name, or more than one"),
            value => Ok(value.map(|value| value.to_vec())),
        };
        let size = values.get(&b"size"[..]).map(|digits| decimal(digits).ok_or("has a size that is no number"));
        Ok(Extension { at, path: text("path")?, target: text("linkpath")?, size: size.transpose()?, pax: true })
    }
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = records.iter().position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&records[..blank])?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    Some((record, rest))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    // Digits alone: `parse` would take a sign.
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

fn member(header: Header, extension: Extension) -> Result<Member, TarError> {
    let path = text(extension.path.unwrap_or(header.name))?;
    let size = match extension.size {
        // What does not fit into the header is said by the extension alone.
        Some(size) if size >= FITS && header.size == 0 => size,
        Some(size) if size != header.size => {
            return Err(TarError::TwoSizes { path, header: header.size, extension: size });
        }
        _ => header.size,
    };
    if size > SIZE_LIMIT {
        return Err(TarError::TooLarge { path, size, limit: SIZE_LIMIT });
    }
    let special = |path, kind| Err(TarError::Special { path, kind });
    let target = extension.target.unwrap_or(header.target);
    let (kind, words) = match header.flag {
        b'0' | 0 if path.ends_with('/') => return special(path, "a file with the name of a folder"),
        b'0' | 0 => return Ok(Member { path, kind: Kind::File, size }),
        b'1' => (Kind::Hardlink(text(target)?), "a link"),
        b'2' => (Kind::Symlink(text(target)?), "a link"),
        b'5' => (Kind::Folder, "a folder"),
        b'3' | b'4' => return special(path, "a device"),
        b'6' => return special(path, "a pipe"),
        b'S' => return special(path, "a sparse file"),
        flag => return Err(TarError::UnknownKind { path, flag }),
    };
    match size {
        0 => Ok(Member { path, kind, size }),
        size => Err(TarError::ContentOfNothing { path, kind: words, size }),
    }
}

/// A name as text, without what would confuse a terminal or a reader that ends it at a NUL.
fn text(name: Vec<u8>) -> Result<String, TarError> {
    let bad = |path: &str, why| TarError::Name { path: path.chars().take(200).flat_map(char::escape_debug).collect(), why };
    match String::from_utf8(name) {
        Ok(name) if name.is_empty() => Err(bad(&name, "is empty")),
        Ok(name) if name.len() as u64 > NAME_LIMIT => Err(bad(&name, "is longer than any")),
        Ok(name) if name.chars().any(char::is_control) => Err(bad(&name, "has control characters")),
        Ok(name) => Ok(name),
        Err(error) => Err(bad(&String::from_utf8_lossy(error.as_bytes()), "is not text in UTF-8")),
    }
}

#[cfg(test)]
mod real;
