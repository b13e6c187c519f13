//! What a client takes: one stream for an exporter, or trees of files.

use std::collections::BTreeMap;
use std::io::{self, Write};

use rbuild_builder::client::{ClientStream, ClientTree, OutputError};
use rbuild_graph::FileTime;
use rbuild_session::{BlockingSender, Selection, SendError, SendTree, TreeSource};

use super::{SessionClient, output};

impl SessionClient {
    pub(super) async fn open_stream(
        &self,
        exporter: u32,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Box<dyn ClientStream>, OutputError> {
        let session = self.session().await.map_err(output)?;
        let sender = session
            .send_bytes(exporter, metadata, &self.cancel)
            .map_err(output)?;
        let stream = ToClient {
            sender: Some(sender.into_blocking()),
        };
        Ok(Box::new(stream) as Box<dyn ClientStream>)
    }

    pub(super) async fn send_trees(
        &self,
        exporter: u32,
        trees: Vec<ClientTree>,
        time: Option<FileTime>,
    ) -> Result<(), OutputError> {
        let session = self.session().await.map_err(output)?;
        let sources: Vec<TreeSource> = trees
            .into_iter()
            .map(|tree| TreeSource {
                prefix: tree.prefix,
                root: tree.root,
                extra: Vec::new(),
                mod_time: time_ns(time),
                selection: Selection::default(),
            })
            .collect();
        // Trees without directories of their own are put on top of each other.
        let apart = sources.len() > 1 && sources.iter().any(|source| source.prefix.is_none());
        let calls: Vec<Vec<TreeSource>> = if apart {
            sources.into_iter().map(|source| vec![source]).collect()
        } else {
            vec![sources]
        };
        for trees in calls {
            let request = SendTree {
                exporter,
                trees,
                whole: !apart,
            };
            let sent = session.send_tree(request, |_| {}, &self.cancel).await;
            sent.map_err(output)?;
        }
        Ok(())
    }
}

fn time_ns(time: Option<FileTime>) -> Option<i64> {
    let time = time?;
    Some(
        time.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(time.nanoseconds)),
    )
}

/// An exporter's stream.
struct ToClient {
    /// Nothing once the client said that it has what is written.
    sender: Option<BlockingSender>,
}

impl ToClient {
    fn pass<T>(
        &mut self,
        otherwise: T,
        work: impl FnOnce(&mut BlockingSender) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(sender) = &mut self.sender else {
            return Ok(otherwise);
        };
        let done = work(sender);
        let is_there = |error: &io::Error| {
            let inner = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<SendError>());
            inner.is_some_and(SendError::is_already_there)
        };
        match done {
            Err(error) if is_there(&error) => {
                self.sender = None;
                Ok(otherwise)
            }
            done => done,
        }
    }
}

impl Write for ToClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(bytes.len(), |sender| sender.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass((), |sender| sender.flush())
    }
}

impl ClientStream for ToClient {
    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        match self.sender.map(BlockingSender::finish) {
            Some(Err(error)) if !error.is_already_there() => Err(output(error)),
            _ => Ok(()),
        }
    }
}
