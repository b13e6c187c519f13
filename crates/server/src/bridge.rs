//! The gateway (`moby.buildkit.v1.frontend.LLBBridge`): what a front end asks of its build. Of one that runs in a client
//! the metadata of each call say which build is meant (`control/gateway`); one that is an image has a service of its own.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::{LlbBridge, LlbBridgeServer};
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
use rbuild_llb::{BUILD_ID, decode_platform};
use tonic::{Request, Response, Status, Streaming};

use crate::answer::{Answer, BuildRef, Refs};
use crate::core::Core;
use crate::errors;
use crate::forwarder::Forwarder;
use crate::front_end::{self, Asked};
use crate::newer::{Newer, WithNewer};
use crate::read_ref::Files;
use crate::running::Running;
use crate::serve::MESSAGE_BYTES_MAX;
use crate::{attest, cache, caps, container, failed, meta, policy, read_ref};

/// Resolve mode of an image that the registry is asked for in any case.
const PULL: &str = "pull";

/// The service.
#[derive(Debug, Clone)]
pub struct Bridge {
    core: Arc<Core>,
    caller: Option<Caller>,
}

/// A front end of a build.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The build.
    pub(crate) running: Arc<Running>,
    /// What the front end holds of it.
    pub(crate) forwarder: Arc<Forwarder>,
}

impl Bridge {
    /// For front ends in clients.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self { core, caller: None }
    }

    /// For one front end.
    pub(crate) const fn of(core: Arc<Core>, caller: Caller) -> Self {
        Self {
            core,
            caller: Some(caller),
        }
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(caller) = &self.caller {
            return Ok(caller.clone());
        }
        let id = request.metadata().get(BUILD_ID).and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("no buildid found in context"))?;
        let running = self.core.builds.get(id).await;
        let running = running.map_err(|error| errors::builds_status(&error))?;
        Ok(Caller {
            forwarder: Arc::clone(&running.forwarder),
            running,
        })
    }
}

impl Caller {
    async fn files(&self, id: &str) -> Result<Files, Status> {
        let found = self.forwarder.find(id)?;
        if let Some(found) = &found {
            let built = found.value(&self.running.job, &self.running.cancel).await;
            built.map_err(|error| failed::status(&self.forwarder, &error))?;
        }
        let tree = read_ref::tree(&self.running, found.as_deref()).await?;
        Ok(Files::Tree(tree))
    }
}

