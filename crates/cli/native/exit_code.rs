//! Which exit code an error of the engine is: that of the kind of trouble that a registry or another server made.

use std::error::Error;

use rbuild_builder::error::class_of;
use rbuild_registry::ErrorClass;
use rbuild_ui::diagnostic::ExitCode;

/// The code of an error.
pub(super) fn of(error: &(dyn Error + 'static)) -> ExitCode {
    match class_of(error) {
        Some(ErrorClass::Network) => ExitCode::Network,
        Some(ErrorClass::Auth) => ExitCode::Authorization,
        Some(ErrorClass::NotFound) => ExitCode::NotFound,
        Some(ErrorClass::Server) => ExitCode::Server,
        Some(ErrorClass::Content) => ExitCode::Content,
        Some(ErrorClass::Local) | None => ExitCode::Failure,
    }
}
