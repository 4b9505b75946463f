//! Images on their way into files.

use std::io::ErrorKind;

use larder::archive::ArchiveError;
use larder::export::ExportError;

use super::{Exit, Failure};
use crate::cli::display;

impl From<&ExportError> for Failure {
    fn from(error: &ExportError) -> Failure {
        let message = error.to_string();
        let usage = |code| Failure::new(Exit::Usage, code, message.clone());
        match error {
            ExportError::NotInStore { reference, offered, .. } => {
                let failure = Failure::new(Exit::NotThere, "not-in-store", message);
                let offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
                let failure = if offered.is_empty() { failure } else { failure.with("there is", offered.join(", ")) };
                failure.hint(format!("run `larder pull {reference}` first, with --platform if it is for another machine"))
            }
            ExportError::Archive(source) => match &**source {
                ArchiveError::Artifact { .. } => usage("artifact").hint("write it with --format oci or --format layout"),
                ArchiveError::NameTwice { .. } => usage("name-twice").hint("write them into a file each"),
                other => Failure::from(other),
            },
            ExportError::Store(source) => Failure::from(source),
            ExportError::IsAFolder { .. } => usage("is-a-folder").hint("name a file, or write a folder with --format layout"),
            ExportError::NotALayout { .. } => {
                usage("not-a-layout").hint("name an empty folder, an image layout, or one that does not exist yet")
            }
            ExportError::IsAStore { .. } => usage("is-a-store").hint("it is an image layout already; other tools can read it as it is"),
            ExportError::Busy { .. } => Failure::new(Exit::Failed, "busy", message).hint("wait until it is done, and run it again"),
            ExportError::NoSpace { path, needed, free } => {
                let failure = Failure::new(Exit::Failed, "no-space", message);
                let failure = needed.iter().fold(failure, |failure, needed| failure.with("needed", display::size(*needed)));
                let failure = failure.with("free", display::size(*free));
                failure.with("at", path.display()).hint("make room, or write it elsewhere; nothing is left of what was written")
            }
            ExportError::File { path, source, .. } if source.kind() == ErrorKind::NotFound => {
                let failure = Failure::new(Exit::Failed, "no-folder", message).because(error);
                failure.hint(format!("make the folder {} first", path.parent().unwrap_or(path).display()))
            }
            _ => Failure::new(Exit::Failed, "export", message).because(error),
        }
    }
}
