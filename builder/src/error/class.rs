//! What kind of trouble a failure is, if a registry or another server has to do with it: told by the first thing in its chain of
//! causes that has.

use std::error::Error;

use rbuild_registry::{ErrorClass, FetchError, RegistryError};

use crate::front_ends::FrontEndFailed;

/// The kind of a failure; `None` for one that no server has to do with.
#[must_use]
pub fn class_of(error: &(dyn Error + 'static)) -> Option<ErrorClass> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(class) = own(error) {
            return Some(class);
        }
        cause = error.source();
    }
    None
}

fn own(error: &(dyn Error + 'static)) -> Option<ErrorClass> {
    if let Some(error) = error.downcast_ref::<RegistryError>() {
        return Some(error.class());
    }
    if let Some(error) = error.downcast_ref::<Box<RegistryError>>() {
        return Some(error.class());
    }
    if let Some(error) = error.downcast_ref::<FrontEndFailed>() {
        return error.class;
    }
    match error.downcast_ref::<FetchError>()? {
        FetchError::Status(refusal) => Some(match refusal.status.as_u16() {
            401 | 403 => ErrorClass::Auth,
            404 | 410 => ErrorClass::NotFound,
            _ => ErrorClass::Server,
        }),
        FetchError::TooLarge { .. } => Some(ErrorClass::Content),
        FetchError::TooSlow { .. } => Some(ErrorClass::Network),
        FetchError::Sink { .. } => None,
        FetchError::Transport(error) => Some(error.class()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Box<RegistryError>);

    #[test]
    fn the_first_cause_that_a_server_has_to_do_with_counts() {
        let offline = || RegistryError::Offline { what: "a".to_owned() };
        assert_eq!(class_of(&Outer(Box::new(offline()))), Some(ErrorClass::Network));
        assert_eq!(class_of(&FetchError::from(offline())), Some(ErrorClass::Network));
        let local = RegistryError::Blocked {
            reference: "a".to_owned(),
            file: "f".to_owned(),
        };
        assert_eq!(class_of(&local), Some(ErrorClass::Local));
        assert_eq!(class_of(&std::io::Error::other("x")), None);
    }
}
