//! Single blobs out of a file that holds images: an OCI layout in a folder, or a tar archive whose members are named after digests, compressed
//! as a whole or not.
//!
//! Always true: a blob is looked for by the digest in its name and taken by what it hashes to, the same way into the store as a download;
//! nothing else in the file is read or believed. One pass, whatever the size.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::tar::{Kind, Tar, TarError};
use super::wrap;
use crate::digest::{Algorithm, Digest};
use crate::oci::Descriptor;
use crate::store::{Store, StoreError};

/// Blobs could not be taken from a file.
#[derive(Debug, thiserror::Error)]
pub enum DonorError {
    /// The file cannot be read.
    #[error("{path} cannot be read as an OCI layout or tar archive", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a tar archive that every reader would read alike.
    #[error("{path} cannot be read as an OCI layout or tar archive", path = path.display())]
    Tar {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TarError,
    },
    /// The file is compressed in a way that larder does not unpack.
    #[error("{path} is compressed with bzip2 as a whole", path = path.display())]
    Bzip2 {
        /// The file.
        path: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Brings those of the wanted blobs into the store that the file has, and returns them. A blob that the file has damaged is passed over.
pub fn take(store: &Store, from: &Path, wanted: &[Descriptor]) -> Result<Vec<Descriptor>, DonorError> {
    let failed = |source| DonorError::Read { path: from.to_owned(), source };
    let mut taken = Vec::new();
    if from.is_dir() {
        for blob in wanted {
            let path = from.join(blob.digest.path());
            match File::open(&path).and_then(|file| Ok((file.metadata()?, file))) {
                Ok((found, mut file)) if found.is_file() && found.len() == blob.size => {
                    taken.extend(bring(store, blob, &mut file, &failed)?);
                }
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
                _ => {}
            }
        }
        return Ok(taken);
    }
    let file = File::open(from).map_err(failed)?;
    let bzip2 = || DonorError::Bzip2 { path: from.to_owned() };
    let mut archive = Tar::new(wrap::unwrapped(Box::new(file)).map_err(failed)?.ok_or_else(bzip2)?);
    let wanted: HashMap<Digest, &Descriptor> = wanted.iter().map(|blob| (blob.digest, blob)).collect();
    while let Some(member) = archive.next().map_err(|source| DonorError::Tar { path: from.to_owned(), source })? {
        if let Some(blob) = digest_in(&member.path).and_then(|digest| wanted.get(&digest))
            && member.kind == Kind::File
            && member.size == blob.size
        {
            taken.extend(bring(store, blob, &mut archive.content(), &failed)?);
        }
    }
    Ok(taken)
}

/// Takes one blob in; nothing if it is not what its name says.
fn bring(
    store: &Store,
    blob: &Descriptor,
    from: &mut impl Read,
    failed: &impl Fn(io::Error) -> DonorError,
) -> Result<Option<Descriptor>, DonorError> {
    let Some(mut ingest) = store.ingest(blob)? else { return Ok(Some(blob.clone())) };
    ingest.restart()?;
    wrap::in_steps(from, failed, |step| Ok(ingest.write(step)?))?;
    match ingest.commit() {
        Ok(()) => Ok(Some(blob.clone())),
        Err(StoreError::Mismatch { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// The digest in the name of a member: `blobs/sha256/<hex>`, `blobs/sha512/<hex>`, `<hex>.tar.gz`, `<hex>.json`, `sha256:<hex>`.
fn digest_in(path: &str) -> Option<Digest> {
    if let Some((_, hex)) = path.rsplit_once("blobs/sha512/") {
        return Digest::with_hex(Algorithm::Sha512, hex).ok();
    }
    let name = path.rsplit('/').next()?;
    let hex = name.strip_prefix("sha256:").unwrap_or(name).get(..64)?;
    Digest::from_hex(hex).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: &[u8]) -> Descriptor {
        Descriptor { media_type: String::new(), digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn blobs_are_found_by_name_and_taken_by_digest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let [one, two, three, flipped, absent] = [&b"one"[..], b"two", b"three", b"right", b"absent"].map(blob);
        let name = |blob: &Descriptor, before: &str, behind: &str| format!("{before}{}{behind}", blob.digest.hex());
        let members = [
            (name(&one, "blobs/sha256/", ""), &b"one"[..]),
            (name(&two, "", ".tar.gz"), b"two"),
            (name(&three, "sha256:", ""), b"three"),
            (name(&flipped, "blobs/sha256/", ""), b"wrong"),
            ("blobs/sha256/short".to_owned(), b"absent"),
        ];
        let members: Vec<_> = members.iter().map(|(name, content)| (name.as_str(), *content)).collect();
        let (file, packed) = (folder.path().join("images.tar"), folder.path().join("images.tar.zst"));
        std::fs::write(&file, archive(&members)).unwrap();
        std::fs::write(&packed, zstd::encode_all(&archive(&members)[..], 3).unwrap()).unwrap();
        let wanted = [one.clone(), two.clone(), three.clone(), flipped.clone(), absent];
        // What an earlier run left does not matter.
        store.ingest(&one).unwrap().unwrap().write(b"x").unwrap();
        assert_eq!(take(&store, &file, &wanted).unwrap(), [one.clone(), two, three]);
        assert_eq!(take(&Store::open(folder.path().join("third")).unwrap(), &packed, &wanted).unwrap().len(), 3);
        assert!(!store.has(&flipped));
        assert_eq!(take(&Store::open(folder.path().join("other")).unwrap(), store.root(), &wanted).unwrap().len(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let file = folder.path().join("file");
        let take = || take(&store, &file, &[blob(b"one")]);
        assert!(matches!(take(), Err(DonorError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound));
        std::fs::write(&file, b"BZh91AY&SY and so on").unwrap();
        assert!(matches!(take(), Err(DonorError::Bzip2 { path }) if path == file));
        std::fs::write(&file, b"\x1f\x8b\x08 and so on").unwrap();
        assert!(matches!(take(), Err(DonorError::Tar { .. })));
        let mut cut = archive(&[(&Digest::of(b"one").hex(), b"one")]);
        cut.truncate(513);
        std::fs::write(&file, cut).unwrap();
        assert!(matches!(take(), Err(DonorError::Read { .. })));
        assert!(!store.has(&blob(b"one")));
    }
}
