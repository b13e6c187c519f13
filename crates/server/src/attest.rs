//! Attestations of a build's results: those a client's front end returns, those a scanner makes, and how the results came
//! to be (`solver/llbsolver/proc`, `frontend/gateway/forwarder`).

mod proto;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rbuild_builder::attestation::sbom::{self, CORE, Scanned, Scanner};
use rbuild_builder::attestation::{Attestation, AttestationError, Content, SPDX};
use rbuild_builder::error::chain_text;
use rbuild_builder::export::PlatformSubject;
use rbuild_builder::provenance::draft::{Draft, DraftError, Told as DraftTold};
use rbuild_builder::provenance::options::{Mode, Options, SlsaVersion};
use rbuild_builder::resolve::Resolver;
use rbuild_frontend::ImageResolveMode;
use rbuild_llb::attrs::{Attestations, Sbom};
use rbuild_llb::errors::{Detail, IncompleteMaterial, sentence};
use rbuild_oci::{Platform, go_json};
use tonic::Status;

use crate::answer::{Answer, Attested, BuildRef};
use crate::errors::{annotated, build_status, refused, unknown_status};
use crate::history::Attestation as HistoryAttestation;
use crate::producers::Producers;
use crate::running::Running;
use crate::scope::{self, Origin};

pub(crate) use proto::{from_proto, to_proto};

/// Metadata: the name of the result's own list of packages among others (`solver/result/attestation.go`).
pub(crate) const SBOM_CORE: &str = "sbom-core";
/// Metadata: for exporters of images only.
const INLINE_ONLY: &str = "inline-only";

/// What a request wants to be said of its results.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    sbom: Option<Sbom>,
    provenance: Option<Options>,
    /// Scan again, whatever the cache has.
    ignore_cache: bool,
    resolve_mode: ImageResolveMode,
    builder_id: String,
}

impl Wanted {
    /// Reads what the options of a front end ask for.
    ///
    /// # Errors
    /// A refusal, in BuildKit's words.
    pub fn of(attrs: &HashMap<String, String>) -> Result<Self, Status> {
        let invalid = |error: &dyn std::error::Error| refused(sentence(error));
        let attrs: BTreeMap<String, String> = attrs.clone().into_iter().collect();
        let Attestations { sbom, provenance } =
            rbuild_llb::attrs::attestations::parse(&attrs).map_err(|error| invalid(&error))?;
        let provenance = provenance.map(|asked| Options::parse(&asked)).transpose();
        let provenance = provenance.map_err(|error| invalid(&error))?;
        Ok(Self {
            sbom,
            builder_id: provenance
                .as_ref()
                .map(|options| options.builder_id.clone())
                .unwrap_or_default(),
            provenance,
            ignore_cache: attrs.get("no-cache").is_some_and(String::is_empty),
            resolve_mode: match attrs.get("image-resolve-mode").map(String::as_str) {
                Some("pull") => ImageResolveMode::ForcePull,
                Some("local") => ImageResolveMode::PreferLocal,
                _ => ImageResolveMode::Default,
            },
        })
    }
}

/// One of an answer's results.
#[derive(Debug)]
pub struct Part {
    /// Id of its platform.
    pub id: String,
    /// Where it is from; nothing for an empty one.
    pub found: Option<Arc<BuildRef>>,
    /// What exporters get.
    pub subject: PlatformSubject,
}

/// Adds to `parts` what is to be said of them.
///
/// # Errors
/// The scanner's, and those of provenance.
pub async fn add(
    running: &Arc<Running>,
    answer: &Answer,
    parts: &mut [Part],
    is_index: bool,
    wanted: &Wanted,
    producers: &Producers,
) -> Result<(), Status> {
    for part in parts.iter_mut() {
        for attested in answer.attestations.get(&part.id).into_iter().flatten() {
            part.subject
                .attestations
                .push(of_answer(running, attested).await?);
        }
    }
    if let Some(sbom) = wanted.sbom.as_ref().filter(|_| !answer.has_sbom()) {
        scan(running, parts, sbom, wanted).await?;
    }
    let origins = origins(running, answer, parts, is_index, producers).await?;
    let mut told = Vec::new();
    for (part, origin) in parts.iter_mut().zip(origins) {
        let (Some(origin), Some(found)) = (origin, &part.found) else {
            continue;
        };
        if let Some(options) = &wanted.provenance {
            let draft = Arc::new(draft(running, &origin, found, options.clone())?);
            part.subject.attestations.push(Attestation::provenance(draft));
        }
        let everything = Options {
            version: SlsaVersion::V1,
            mode: Mode::Max,
            capture_usage: true,
            builder_id: wanted.builder_id.clone(),
            ..Options::default()
        };
        // A history without it is better than a build that fails for it.
        if let Ok(draft) = draft(running, &origin, found, everything) {
            told.push((is_index.then(|| part.id.clone()), draft));
        }
    }
    running.drafts.set(told).ok();
    Ok(())
}

fn draft(running: &Running, origin: &Origin, found: &BuildRef, options: Options) -> Result<Draft, Status> {
    let told = DraftTold {
        capture: &origin.capture,
        request: origin.request.clone(),
        graph: found.target().map(|target| (&**found.graph(), target)),
    };
    Draft::new(&running.job, told, options).map_err(|error| draft_status(&error))
}

