//! The gateway (`moby.buildkit.v1.frontend.LLBBridge`): what a front end that runs in the client asks of its build.
//! Which build is meant stands in the metadata of each call (`control/gateway`).

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse, NewContainerRequest,
    NewContainerResponse, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, Ref, RefMap, ReleaseContainerRequest, ReleaseContainerResponse,
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse, Result as GatewayResult, ReturnRequest, ReturnResponse, SolveRequest,
    SolveResponse, StatFileRequest, StatFileResponse, WarnRequest, WarnResponse, result,
};
use futures_util::Stream;
use rbuild_builder::source_meta::MetaQuestion;
use rbuild_fileops::SourceTree;
use rbuild_llb::decode_platform;
use tonic::{Request, Response, Status, Streaming};

use crate::answer::{Answer, BuildRef, Refs};
use crate::core::Core;
use crate::errors::{self, build_status};
use crate::front_end::{self, Asked};
use crate::running::Running;
use crate::{cache, caps, meta, policy, read_ref};

/// Metadata key that names the build of a call.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// Resolve mode of an image that the registry is asked for in any case.
const PULL: &str = "pull";

/// The service.
#[derive(Debug, Clone)]
pub struct Bridge(pub Arc<Core>);

impl Bridge {
    async fn running<T>(&self, request: &Request<T>) -> Result<Arc<Running>, Status> {
        let id = request.metadata().get(BUILD_ID).and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("no buildid found in context"))?;
        self.0
            .builds
            .get(id)
            .await
            .map_err(|error| errors::builds_status(&error))
    }

    async fn tree(&self, running: &Running, id: &str) -> Result<Arc<SourceTree>, Status> {
        let found = running.find(id)?;
        read_ref::tree(running, found.as_deref()).await
    }
}

/// The proto form of an answer, its file systems kept by the build.
fn to_proto(running: &Running, answer: &Answer) -> Result<GatewayResult, Status> {
    let one = |found: Option<&Arc<BuildRef>>| -> Result<Ref, Status> {
        let Some(found) = found else {
            return Ok(Ref::default());
        };
        Ok(Ref {
            id: running.keep(found)?,
            def: found.definition().cloned(),
        })
    };
    let result = match &answer.refs {
        Refs::One(found) => result::Result::Ref(one(found.as_ref())?),
        Refs::Many(many) => {
            let mut refs = HashMap::new();
            for (key, found) in many {
                refs.insert(key.clone(), one(found.as_ref())?);
            }
            result::Result::Refs(RefMap { refs })
        }
    };
    Ok(GatewayResult {
        metadata: answer.metadata.clone().into_iter().collect(),
        attestations: HashMap::new(),
        result: Some(result),
    })
}

/// What a client returns, as the build has it.
fn from_proto(running: &Running, returned: GatewayResult) -> Result<Answer, Status> {
    let refs = match returned.result {
        None => Refs::One(None),
        Some(result::Result::Ref(one)) => Refs::One(running.find(&one.id)?),
        Some(result::Result::RefDeprecated(id)) => Refs::One(running.find(&id)?),
        Some(result::Result::Refs(map)) => {
            let mut many = BTreeMap::new();
            for (key, one) in map.refs {
                many.insert(key, running.find(&one.id)?);
            }
            Refs::Many(many)
        }
        Some(result::Result::RefsDeprecated(map)) => {
            let mut many = BTreeMap::new();
            for (key, id) in map.refs {
                many.insert(key, running.find(&id)?);
            }
            Refs::Many(many)
        }
    };
    Ok(Answer {
        refs,
        metadata: returned.metadata.into_iter().collect(),
    })
}

