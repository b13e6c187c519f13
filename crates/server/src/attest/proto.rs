//! Attestations as clients and front ends send and get them (`frontend/gateway/pb/gateway.proto`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    Attestation as PbAttestation, AttestationKind, Attestations as PbAttestations, InTotoSubject,
    InTotoSubjectKind, Ref,
};
use rbuild_builder::attestation::Subject;
use rbuild_oci::Digest;
use tonic::Status;

use crate::answer::{Answer, Attested, BuildRef};
use crate::forwarder::Forwarder;

/// Most attestations of one answer.
const ATTESTATIONS_MAX: usize = 1000;

/// The attestations of `answer` for a client; `keep` gives it the file systems.
///
/// # Errors
/// Those of `keep`.
pub(crate) fn to_proto(
    answer: &Answer,
    keep: impl Fn(Option<&Arc<BuildRef>>) -> Result<Ref, Status>,
) -> Result<HashMap<String, PbAttestations>, Status> {
    let mut all = HashMap::new();
    for (id, attested) in &answer.attestations {
        let mut list = Vec::with_capacity(attested.len());
        for attested in attested {
            let kind = if attested.is_bundle {
                AttestationKind::Bundle
            } else {
                AttestationKind::InToto
            };
            list.push(PbAttestation {
                kind: kind.into(),
                metadata: attested.metadata.clone().into_iter().collect(),
                r#ref: Some(keep(attested.found.as_ref())?),
                path: attested.path.clone(),
                in_toto_predicate_type: attested.predicate_type.clone(),
                in_toto_subjects: attested.subjects.iter().map(subject_to_proto).collect(),
            });
        }
        all.insert(id.clone(), PbAttestations { attestation: list });
    }
    Ok(all)
}

fn subject_to_proto(subject: &Subject) -> InTotoSubject {
    match subject {
        Subject::Result(name) => InTotoSubject {
            kind: InTotoSubjectKind::Self_.into(),
            digest: Vec::new(),
            name: name.clone().unwrap_or_default(),
        },
        Subject::Other { name, digests } => InTotoSubject {
            kind: InTotoSubjectKind::Raw.into(),
            digest: digests.iter().map(ToString::to_string).collect(),
            name: name.clone(),
        },
    }
}

/// The attestations that a client's front end returns.
///
/// # Errors
/// `invalid_argument` for kinds there are none of and digests that are none, `not_found` for file systems that were not
/// given out, `resource_exhausted` for too many.
pub(crate) fn from_proto(
    forwarder: &Forwarder,
    returned: HashMap<String, PbAttestations>,
) -> Result<BTreeMap<String, Vec<Attested>>, Status> {
    let mut all = BTreeMap::new();
    let mut count = 0;
    for (id, list) in returned {
        count += list.attestation.len();
        if count > ATTESTATIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "more than {ATTESTATIONS_MAX} attestations"
            )));
        }
        let read = list.attestation.into_iter().map(|found| one(forwarder, found));
        all.insert(id, read.collect::<Result<Vec<Attested>, Status>>()?);
    }
    Ok(all)
}

fn one(forwarder: &Forwarder, found: PbAttestation) -> Result<Attested, Status> {
    let unknown = || Status::invalid_argument(format!("unknown attestation kind {}", found.kind));
    let kind = AttestationKind::try_from(found.kind).map_err(|_| unknown())?;
    let id = found.r#ref.map(|found| found.id).unwrap_or_default();
    let subjects = found.in_toto_subjects.into_iter().map(subject);
    Ok(Attested {
        is_bundle: kind == AttestationKind::Bundle,
        metadata: found.metadata.into_iter().collect(),
        found: forwarder.find(&id)?,
        path: found.path,
        predicate_type: found.in_toto_predicate_type,
        subjects: subjects.collect::<Result<_, _>>()?,
    })
}

fn subject(subject: InTotoSubject) -> Result<Subject, Status> {
    let unknown = || {
        let kind = subject.kind;
        Status::invalid_argument(format!("unknown attestation subject type {kind}"))
    };
    match InTotoSubjectKind::try_from(subject.kind).map_err(|_| unknown())? {
        InTotoSubjectKind::Self_ => Ok(Subject::Result(
            Some(subject.name).filter(|name| !name.is_empty() && name != "_"),
        )),
        InTotoSubjectKind::Raw => {
            let digests = subject.digest.iter().map(|text| {
                let wrong = |error| Status::invalid_argument(format!("{text:?}: {error}"));
                Digest::parse(text).map_err(wrong)
            });
            Ok(Subject::Other {
                name: subject.name,
                digests: digests.collect::<Result<_, _>>()?,
            })
        }
    }
}
