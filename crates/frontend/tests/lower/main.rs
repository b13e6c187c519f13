//! Dockerfiles and the graphs, configs and histories that BuildKit makes of them.

mod args;
mod bases;
mod config;
mod copy;
mod dump;
mod errors;
mod fake;
mod limits;
mod lint;
mod onbuild;
mod run;