fn draft_status(error: &DraftError) -> Status {
    let status = Status::unknown(sentence(error));
    let DraftError::Incomplete(missing) = error else {
        return status;
    };
    let locals = missing.locals.iter().map(|name| IncompleteMaterial {
        name: name.clone(),
        reason: "local_source".to_owned(),
        ..IncompleteMaterial::default()
    });
    let requests = missing.requests.iter().map(|request| IncompleteMaterial {
        name: request.name.clone(),
        method: request.method.clone(),
        uri: request.url.clone(),
        reason: request.reason.to_owned(),
    });
    let detail = Detail::ProvenanceMaterialsIncomplete(locals.chain(requests).collect());
    annotated(&status, &[detail])
}

/// What the history keeps of how the results were made, as of now. Called once the exporters are done: the layers of
/// steps have blobs then.
pub(crate) async fn tell_history(running: &Running) -> Vec<HistoryAttestation> {
    let mut all = Vec::new();
    for (platform, draft) in running.drafts.get().into_iter().flatten() {
        let Ok(predicate) = draft.tell(&running.job).await else {
            continue;
        };
        all.push(HistoryAttestation {
            result: platform.clone().unwrap_or_default(),
            predicate_type: draft.predicate_type().to_owned(),
            predicate: go_json::to_vec_indented(&predicate).unwrap_or_default(),
        });
    }
    all
}

async fn origins(
    running: &Running,
    answer: &Answer,
    parts: &[Part],
    is_index: bool,
    producers: &Producers,
) -> Result<Vec<Option<Origin>>, Status> {
    let platforms: Vec<(&str, Platform)> = parts
        .iter()
        .map(|part| (part.id.as_str(), part.subject.runs_on()))
        .collect();
    let platforms: Vec<(&str, &Platform)> = platforms.iter().map(|(id, platform)| (*id, platform)).collect();
    let mut origins = Vec::with_capacity(parts.len());
    for part in parts {
        let Some(found) = &part.found else {
            origins.push(None);
            continue;
        };
        let id = is_index.then_some(part.id.as_str());
        let origin = scope::origin(
            &running.job,
            &running.forwarder.scope,
            producers,
            answer,
            found,
            (id, &platforms),
        );
        origins.push(Some(origin.await?));
    }
    Ok(origins)
}

/// Scans every result that has something in it.
async fn scan(
    running: &Arc<Running>,
    parts: &mut [Part],
    sbom: &Sbom,
    wanted: &Wanted,
) -> Result<(), Status> {
    // Not the front end's: what is looked at here is no material of the result.
    let resolver = Resolver::new(&running.job, &running.cancel);
    let scanner = find_scanner(&resolver, sbom, wanted.resolve_mode).await?;
    for part in parts {
        let Some(found) = &part.found else { continue };
        let step = scan_step(
            &scanner,
            &Scanned {
                name: &part.id,
                graph: found.graph(),
                core: found.target(),
                extras: &BTreeMap::new(),
                ignore_cache: wanted.ignore_cache,
            },
        )?;
        let chain = step.chain(&running.job, &running.cancel).await;
        let chain = chain.map_err(|error| build_status(&error))?;
        part.subject.attestations.push(sbom::attestation(chain));
    }
    Ok(())
}

/// Finds the scanner that is asked for.
///
/// # Errors
/// The registry's, and `unknown` for an image that scans nothing.
pub(crate) async fn find_scanner(
    resolver: &Resolver<'_>,
    sbom: &Sbom,
    mode: ImageResolveMode,
) -> Result<Scanner, Status> {
    let parameters = sbom.parameters.clone();
    let scanner = Scanner::find(resolver, &sbom.generator, mode, parameters).await;
    scanner.map_err(|error| unknown_status(&error))
}

fn scan_step(scanner: &Scanner, scanned: &Scanned<'_>) -> Result<BuildRef, Status> {
    let step = scanner.scan(scanned);
    let step = step.map_err(|error| Status::unknown(sentence(&error)))?;
    let target = step.target.as_ref();
    let definition = target.and_then(|target| rbuild_llb::encode(&step.graph, target).ok());
    Ok(BuildRef::new(step.graph, step.target, definition))
}

/// What a scanner will find in `scanned`, as a front end returns it.
///
/// # Errors
/// `unknown` for a graph that is not whole.
pub fn scanned(scanner: &Scanner, scanned: &Scanned<'_>) -> Result<Attested, Status> {
    let metadata = [("reason", CORE), (SBOM_CORE, CORE)];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
    Ok(Attested {
        is_bundle: true,
        metadata: metadata.into(),
        found: Some(Arc::new(scan_step(scanner, scanned)?)),
        path: String::new(),
        predicate_type: SPDX.to_owned(),
        subjects: Vec::new(),
    })
}

/// An attestation of a front end, built.
async fn of_answer(running: &Arc<Running>, attested: &Attested) -> Result<Attestation, Status> {
    let invalid = |error: AttestationError| refused(chain_text(&error));
    let Some(found) = &attested.found else {
        return Err(invalid(AttestationError::NoContent));
    };
    if !attested.is_bundle && attested.path.is_empty() {
        return Err(invalid(AttestationError::NoPath));
    }
    let chain = found.chain(&running.job, &running.cancel).await;
    let chain = chain.map_err(|error| build_status(&error))?;
    let text = |key: &str| {
        let bytes = attested.metadata.get(key)?;
        String::from_utf8(bytes.clone()).ok()
    };
    Ok(Attestation {
        content: if attested.is_bundle {
            Content::Bundle(chain)
        } else {
            Content::File(chain)
        },
        path: attested.path.clone(),
        predicate_type: attested.predicate_type.clone(),
        subjects: attested.subjects.clone(),
        sbom_core: text(SBOM_CORE),
        inline_only: text(INLINE_ONLY).is_some_and(|text| text == "true"),
    })
}
