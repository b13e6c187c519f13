//! Whole flows between the server's side and a client of our own, over the tunnel a real client uses.

mod calls;
mod exports;
mod hostile;
mod lifetime;
mod setting;
mod sync;
