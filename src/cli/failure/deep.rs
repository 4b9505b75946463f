//! Damage inside engines.

use larder::deep::DeepError;
use larder::examine::{ExamineError, LayerError};

use super::{Exit, Failure};
use crate::cli::deep;

impl From<&DeepError> for Failure {
    fn from(error: &DeepError) -> Failure {
        let message = error.to_string();
        match error {
            DeepError::Ensure(source) => Failure::from(source),
            DeepError::Layer(source) => Failure::from(source),
            DeepError::InUse { obstacles, .. } => {
                let failure = Failure::new(Exit::Engine, "in-use", message);
                let failure = deep::obstacles(obstacles).into_iter().fold(failure, |failure, (label, names)| failure.with(label, names));
                failure.hint("remove these first and run it again; nothing was changed")
            }
            DeepError::Kept { engine, folders, .. } => {
                let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
                Failure::new(Exit::Engine, "kept", message)
                    .with("still there", folders.join("\n"))
                    .hint(format!("restart {engine}, which forgets them then, and run it again; the image is whole in the store"))
            }
            DeepError::Damaged { damage, .. } => Failure::new(Exit::NotPinned, "damaged", message)
                .with("found", deep::damage(damage, damage.iter().map(|d| d.place + 1).max().unwrap_or(0)))
                .hint("see whether its disk is sound"),
        }
    }
}

impl From<&LayerError> for Failure {
    fn from(error: &LayerError) -> Failure {
        let message = error.to_string();
        match error {
            LayerError::Store(source) => Failure::from(source),
            LayerError::Examine { source: ExamineError::Folder { .. }, .. } => {
                Failure::new(Exit::Engine, "unreadable", message).because(error).hint("run it as root")
            }
            _ => Failure::new(Exit::Failed, "layer", message).because(error),
        }
    }
}
