//! Policies that a client decides by itself, source by source, over its session (`solver/llbsolver/policy.go`). What it
//! answers is checked: it may ask about the source in question only.

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::PolicyAction;
use rbuild_builder::client::{SourceAnswer, SourceQuestion};
use rbuild_llb::encode_platform;
use rbuild_session::policy::{CheckPolicyRequest, PolicyAnswer};
use rbuild_session::{CallError, Session};
use tonic::Status;

use crate::meta;

/// Most reasons that are kept of a refusal, and most bytes of one.
const MESSAGES_MAX: usize = 100;
const MESSAGE_BYTES_MAX: usize = 4096;

/// Why a client did not decide.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The call failed, or the client answered with an error.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Neither a decision nor a question.
    #[error("no decision in policy response")]
    NoAnswer,
    /// It wants another source, and does not say which.
    #[error("convert action requires updated source")]
    NoUpdate,
    /// It asks about another source.
    #[error("policy requested different source identifier: {asked:?} != {source_name:?}")]
    OtherSource {
        /// What it asks about.
        asked: String,
        /// What it was asked about.
        source_name: String,
    },
    /// It asks about the source with other attributes.
    #[error("policy requested different source attrs")]
    OtherAttrs,
    /// It asks what is not found out here.
    #[error("{}", .0.message())]
    Question(Status),
}

/// Lets the client of `session` decide.
///
/// # Errors
/// [`AskError`].
pub async fn ask(session: &Session, question: SourceQuestion<'_>) -> Result<SourceAnswer, AskError> {
    let known = question.known.cloned().unwrap_or_default();
    let request = CheckPolicyRequest {
        platform: question.platform.map(encode_platform),
        source: Some(meta::response(question.source, known)),
        caps: std::collections::HashMap::new(),
    };
    let answer = session.check_policy(request).await?;
    match answer.result.ok_or(AskError::NoAnswer)? {
        PolicyAnswer::Request(request) => {
            let asked = request.source.clone().map(meta::own_source);
            let asked = asked.ok_or(AskError::NoAnswer)?;
            if asked.identifier != question.source.identifier {
                return Err(AskError::OtherSource {
                    asked: asked.identifier,
                    source_name: question.source.identifier.clone(),
                });
            }
            if asked.attrs != question.source.attrs {
                return Err(AskError::OtherAttrs);
            }
            meta::question(&request)
                .map(SourceAnswer::Ask)
                .map_err(AskError::Question)
        }
        PolicyAnswer::Decision(decision) => match PolicyAction::try_from(decision.action) {
            Ok(PolicyAction::Allow) => Ok(SourceAnswer::Allow),
            Ok(PolicyAction::Convert) => {
                let update = decision.update.ok_or(AskError::NoUpdate)?;
                Ok(SourceAnswer::Convert(meta::own_source(update)))
            }
            action => {
                let messages = decision.deny_messages.into_iter().take(MESSAGES_MAX);
                Ok(SourceAnswer::Deny {
                    action: match action {
                        Ok(_) => "DENY".to_owned(),
                        Err(_) => decision.action.to_string(),
                    },
                    messages: messages.map(|message| shortened(message.message)).collect(),
                })
            }
        },
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    text
}
