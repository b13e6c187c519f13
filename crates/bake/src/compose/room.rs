//! How much compose files may become. Aliases, variables, `.env` files and `extends` copy what stands once, so what they make is
//! counted: of all files together, in bytes, about.

use std::cell::Cell;

/// Most bytes that the values of all files take, as [`super::yaml::Node::weight`] counts them.
const BYTES_MAX: usize = 64 << 20;

/// What is left.
#[derive(Debug)]
pub(super) struct Room(Cell<usize>);

impl Default for Room {
    fn default() -> Self {
        Self(Cell::new(BYTES_MAX))
    }
}

impl Room {
    /// Takes so many bytes of it.
    ///
    /// # Errors
    /// There are not so many left.
    pub(super) fn take(&self, bytes: usize) -> Result<(), String> {
        let left = self.0.get().checked_sub(bytes);
        self.0
            .set(left.ok_or("the values of the files take more than there is room for")?);
        Ok(())
    }

    /// What is left now, for [`Room::go_back`].
    pub(super) const fn left(&self) -> usize {
        self.0.get()
    }

    /// Gives back what was taken since so much was left.
    pub(super) fn go_back(&self, left: usize) {
        self.0.set(left);
    }
}
