//! What the operations of a build may use, as its client said it. The definitions that go to a front end and come back have
//! no room for that: a build remembers it by the digest of the operation, which is the same in all of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bollard_buildkit_proto::pb;
use rbuild_llb::wire::{self, LinuxResources};
use rbuild_llb::{Decoded, Limits, LlbError, decode};
use tonic::Status;

/// Most operations of one build with limits of their own: as many as a definition may have.
const LIMITED_MAX: usize = 50_000;

/// The limits of a build's operations.
#[derive(Debug, Default)]
pub struct Resources(Mutex<BTreeMap<String, LinuxResources>>);

impl Resources {
    /// Remembers more of them; what is known of an operation stays.
    ///
    /// # Errors
    /// `resource_exhausted` when there are too many.
    pub fn add(&self, more: BTreeMap<String, LinuxResources>) -> Result<(), Status> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (digest, limits) in more {
            if known.len() >= LIMITED_MAX && !known.contains_key(&digest) {
                return Err(Status::resource_exhausted(format!(
                    "more than {LIMITED_MAX} operations with limits in one build"
                )));
            }
            known.entry(digest).or_insert(limits);
        }
        Ok(())
    }

    /// Reads a definition, with what is known of its operations.
    ///
    /// # Errors
    /// [`LlbError`].
    pub fn decode(&self, definition: &pb::Definition) -> Result<Decoded, LlbError> {
        let mut definition = wire::Definition::from(definition);
        {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (digest, metadata) in &mut definition.metadata {
                metadata.linux_resources = known.get(digest).cloned();
            }
        }
        decode(&definition, &Limits::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: i64) -> LinuxResources {
        LinuxResources {
            memory,
            ..LinuxResources::default()
        }
    }

    #[test]
    fn what_is_known_first_stays() {
        let resources = Resources::default();
        resources.add([("a".to_owned(), limits(1))].into()).unwrap();
        resources
            .add([("a".to_owned(), limits(2)), ("b".to_owned(), limits(3))].into())
            .unwrap();
        let known = resources.0.lock().unwrap();
        assert_eq!(
            known.values().map(|limits| limits.memory).collect::<Vec<_>>(),
            [1, 3]
        );
    }

    #[test]
    fn row48_too_many_limits_are_refused() {
        let resources = Resources::default();
        let many = (0..LIMITED_MAX).map(|number| (number.to_string(), limits(1)));
        resources.add(many.collect()).unwrap();
        resources.add([("0".to_owned(), limits(2))].into()).unwrap();
        let status = resources
            .add([("one more".to_owned(), limits(1))].into())
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }
}
