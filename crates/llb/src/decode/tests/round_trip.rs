//! Graphs that are written and read again are the same graphs.
