//! One limit on all text that a Dockerfile makes out of variables: names, histories, environments. Each expansion has
//! its own limit, but a million of them in one file must not fill the memory either.

use crate::error::{FrontendError, FrontendErrorKind};

/// Bytes that all expansions of one build may make.
pub(crate) const TEXT_BYTES_MAX: usize = 32 << 20;

#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: TEXT_BYTES_MAX }
    }
}

impl Budget {
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), FrontendError> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or(FrontendErrorKind::TooMuchText)?;
        Ok(())
    }
}
