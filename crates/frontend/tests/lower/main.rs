//! Dockerfiles and the graphs, configs and histories that BuildKit makes of them.

#[cfg(test)]
mod advice;
#[cfg(test)]
mod any;
#[cfg(test)]
mod args;
#[cfg(test)]
mod bases;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod compared;
#[cfg(test)]
mod config;
#[cfg(test)]
mod copy;
#[cfg(test)]
mod dump;
#[cfg(test)]
mod epoch;
mod errors;
#[cfg(test)]
mod fake;
mod growth;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod lint;
#[cfg(test)]
mod onbuild;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod rule_pages;
#[cfg(test)]
mod run;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod subrequests;
