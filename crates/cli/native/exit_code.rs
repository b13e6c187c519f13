//! Which exit code an error of the engine is: that of the first thing in its chain of causes that a registry or another
//! server has to do with.

use std::error::Error;

use rbuild_registry::{ErrorClass, FetchError, RegistryError};
use rbuild_ui::diagnostic::ExitCode;

/// The code of an error.
pub(super) fn of(error: &(dyn Error + 'static)) -> ExitCode {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = own(error) {
            return code;
        }
        cause = error.source();
    }
    ExitCode::Failure
}

fn own(error: &(dyn Error + 'static)) -> Option<ExitCode> {
    if let Some(error) = error.downcast_ref::<RegistryError>() {
        return Some(of_class(error.class()));
    }
    if let Some(error) = error.downcast_ref::<Box<RegistryError>>() {
        return Some(of_class(error.class()));
    }
    match error.downcast_ref::<FetchError>()? {
        FetchError::Status(refusal) => Some(match refusal.status.as_u16() {
            401 | 403 => ExitCode::Authorization,
            404 | 410 => ExitCode::NotFound,
            _ => ExitCode::Server,
        }),
        FetchError::TooLarge { .. } => Some(ExitCode::Content),
        FetchError::TooSlow { .. } => Some(ExitCode::Network),
        FetchError::Sink { .. } => None,
        FetchError::Transport(error) => Some(of_class(error.class())),
    }
}

const fn of_class(class: ErrorClass) -> ExitCode {
    match class {
        ErrorClass::Network => ExitCode::Network,
        ErrorClass::Auth => ExitCode::Authorization,
        ErrorClass::NotFound => ExitCode::NotFound,
        ErrorClass::Server => ExitCode::Server,
        ErrorClass::Content => ExitCode::Content,
        ErrorClass::Local => ExitCode::Failure,
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
        assert_eq!(of(&Outer(Box::new(offline()))), ExitCode::Network);
        assert_eq!(of(&FetchError::from(offline())), ExitCode::Network);
        let local = RegistryError::Blocked {
            reference: "a".to_owned(),
            file: "f".to_owned(),
        };
        assert_eq!(of(&local), ExitCode::Failure);
        assert_eq!(of(&std::io::Error::other("x")), ExitCode::Failure);
    }
}
