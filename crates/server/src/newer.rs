//! What BuildKit has added to `Solve` since the generated messages were made (`api/services/control/control.proto`,
//! `solver/pb/ops.proto`): limits of single operations, the proxy that a build's steps go through, and the version that results are
//! to be compatible with. Those two calls are decoded here, twice from the same bytes; the service behind finds what is new in the extensions of its request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as gateway;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use prost::Message;
use rbuild_llb::wire::LinuxResources;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::bridge::Bridge;
use crate::control::ControlService;
use crate::serve::MESSAGE_BYTES_MAX;

/// What is new in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Newer {
    /// What operations may use, by their digests.
    pub resources: BTreeMap<String, LinuxResources>,
    /// Steps reach the network through a proxy of the build only.
    pub proxy_network: bool,
    /// The version of BuildKit's results that is asked for; 0 is today's.
    pub compatibility_version: i64,
}

/// A definition's limits.
#[derive(Clone, PartialEq, Message)]
struct Limited {
    #[prost(btree_map = "string, message", tag = "2")]
    metadata: BTreeMap<String, OpLimits>,
}

/// `pb.OpMetadata` with nothing but what is new.
#[derive(Clone, PartialEq, Message)]
struct OpLimits {
    #[prost(message, optional, tag = "7")]
    linux_resources: Option<LinuxResources>,
}

/// What is new in `control.SolveRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OfControl {
    #[prost(message, optional, tag = "2")]
    definition: Option<Limited>,
    #[prost(btree_map = "string, message", tag = "10")]
    inputs: BTreeMap<String, Limited>,
    #[prost(int64, tag = "16")]
    compatibility_version: i64,
    #[prost(bool, tag = "17")]
    proxy_network: bool,
}

/// What is new in the gateway's `SolveRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OfGateway {
    #[prost(message, optional, tag = "1")]
    definition: Option<Limited>,
    #[prost(btree_map = "string, message", tag = "13")]
    inputs: BTreeMap<String, Limited>,
}

fn resources(
    definition: Option<Limited>,
    inputs: BTreeMap<String, Limited>,
) -> BTreeMap<String, LinuxResources> {
    let all = definition.into_iter().chain(inputs.into_values());
    let metadata = all.flat_map(|limited| limited.metadata);
    metadata
        .filter_map(|(digest, limits)| Some((digest, limits.linux_resources?)))
        .collect()
}

impl Newer {
    /// What is new in an encoded definition.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub(crate) fn of_definition(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let definition = Limited::decode(bytes)?;
        Ok(Self {
            resources: resources(Some(definition), BTreeMap::new()),
            ..Self::default()
        })
    }
}

impl From<OfControl> for Newer {
    fn from(request: OfControl) -> Self {
        Self {
            resources: resources(request.definition, request.inputs),
            proxy_network: request.proxy_network,
            compatibility_version: request.compatibility_version,
        }
    }
}

impl From<OfGateway> for Newer {
    fn from(request: OfGateway) -> Self {
        Self {
            resources: resources(request.definition, request.inputs),
            ..Self::default()
        }
    }
}

/// A service whose `Solve` is decoded here.
#[derive(Debug, Clone)]
pub(crate) struct WithNewer<S, C> {
    /// The generated service, for all other calls.
    inner: S,
    calls: C,
}

impl<S, C> WithNewer<S, C> {
    /// `inner` for everything but what `calls` has.
    pub(crate) const fn new(inner: S, calls: C) -> Self {
        Self { inner, calls }
    }
}

impl<S: NamedService, C> NamedService for WithNewer<S, C> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// A call with new fields.
pub(crate) trait Solves: Clone + Send + Sync + 'static {
    /// Path of the call.
    const PATH: &'static str;
    /// What is new in its request.
    type New: Message + Default + Into<Newer>;
    /// Its request.
    type Request: Message + Default + 'static;
    /// Its answer.
    type Response: Message + 'static;

    /// Answers it.
    fn solve(
        self,
        request: Request<Self::Request>,
    ) -> impl Future<Output = Result<Response<Self::Response>, Status>> + Send;
}

