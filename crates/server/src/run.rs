//! One call of Solve: from the request to the exporters' response.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, SolveResponse};
use rbuild_builder::error::chain_text;
use rbuild_builder::job::{Job, Settings};
use rbuild_builder::request::{CacheExport, CacheTarget, Entitlement, StepRules};
use rbuild_builder::source_policy::SourcePolicies;
use rbuild_llb::request::{Devices, EntitlementError, Entitlements, check_compatibility_version, modernize};
use rbuild_registry::{Client as RegistryClient, Credentials, USER_AGENT};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::attest::Wanted;
use crate::client::{SessionClient, SessionCredentials};
use crate::core::Core;
use crate::events::EventLog;
use crate::forwarder::{Forwarder, Returned};
use crate::front_end::{self, Asked};
use crate::history::Exported;
use crate::newer::Newer;
use crate::running::Running;
use crate::scope::Scope;
use crate::{attest, cache, errors, export, policy, session_export, verify};

/// Builds what `request` asks for. When the caller goes away, so that the future is dropped, the build is stopped.
///
/// # Errors
/// The build's, as BuildKit words it.
pub async fn solve(
    core: &Arc<Core>,
    mut request: SolveRequest,
    newer: Newer,
) -> Result<SolveResponse, Status> {
    if request.r#ref.is_empty() {
        return Err(Status::invalid_argument("a build needs a ref"));
    }
    modernize(&mut request);
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let core = Arc::clone(core);
    // A task of its own: what has begun winds down in order even when nobody waits for it any more.
    let task = tokio::spawn(async move { recorded(&core, request, newer, cancel).await });
    task.await
        .map_err(|error| Status::internal(format!("the build ended without a result: {error}")))?
}

