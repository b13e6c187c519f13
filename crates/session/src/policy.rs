//! A source policy that the client decides, source by source (`sourcepolicy/policysession`).

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use bollard_buildkit_proto::pb;
use tonic::metadata::MetadataMap;

use crate::call::{ANSWER_TIMEOUT, CallError};
use crate::session::Session;

const METHOD: &str = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";

/// A source the client is to decide on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckPolicyRequest {
    /// The platform it is for.
    #[prost(message, optional, tag = "1")]
    pub platform: Option<pb::Platform>,
    /// What is known of it.
    #[prost(message, optional, tag = "2")]
    pub source: Option<ResolveSourceMetaResponse>,
    /// What this side can do.
    #[prost(map = "string, bool", tag = "3")]
    pub caps: HashMap<String, bool>,
}

/// The client's decision, or what it has to know first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckPolicyResponse {
    /// Which of both.
    #[prost(oneof = "PolicyAnswer", tags = "1, 2")]
    pub result: Option<PolicyAnswer>,
}

/// One of a decision and a question.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum PolicyAnswer {
    /// The decision.
    #[prost(message, tag = "1")]
    Decision(Decision),
    /// More is to be found out about the source, and then asked again.
    #[prost(message, boxed, tag = "2")]
    Request(Box<ResolveSourceMetaRequest>),
}

/// What becomes of a source.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Decision {
    /// A `moby.buildkit.v1.sourcepolicy.PolicyAction`: 0 allow, 1 deny, 2 convert.
    #[prost(int32, tag = "1")]
    pub action: i32,
    /// Why it is denied.
    #[prost(message, repeated, tag = "2")]
    pub deny_messages: Vec<DenyMessage>,
    /// What to use in its place.
    #[prost(message, optional, tag = "3")]
    pub update: Option<pb::SourceOp>,
}

/// One reason.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DenyMessage {
    /// For people.
    #[prost(string, tag = "1")]
    pub message: String,
}

impl Session {
    /// Lets the client decide on a source. How often it may ask back is the caller's to limit.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn check_policy(&self, question: CheckPolicyRequest) -> Result<CheckPolicyResponse, CallError> {
        self.ask(METHOD, question, MetadataMap::new(), Some(ANSWER_TIMEOUT))
            .await
    }
}
