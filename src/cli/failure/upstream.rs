//! Registries, and the way to them.

use larder::upstream::UpstreamError;

use super::{Exit, Failure};

impl From<&UpstreamError> for Failure {
    fn from(error: &UpstreamError) -> Failure {
        Failure::new(Exit::Registry, "registry", error.to_string()).because(error)
    }
}
