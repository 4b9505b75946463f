//! The store.

use std::path::Path;

use larder::import::donor::DonorError;
use larder::store::{StoreError, Whereabouts};

use super::{Exit, Failure, PULL_IT, sized};
use crate::cli::display;

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Failure {
        let message = error.to_string();
        let failed = |code| Failure::new(Exit::Failed, code, message.clone());
        match error {
            StoreError::NewerFormat { .. } => {
                failed("newer-format").hint("use the larder that made it, or a newer one, or another folder with --store")
            }
            StoreError::NotAStore { .. } => {
                failed("not-a-store").hint("name an empty folder, or one that does not exist yet, with --store")
            }
            StoreError::Unsafe { path, .. } => failed("unsafe-store").hint(format!("run `chmod o-w {}`", path.display())),
            StoreError::ReadOnly { source, .. } => failed("read-only").with("it said", source),
            StoreError::NoSpace { path, needed, free } => Failure::new(Exit::Failed, "no-space", "no space left for the store")
                .with("needed", display::size(*needed))
                .with("free", display::size(*free))
                .with("at", path.display())
                .hint("make room, or keep the store elsewhere with --store; what came is kept, and the next run continues it"),
            StoreError::Locked { .. } => failed("locked").hint("wait until it is done and run it again, or wait longer with --lock-timeout; a process that hangs can be ended without harm"),
            StoreError::Missing { .. } => Failure::new(Exit::NotThere, "missing", message).hint(format!("{PULL_IT} brings it again")),
            StoreError::Damaged { found, now } => {
                let again = format!("{PULL_IT} brings it again");
                let failure = Failure::new(Exit::NotPinned, "damaged", message)
                    .with("expected", sized(&found.expected, found.expected_size))
                    .with("found", sized(&found.found, found.found_size));
                match now {
                    Whereabouts::Aside(path) => failure.with("moved to", path.display()).hint(again),
                    Whereabouts::InPlace(path) => {
                        failure.with("still at", path.display()).hint(format!("{again}, once the store can be written"))
                    }
                }
            }
            StoreError::WrongSize { .. } | StoreError::Mismatch { .. } | StoreError::TooLong { .. } => {
                Failure::new(Exit::NotPinned, "mismatch", message)
            }
            StoreError::PinDamaged { path, expected, found } => {
                failed("bad-pin").with("expected", expected).with("found", found).hint(pin_again(path))
            }
            StoreError::Pin { path, .. } | StoreError::PinTooLarge { path, .. } | StoreError::PinMisplaced { path, .. } => {
                failed("bad-pin").because(error).hint(pin_again(path))
            }
            StoreError::Foreign { path, .. } => {
                failed("foreign").hint(format!("move {} away; larder did not put it there", path.display()))
            }
            _ => failed("store").because(error),
        }
    }
}

impl From<&DonorError> for Failure {
    fn from(error: &DonorError) -> Failure {
        let failed = |code| Failure::new(Exit::Failed, code, error.to_string());
        match error {
            DonorError::Read { source, .. } => failed("unreadable").with("it said", source),
            DonorError::Tar { source, .. } => failed("not-an-archive").with("because", source),
            DonorError::Bzip2 { path } => {
                failed("compressed").hint(format!("decompress it first, and name the result instead of {}", path.display()))
            }
            DonorError::Store(source) => Failure::from(source),
        }
    }
}

fn pin_again(path: &Path) -> String {
    format!("`larder verify --repair` moves {} away and pins that image again", path.display())
}
