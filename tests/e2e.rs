//! Promises about the program as a whole. What all of them use is [`fixture`].

mod attestations;
mod bad_input;
mod behaviours;
mod cache;
mod cache_keys;
mod cache_transfer;
mod daemon;
mod docker_engine;
mod drop_in;
mod engine_load;
mod exit_codes;
mod failed_step;
mod fixture;
mod hostile;
mod images;
mod imagetools;
mod killed;
mod ladder;
mod limits;
mod manual;
mod migration;
mod mounts;
mod network;
mod outputs;
mod platforms;
mod printed;
mod registry;
mod remote;
mod rootless;
mod rows;
mod run;
mod secrets;
mod start_check;
mod store;

pub(crate) use fixture::{RBUILD, ordinary_user};