/// The service of a bridge.
pub(crate) fn service(bridge: Bridge) -> WithNewer<LlbBridgeServer<Bridge>, Bridge> {
    let generated = LlbBridgeServer::new(bridge.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    WithNewer::new(generated, bridge)
}

/// The proto form of an answer, its file systems kept by the build.
fn to_proto(forwarder: &Forwarder, answer: &Answer) -> Result<GatewayResult, Status> {
    let one = |found: Option<&Arc<BuildRef>>| -> Result<Ref, Status> {
        let Some(found) = found else {
            return Ok(Ref::default());
        };
        let mut def = found.definition().cloned();
        def.iter_mut().for_each(rbuild_llb::sendable);
        Ok(Ref {
            id: forwarder.keep(found)?,
            def,
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
        attestations: attest::to_proto(answer, one)?,
        result: Some(result),
    })
}

/// What a client returns, as the build has it.
fn from_proto(forwarder: &Forwarder, returned: GatewayResult) -> Result<Answer, Status> {
    let refs = match returned.result {
        None => Refs::One(None),
        Some(result::Result::Ref(one)) => Refs::One(forwarder.find(&one.id)?),
        Some(result::Result::RefDeprecated(id)) => Refs::One(forwarder.find(&id)?),
        Some(result::Result::Refs(map)) => {
            let mut many = BTreeMap::new();
            for (key, one) in map.refs {
                many.insert(key, forwarder.find(&one.id)?);
            }
            Refs::Many(many)
        }
        Some(result::Result::RefsDeprecated(map)) => {
            let mut many = BTreeMap::new();
            for (key, id) in map.refs {
                many.insert(key, forwarder.find(&id)?);
            }
            Refs::Many(many)
        }
    };
    Ok(Answer {
        refs,
        metadata: returned.metadata.into_iter().collect(),
        attestations: attest::from_proto(forwarder, returned.attestations)?,
    })
}

#[tonic::async_trait]
impl LlbBridge for Bridge {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.caller(&request).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps::gateway(),
            llb_caps: caps::definition(),
            workers: vec![self.core.worker()],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let Caller { running, forwarder } = self.caller(&request).await?;
        let (_, mut extensions, request) = request.into_parts();
        let newer: Newer = extensions.remove().unwrap_or_default();
        running.resources.add(newer.resources)?;
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
        let answer = front_end::answer(&self.core, &running, &forwarder, asked).await?;
        if request.evaluate {
            for (_, found) in answer.all() {
                if let Some(found) = found {
                    let built = found.value(&running.job, &running.cancel).await;
                    built.map_err(|error| failed::status(&forwarder, &error))?;
                }
            }
        }
        Ok(Response::new(SolveResponse {
            r#ref: String::new(),
            result: Some(to_proto(&forwarder, &answer)?),
        }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let Caller { forwarder, .. } = self.caller(&request).await?;
        let request = request.into_inner();
        let returned = match (request.error, request.result) {
            (Some(error), _) => Err(errors::from_proto(error)),
            (None, Some(result)) => from_proto(&forwarder, result),
            (None, None) => Ok(Answer::empty()),
        };
        forwarder.take_return(returned)?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        let Caller { forwarder, .. } = self.caller(&request).await?;
        Ok(Response::new(InputsResponse {
            definitions: forwarder.inputs.clone(),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let Caller { running, forwarder } = self.caller(&request).await?;
        if let Some(found) = forwarder.find(&request.into_inner().r#ref)? {
            let built = found.value(&running.job, &running.cancel).await;
            built.map_err(|error| failed::status(&forwarder, &error))?;
        }
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let files = caller.files(&request.r#ref).await?;
        let range = request.range.map(|range| (range.offset, range.length));
        let data = read_ref::file(files, request.file_path, range).await?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let files = caller.files(&request.r#ref).await?;
        let entries = read_ref::dir(files, request.dir_path, request.include_pattern).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let files = caller.files(&request.r#ref).await?;
        let stat = read_ref::stat(files, request.path).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        let Caller { running, forwarder } = self.caller(&request).await?;
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
        let (source, meta) = meta::resolve(&running, &forwarder.scope, asked).await?;
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
        let Caller { running, forwarder } = self.caller(&request).await?;
        let request = request.into_inner();
        let asked = meta::Asked::of(request)?;
        let (source, found) = meta::resolve(&running, &forwarder.scope, asked).await?;
        Ok(Response::new(meta::response(&source, found)))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let Caller { running, .. } = self.caller(&request).await?;
        meta::warn(&running, request.into_inner())?;
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(
        &self,
        request: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        let Caller { running, forwarder } = self.caller(&request).await?;
        container::create(&running, &forwarder, request.into_inner()).await?;
        Ok(Response::new(NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        let Caller { forwarder, .. } = self.caller(&request).await?;
        let id = request.into_inner().container_id;
        forwarder.containers.release(&id).await?;
        Ok(Response::new(ReleaseContainerResponse {}))
    }

    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        request: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let Caller { forwarder, .. } = self.caller(&request).await?;
        let answers = container::exec::serve(forwarder, request.into_inner());
        let stream = futures_util::stream::unfold(answers, |mut answers| async move {
            answers.recv().await.map(|answer| (answer, answers))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn read_file_container(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let Caller { forwarder, .. } = self.caller(&request).await?;
        let request = request.into_inner();
        let root = forwarder.containers.files(&request.r#ref, request.mount_index)?;
        let range = request.range.map(|range| (range.offset, range.length));
        let data = read_ref::file(Files::Root(root), request.file_path, range).await?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir_container(
        &self,
        request: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        let Caller { forwarder, .. } = self.caller(&request).await?;
        let request = request.into_inner();
        let root = forwarder.containers.files(&request.r#ref, request.mount_index)?;
        let entries = read_ref::dir(Files::Root(root), request.dir_path, request.include_pattern).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file_container(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let Caller { forwarder, .. } = self.caller(&request).await?;
        let request = request.into_inner();
        let root = forwarder.containers.files(&request.r#ref, request.mount_index)?;
        let stat = read_ref::stat(Files::Root(root), request.path).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }
}