#[tonic::async_trait]
impl LlbBridge for Bridge {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.running(&request).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps::gateway(),
            llb_caps: caps::definition(),
            workers: vec![self.0.worker()],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let running = self.running(&request).await?;
        let request = request.into_inner();
        let imports: Vec<CacheOptionsEntry> = request
            .cache_imports
            .into_iter()
            .map(|entry| CacheOptionsEntry {
                r#type: entry.r#type,
                attrs: entry.attrs,
            })
            .collect();
        let asked = Asked {
            definition: request.definition,
            frontend: request.frontend,
            attrs: request.frontend_opt.into_iter().collect(),
            inputs: request.frontend_inputs.into_iter().collect(),
            policies: policy::read(request.source_policies)?,
        };
        cache::import(&running.job, &imports, &asked.attrs).await?;
        let answer = front_end::answer(&self.0, &running, asked).await?;
        if request.evaluate {
            for (_, found) in answer.all() {
                if let Some(found) = found {
                    let built = found.value(&running.job, &running.cancel).await;
                    built.map_err(|error| build_status(&error))?;
                }
            }
        }
        Ok(Response::new(SolveResponse {
            r#ref: String::new(),
            result: Some(to_proto(&running, &answer)?),
        }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let running = self.running(&request).await?;
        let request = request.into_inner();
        let returned = match (request.error, request.result) {
            (Some(error), _) => Err(errors::from_proto(error)),
            (None, Some(result)) => from_proto(&running, result),
            (None, None) => Ok(Answer::empty()),
        };
        running.take_return(returned);
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        let running = self.running(&request).await?;
        Ok(Response::new(InputsResponse {
            definitions: running.inputs.clone(),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let running = self.running(&request).await?;
        if let Some(found) = running.find(&request.into_inner().r#ref)? {
            let built = found.value(&running.job, &running.cancel).await;
            built.map_err(|error| build_status(&error))?;
        }
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let running = self.running(&request).await?;
        let request = request.into_inner();
        let tree = self.tree(&running, &request.r#ref).await?;
        let range = request.range.map(|range| (range.offset, range.length));
        let data = read_ref::file(tree, request.file_path, range).await?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        let running = self.running(&request).await?;
        let request = request.into_inner();
        let tree = self.tree(&running, &request.r#ref).await?;
        let entries = read_ref::dir(tree, request.dir_path, request.include_pattern).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let running = self.running(&request).await?;
        let request = request.into_inner();
        let tree = self.tree(&running, &request.r#ref).await?;
        let stat = read_ref::stat(tree, request.path).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        let running = self.running(&request).await?;
        let request = request.into_inner();
        let asked = meta::Asked {
            source: meta::image_source(&request.r#ref)?,
            question: MetaQuestion {
                platform: request.platform.as_ref().map(decode_platform),
                pull: request.resolve_mode == PULL,
                log_name: request.log_name,
                ..MetaQuestion::default()
            },
            policies: policy::read(request.source_policies)?,
        };
        let (source, meta) = meta::resolve(&running, asked).await?;
        let Some(image) = meta.image else {
            return Err(meta::not_an_image(&request.r#ref, &source));
        };
        Ok(Response::new(ResolveImageConfigResponse {
            digest: image.digest.to_string(),
            config: image.config,
            r#ref: meta::reference(&source).to_owned(),
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        let running = self.running(&request).await?;
        let asked = meta::Asked::of(request.into_inner())?;
        let (source, meta) = meta::resolve(&running, asked).await?;
        Ok(Response::new(meta::response(&source, meta)))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let running = self.running(&request).await?;
        meta::warn(&running, request.into_inner())?;
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(
        &self,
        _: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        Err(containers_missing())
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        Err(containers_missing())
    }

    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        _: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        Err(containers_missing())
    }

    async fn read_file_container(
        &self,
        _: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        Err(containers_missing())
    }

    async fn read_dir_container(
        &self,
        _: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        Err(containers_missing())
    }

    async fn stat_file_container(
        &self,
        _: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        Err(containers_missing())
    }
}

fn containers_missing() -> Status {
    Status::unimplemented("containers of the gateway are not supported yet")
}
