//! Mounts
