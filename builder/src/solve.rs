//! The solver: decides for every vertex of a graph whether it must run, and runs what must, as parallel as the edges
//! allow. It knows no containers and no files: all work is done by an [`Executor`], and it only sees keys and values.
//!
//! One task for each reachable vertex. A task waits for the keys of its inputs, makes its own key, asks the cache, and
//! sleeps on a miss until something demands its value. So keys flow forward through the whole graph, demand flows
//! backward from the targets, and nothing runs that no target needs. Keys have three levels, as BuildKit's have
//! (`docs/dev/solver.md`): by definition, by selector, by content. Content is read only when the definition misses.

mod executor;
mod key;
mod report;
mod scheduler;
mod shared;

pub use executor::{Cached, ContentInput, Definition, Executor, KeyInput, Miss};
pub(crate) use key::first_difference;
pub use key::{Ingredient, Key, KeyBuilder};
pub use report::{CANCELED, Reporter};
pub use scheduler::{SolveError, solve};
pub use shared::SharedVertex;
