//! `Control/Info` with what has been added to its answer since the generated messages were made (`api/types/worker.proto`):
//! the version of the Dockerfile front end. Everything else is the service's.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_buildkit_proto::moby::buildkit::v1::InfoRequest;
use bollard_buildkit_proto::moby::buildkit::v1::types::BuildkitVersion;
use prost::Message;
use rbuild_builder::provenance::predicate::DOCKERFILE_VERSION;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::core::version;

/// Path of the call.
const PATH: &str = "/moby.buildkit.v1.Control/Info";

/// A service that answers one call itself.
#[derive(Debug, Clone)]
pub struct WithInfo<S>(pub S);

impl<S: NamedService> NamedService for WithInfo<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for WithInfo<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        if request.uri().path() == PATH {
            return Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::<InfoResponse, InfoRequest>::default());
                Ok(grpc.unary(Info, request).await)
            });
        }
        Box::pin(self.0.call(request))
    }
}

/// `InfoResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    version: Option<Version>,
}

/// `BuildkitVersion`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Version {
    #[prost(string, tag = "1")]
    package: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, tag = "3")]
    revision: String,
    #[prost(string, tag = "4")]
    dockerfile_version: String,
}

struct Info;

impl UnaryService<InfoRequest> for Info {
    type Response = InfoResponse;
    type Future = Ready<Result<Response<InfoResponse>, Status>>;

    fn call(&mut self, _: Request<InfoRequest>) -> Self::Future {
        let BuildkitVersion {
            package,
            version,
            revision,
        } = version();
        std::future::ready(Ok(Response::new(InfoResponse {
            version: Some(Version {
                package,
                version,
                revision,
                dockerfile_version: DOCKERFILE_VERSION.to_owned(),
            }),
        })))
    }
}
