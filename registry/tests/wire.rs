//! The client against registries on this machine: the test registry, and Debian's `docker-registry` as a peer.

#[cfg(test)]
mod wire {
    mod auth;
    mod cut;
    mod elsewhere;
    mod fetch;
    mod hostile;
    mod peculiar;
    mod peer;
    mod pull;
    mod push;
    mod referrers;
    mod setup;
    mod tls;
    mod tokens;
}
