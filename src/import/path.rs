//! The names of an archive's members, and which member each of them leads to.
//!
//! Always true: no two members have one name, whichever way it is written; no name leads out of the archive, and none leads through a link
//! but at its end, and there through one only. Nothing here is ever a name on the disk.

use std::collections::{HashMap, HashSet};

/// The members by their names.
#[derive(Debug)]
pub(super) struct Names<T> {
    files: HashMap<String, Place<T>>,
    folders: HashSet<String>,
}

#[derive(Debug)]
enum Place<T> {
    File(T),
    Link(String),
}

/// A name, or what it leads to, is not one that every reader would understand alike.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A name that does not lead to a member.
    #[error("the name `{path}` {why}")]
    Unsafe {
        /// The name.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two members have one name.
    #[error("`{path}` stands twice in the archive")]
    Twice {
        /// The name.
        path: String,
    },
    /// A member lies in something that is no folder.
    #[error("`{path}` is a folder and something else in the archive")]
    NotAFolder {
        /// The folder.
        path: String,
    },
    /// A link leads out of the archive.
    #[error("the link `{path}` leads out of the archive, to `{target}`")]
    LeadsOut {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A link leads to a link.
    #[error("the link `{path}` leads to another link, `{target}`")]
    LinkToLink {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A link leads nowhere, or before its target to something that is not there yet.
    #[error("the link `{path}` leads to `{target}`, which is not there")]
    Dangling {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A link that would stand in for a digest's blob.
    #[error("`{path}` is named after a digest and is a link")]
    LinkForBlob {
        /// The link.
        path: String,
    },
}

impl<T> Names<T> {
    pub(super) fn new() -> Names<T> {
        Names { files: HashMap::new(), folders: HashSet::new() }
    }

    /// Checks that a file or link may have this name, and gives the name in its plain form.
    pub(super) fn admit(&mut self, path: &str) -> Result<String, PathError> {
        let path = plain(path)?;
        if self.files.contains_key(&path) {
            return Err(PathError::Twice { path });
        }
        if self.folders.contains(&path) {
            return Err(PathError::NotAFolder { path });
        }
        self.folders_above(&path)?;
        Ok(path)
    }

    /// Adds a file whose name was admitted.
    pub(super) fn add(&mut self, path: String, file: T) {
        self.files.insert(path, Place::File(file));
    }

    pub(super) fn add_folder(&mut self, path: &str) -> Result<(), PathError> {
        if path.trim_matches(['/', '.']).is_empty() && !path.starts_with('/') && !path.contains("..") {
            return Ok(());
        }
        let path = plain(path.trim_end_matches('/'))?;
        if self.files.contains_key(&path) {
            return Err(PathError::NotAFolder { path });
        }
        self.folders_above(&path)?;
        self.folders.insert(path);
        Ok(())
    }

    /// Adds a link; `target` is seen from its own folder.
    pub(super) fn add_symlink(&mut self, path: &str, target: &str) -> Result<(), PathError> {
        let path = self.admit(path)?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = inside(folder, target).ok_or_else(|| PathError::LeadsOut { path: path.clone(), target: target.to_owned() })?;
        self.link(path, target)
    }

    /// Adds a link to a file that came before; `target` is seen from the top of the archive.
    pub(super) fn add_hardlink(&mut self, path: &str, target: &str) -> Result<(), PathError> {
        let path = self.admit(path)?;
        let target = inside("", target).ok_or_else(|| PathError::LeadsOut { path: path.clone(), target: target.to_owned() })?;
        match self.files.get(&target) {
            None => Err(PathError::Dangling { path, target }),
            Some(_) => self.link(path, target),
        }
    }

    fn link(&mut self, path: String, target: String) -> Result<(), PathError> {
        // Who looks for the blob of a digest is to find that blob.
        if path.starts_with("blobs/") {
            return Err(PathError::LinkForBlob { path });
        }
        self.files.insert(path, Place::Link(target));
        Ok(())
    }

    /// Checks that every link leads to a file.
    pub(super) fn settle(&self) -> Result<(), PathError> {
        for (path, place) in &self.files {
            let Place::Link(target) = place else { continue };
            let (path, target) = (path.clone(), target.clone());
            match self.files.get(&target) {
                Some(Place::File(_)) => {}
                Some(Place::Link(_)) => return Err(PathError::LinkToLink { path, target }),
                None => return Err(PathError::Dangling { path, target }),
            }
        }
        Ok(())
    }

    /// The file that a name leads to, through one link at most.
    pub(super) fn find(&self, path: &str) -> Result<Option<&T>, PathError> {
        let path = plain(path)?;
        Ok(match self.files.get(&path) {
            Some(Place::File(file)) => Some(file),
            Some(Place::Link(target)) => match self.files.get(target) {
                Some(Place::File(file)) => Some(file),
                _ => None,
            },
            None => None,
        })
    }

    fn folders_above(&mut self, path: &str) -> Result<(), PathError> {
        let mut above = path;
        while let Some((folder, _)) = above.rsplit_once('/') {
            if self.files.contains_key(folder) {
                return Err(PathError::NotAFolder { path: folder.to_owned() });
            }
            if !self.folders.insert(folder.to_owned()) {
                break;
            }
            above = folder;
        }
        Ok(())
    }
}

/// A name without what does not count in it: `./a//b` is `a/b`.
pub(super) fn plain(path: &str) -> Result<String, PathError> {
    let unsafe_for = |why| PathError::Unsafe { path: path.chars().take(200).flat_map(char::escape_debug).collect(), why };
    if path.starts_with('/') {
        return Err(unsafe_for("begins at the root of the file system"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(unsafe_for("climbs out of its folder"));
    }
    if parts.is_empty() || path.ends_with('/') {
        return Err(unsafe_for("is none of a file"));
    }
    Ok(parts.join("/"))
}

/// Where a link in this folder leads; nothing if that is not in the archive.
fn inside(folder: &str, target: &str) -> Option<String> {
    if target.is_empty() || target.starts_with('/') || target.ends_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Names<()> {
        let mut names = Names::new();
        for file in files {
            let path = names.admit(file).unwrap();
            names.add(path, ());
        }
        names
    }

    #[test]
    fn one_name_is_one_member_however_it_is_written() {
        for (first, second) in [("x", "x"), ("x", "./x"), ("a/b", "a//b"), ("a/./b", "a/b"), ("././/x", "x")] {
            assert!(matches!(names(&[first]).admit(second), Err(PathError::Twice { .. })), "{first} {second}");
        }
        for bad in ["/x", "../x", "a/../x", "..", ".", "", "a/", "./"] {
            assert!(matches!(names(&[]).admit(bad), Err(PathError::Unsafe { .. })), "{bad}");
        }
        assert!(matches!(names(&["a"]).admit("a/b"), Err(PathError::NotAFolder { .. })));
        assert!(matches!(names(&["a/b"]).admit("a"), Err(PathError::NotAFolder { .. })));
        assert!(names(&["a/b"]).add_folder("a/").is_ok() && names(&[]).add_folder("./").is_ok());
        assert!(names(&["a"]).add_folder("a/").is_err() && names(&[]).add_folder("../").is_err() && names(&[]).add_folder("/").is_err());
    }

    #[test]
    fn links_lead_to_one_member_of_the_same_archive() {
        let mut good = names(&["one/layer.tar"]);
        good.add_symlink("two/layer.tar", "../one/layer.tar").unwrap();
        good.add_hardlink("three.tar", "one/layer.tar").unwrap();
        good.settle().unwrap();
        assert!(good.find("./two/layer.tar").unwrap().is_some() && good.find("three.tar").unwrap().is_some());
        assert!(good.find("four").unwrap().is_none());
        for out in ["/etc/passwd", "../../x", "..", "../..", "x/", ""] {
            assert!(matches!(names(&[]).add_symlink("a/b", out), Err(PathError::LeadsOut { .. })), "{out}");
        }
        assert!(matches!(names(&[]).add_hardlink("a", "b"), Err(PathError::Dangling { .. })));
        assert!(matches!(names(&[]).add_symlink("blobs/sha256/a", "b"), Err(PathError::LinkForBlob { .. })));
        let mut chain = names(&["a"]);
        chain.add_symlink("b", "a").unwrap();
        chain.add_symlink("c", "b").unwrap();
        assert!(matches!(chain.settle(), Err(PathError::LinkToLink { .. })));
        let mut cycle = names(&[]);
        cycle.add_symlink("a", "b").unwrap();
        assert!(matches!(cycle.settle(), Err(PathError::Dangling { .. })));
        cycle.add_symlink("b", "a").unwrap();
        assert!(matches!(cycle.settle(), Err(PathError::LinkToLink { .. })));
    }
}
