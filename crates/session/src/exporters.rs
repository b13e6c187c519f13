//! Exporters that the client chooses when the result is known, and its last word on them (`session/exporter`).

use std::collections::{BTreeMap, HashMap};

use tonic::metadata::MetadataMap;

use crate::call::{ANSWER_TIMEOUT, CallError};
use crate::session::Session;
use crate::wire::{
    FinalizeExportRequest, FinalizeExportResponse, FindExportersRequest, FindExportersResponse,
};

const FIND: &str = "/moby.exporter.v1.Exporter/FindExporters";
const FINALIZE: &str = "/moby.exporter.v1.Exporter/FinalizeExport";

/// One exporter the client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExporterRequest {
    /// Its name, such as `oci`.
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

impl Session {
    /// Asks what a result is to be exported to.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn find_exporters(
        &self,
        metadata: HashMap<String, Vec<u8>>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, CallError> {
        let question = FindExportersRequest { metadata, refs };
        let answer: FindExportersResponse = self
            .ask(FIND, question, MetadataMap::new(), Some(ANSWER_TIMEOUT))
            .await?;
        let request = |entry: crate::wire::ExporterEntry| ExporterRequest {
            kind: entry.kind,
            attrs: entry.attrs.into_iter().collect(),
        };
        Ok(answer.exporters.into_iter().map(request).collect())
    }

    /// Tells the client what the exporters answered. What it does then may take its time: there is no limit but the
    /// session's end.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn finalize_export(&self, response: HashMap<String, String>) -> Result<(), CallError> {
        let question = FinalizeExportRequest {
            exporter_response: response,
        };
        let FinalizeExportResponse {} = self.ask(FINALIZE, question, MetadataMap::new(), None).await?;
        Ok(())
    }
}