impl Solves for ControlService {
    const PATH: &'static str = "/moby.buildkit.v1.Control/Solve";
    type New = OfControl;
    type Request = control::SolveRequest;
    type Response = control::SolveResponse;

    async fn solve(
        self,
        request: Request<control::SolveRequest>,
    ) -> Result<Response<control::SolveResponse>, Status> {
        Control::solve(&self, request).await
    }
}

impl Solves for Bridge {
    const PATH: &'static str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";
    type New = OfGateway;
    type Request = gateway::SolveRequest;
    type Response = gateway::SolveResponse;

    async fn solve(
        self,
        request: Request<gateway::SolveRequest>,
    ) -> Result<Response<gateway::SolveResponse>, Status> {
        LlbBridge::solve(&self, request).await
    }
}

impl<S, C: Solves> Service<http::Request<Body>> for WithNewer<S, C>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        if request.uri().path() != C::PATH {
            return Box::pin(self.inner.call(request));
        }
        let calls = self.calls.clone();
        Box::pin(async move {
            let codec = NewerCodec::<C>(PhantomData);
            let mut grpc = Grpc::new(codec)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.unary(Solve(calls), request).await)
        })
    }
}

/// A request, and what is new in it.
struct Extended<T> {
    message: T,
    newer: Newer,
}

struct Solve<C>(C);

impl<C: Solves> UnaryService<Extended<C::Request>> for Solve<C> {
    type Response = C::Response;
    type Future = Pin<Box<dyn Future<Output = Result<Response<C::Response>, Status>> + Send>>;

    fn call(&mut self, request: Request<Extended<C::Request>>) -> Self::Future {
        let (metadata, mut extensions, Extended { message, newer }) = request.into_parts();
        extensions.insert(newer);
        let request = Request::from_parts(metadata, extensions, message);
        Box::pin(self.0.clone().solve(request))
    }
}

struct NewerCodec<C>(PhantomData<C>);

impl<C: Solves> Codec for NewerCodec<C> {
    type Encode = C::Response;
    type Decode = Extended<C::Request>;
    type Encoder = ProstEncoder<C::Response>;
    type Decoder = NewerDecoder<C>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<C::Response, C::Request>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        NewerDecoder(PhantomData)
    }
}

struct NewerDecoder<C>(PhantomData<C>);

impl<C: Solves> Decoder for NewerDecoder<C> {
    type Item = Extended<C::Request>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        use prost::bytes::Buf as _;
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        // As tonic says it of every other call.
        let broken = |error: prost::DecodeError| Status::internal(error.to_string());
        let new = C::New::decode(bytes.clone()).map_err(broken)?;
        let message = C::Request::decode(bytes).map_err(broken)?;
        Ok(Some(Extended {
            message,
            newer: new.into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(digest: &str, memory: i64) -> Limited {
        let limits = OpLimits {
            linux_resources: Some(LinuxResources {
                memory,
                ..LinuxResources::default()
            }),
        };
        Limited {
            metadata: [
                (digest.to_owned(), limits),
                ("sha256:none".to_owned(), OpLimits::default()),
            ]
            .into(),
        }
    }

    #[test]
    fn limits_of_all_definitions_of_a_request_are_found() {
        let of_control = OfControl {
            definition: Some(limited("sha256:a", 1)),
            inputs: [("in".to_owned(), limited("sha256:b", 2))].into(),
            proxy_network: true,
            compatibility_version: 20,
        };
        let newer = Newer::from(OfControl::decode(of_control.encode_to_vec().as_slice()).unwrap());
        let found: Vec<_> = newer
            .resources
            .iter()
            .map(|(digest, limits)| (digest.as_str(), limits.memory))
            .collect();
        assert_eq!(found, [("sha256:a", 1), ("sha256:b", 2)]);
        assert_eq!((newer.proxy_network, newer.compatibility_version), (true, 20));
        // The old message has its own fields from the same bytes.
        let old = control::SolveRequest::decode(of_control.encode_to_vec().as_slice()).unwrap();
        assert_eq!(old.definition.unwrap().metadata.len(), 2);
    }
}