async fn recorded(
    core: &Arc<Core>,
    request: SolveRequest,
    newer: Newer,
    cancel: CancellationToken,
) -> Result<SolveResponse, Status> {
    let begun = begin(core, &request, newer, cancel);
    let Begun {
        running,
        returned,
        outputs,
    } = begun.inspect_err(|_| core.builds.refuse(&request.r#ref))?;
    let events = Arc::clone(&running.events);
    let listed = core
        .builds
        .add(Arc::clone(&running))
        .map_err(|error| errors::builds_status(&error))?;
    let keep = !request.internal;
    if keep {
        // Its history says how busy the machine was.
        running.job.usage.record();
        core.history.begin(&request);
    }
    let id = request.r#ref.clone();
    let outcome = Box::pin(evaluate(core, &running, request, returned, &outputs)).await;
    // Nobody calls the gateway of a build that is over, and what its containers mounted is gone when its client hears so.
    running.forwarder.containers.release_all().await;
    // Listeners of its progress are told that it ended before it is written down, clients of the build only then.
    events.close();
    let kept = match keep {
        true => core.history.end(&id, outcome.as_ref(), &events).await,
        false => Ok(()),
    };
    drop(listed);
    let exported = outcome?;
    kept?;
    Ok(SolveResponse {
        exporter_response: exported.response,
    })
}

/// What is made of a request before anybody can ask for its build.
struct Begun {
    running: Arc<Running>,
    returned: tokio::sync::oneshot::Receiver<Returned>,
    outputs: Outputs,
}

fn begin(
    core: &Arc<Core>,
    request: &SolveRequest,
    newer: Newer,
    cancel: CancellationToken,
) -> Result<Begun, Status> {
    check_compatibility_version(newer.compatibility_version)
        .map_err(|error| errors::refused(error.to_string()))?;
    let events = Arc::new(EventLog::default());
    let outputs = Outputs {
        exports: export::plan(&request.exporters)?,
        caches: cache::exports(request.cache.as_ref())?,
        attestations: Wanted::of(&request.frontend_attrs)?,
    };
    let job = job(
        core,
        request,
        newer.proxy_network,
        &outputs.caches,
        &events,
        &cancel,
    )?;
    let scope = Arc::new(Scope::root(&asked(request)));
    let (forwarder, returned) =
        Forwarder::new(request.r#ref.clone(), request.frontend_inputs.clone(), 0, scope);
    let running = Arc::new(Running::new(
        request.r#ref.clone(),
        events,
        cancel,
        job,
        request.session.clone(),
        Arc::new(forwarder),
    ));
    running.resources.add(newer.resources)?;
    Ok(Begun {
        running,
        returned,
        outputs,
    })
}

fn job(
    core: &Core,
    request: &SolveRequest,
    proxy_network: bool,
    caches: &[CacheExport],
    events: &Arc<EventLog>,
    cancel: &CancellationToken,
) -> Result<Arc<Job>, Status> {
    let lease = core.engine.store.lease("solve");
    let lease = Arc::new(lease.map_err(|error| Status::unavailable(chain_text(&error)))?);
    let provider = SessionCredentials {
        sessions: core.sessions.clone(),
        id: request.session.clone(),
    };
    let credentials = Credentials::of_provider(Arc::new(provider));
    let mut registries = core.settings.registries.clone();
    cache::allow_insecure(&mut registries, request.cache.as_ref());
    let registry = RegistryClient::new(registries, credentials, USER_AGENT);
    let client = SessionClient::new(
        core.sessions.clone(),
        request.session.clone(),
        core.engine.store.clone(),
        Arc::clone(&lease),
        cancel.clone(),
    )
    .with_policy_session(request.source_policy_session.clone());
    let (entitlements, devices) = entitlements(core, &request.entitlements)?;
    let settings = Settings {
        entitlements,
        devices,
        cdi: core.settings.cdi.clone(),
        policies: Arc::new(policy::read(request.source_policy.clone())?),
        inline_cache: caches.iter().any(|cache| cache.target == CacheTarget::Inline),
        // Builds of one client's directories are compared with each other when a miss is explained.
        site: format!(
            "{} ",
            request.frontend_attrs.get("context").map_or("", String::as_str)
        ),
        fresh_mounts: request
            .frontend_attrs
            .get("no-cache")
            .is_some_and(String::is_empty),
        steps: core.steps.clone(),
        dns: core.settings.dns.clone(),
        provenance_keys: core.settings.provenance_keys.clone(),
        rules: StepRules {
            proxy_network: proxy_network || core.settings.proxy_network,
            ..StepRules::default()
        },
        // A front end that is not in this program may look into them.
        keep_failed: request.definition.is_none() && request.frontend != front_end::DOCKERFILE,
        ..Settings::default()
    };
    let engine = Arc::new(core.engine.with_client(registry));
    Ok(Arc::new(Job::new(
        engine,
        lease,
        Arc::new(client),
        settings,
        Arc::clone(events) as Arc<dyn rbuild_graph::progress::Sink>,
    )))
}

/// What the request asks for, if the server grants it (`util/entitlements`).
fn entitlements(core: &Core, asked: &[String]) -> Result<(Vec<Entitlement>, Devices), Status> {
    let given = |entitlement| core.settings.entitlements.contains(&entitlement);
    let supported = Entitlements {
        network_host: given(Entitlement::NetworkHost),
        security_insecure: given(Entitlement::SecurityInsecure),
        devices: core.settings.cdi.is_some().then(Devices::default),
    };
    let granted = Entitlements::parse(asked, &supported).map_err(|error| match error {
        EntitlementError::NotGranted(_) => Status::unknown(error.to_string()),
        _ => errors::refused(chain_text(&error)),
    })?;
    let named = [
        (granted.network_host, Entitlement::NetworkHost),
        (granted.security_insecure, Entitlement::SecurityInsecure),
    ];
    let named = named
        .into_iter()
        .filter_map(|(granted, name)| granted.then_some(name));
    Ok((named.collect(), granted.devices.unwrap_or_default()))
}

/// What is to be made of the answer.
struct Outputs {
    exports: Vec<export::Planned>,
    caches: Vec<CacheExport>,
    attestations: Wanted,
}

/// What the client asks the front end for.
fn asked(request: &SolveRequest) -> Asked {
    let attrs = request.frontend_attrs.iter();
    let inputs = request.frontend_inputs.iter();
    Asked {
        definition: request.definition.clone(),
        frontend: request.frontend.clone(),
        attrs: attrs.map(|(key, value)| (key.clone(), value.clone())).collect(),
        inputs: inputs.map(|(key, value)| (key.clone(), value.clone())).collect(),
        policies: SourcePolicies::default(),
    }
}

async fn evaluate(
    core: &Arc<Core>,
    running: &Arc<Running>,
    request: SolveRequest,
    returned: tokio::sync::oneshot::Receiver<Returned>,
    outputs: &Outputs,
) -> Result<Exported, Status> {
    let asked = asked(&request);
    let (platform, chooses) = (
        asked.attrs.get("platform").cloned(),
        request.enable_session_exporter,
    );
    let imports = request.cache.unwrap_or_default().imports;
    cache::import(&running.job, &imports, &asked.attrs).await?;
    let answer = if asked.is_nothing() {
        // The front end runs in the client, which says here what it made.
        tokio::select! {
            returned = returned => returned.map_err(|_gone| Status::cancelled("context canceled"))??,
            () = running.cancel.cancelled() => return Err(Status::cancelled("context canceled")),
        }
    } else {
        front_end::answer(core, running, &running.forwarder, asked).await?
    };
    verify::platforms(platform.as_deref(), &answer, &running.events);
    let result = export::result(running, &answer, &outputs.attestations, &core.producers).await?;
    let caches = &outputs.caches;
    let mut exported = if chooses {
        let chosen = session_export::find(&core.sessions, running, &answer).await?;
        // What is chosen later is numbered after what the request names.
        let chosen = export::plan_from(outputs.exports.len(), &chosen)?;
        let exports: Vec<&export::Planned> = outputs.exports.iter().chain(&chosen).collect();
        let exported = export::all(running, &answer, &result, exports, caches).await?;
        session_export::finalize(&core.sessions, running, &exported.response).await?;
        exported
    } else {
        export::all(running, &answer, &result, &outputs.exports, caches).await?
    };
    exported.attestations = attest::tell_history(running).await;
    Ok(exported)
}
