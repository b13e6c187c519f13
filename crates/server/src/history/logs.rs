//! What a build said, as a blob: messages of the Status stream, each behind its length as four little-endian bytes
//! (`application/vnd.buildkit.status.v0`, `solver/llbsolver/history/buildhistory.go`).

use std::io::{self, Read};

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use prost::Message as _;

use crate::events::EventLog;

/// Type of the blob.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";
/// Largest message: what a client takes.
const MESSAGE_BYTES_MAX: u32 = 16 << 20;
/// Events of one message at most.
const EVENTS_MAX: usize = 1000;

/// The blob of what a build said.
#[must_use]
pub(super) fn encode(log: &EventLog) -> Vec<u8> {
    let mut bytes = Vec::new();
    for batch in log.all().chunks(EVENTS_MAX) {
        for response in log.responses(batch.iter().cloned()) {
            // A response holds less than a client takes in one message.
            let size = u32::try_from(response.encoded_len()).unwrap_or(u32::MAX);
            bytes.extend(size.to_le_bytes());
            bytes.extend(response.encode_to_vec());
        }
    }
    bytes
}

/// The next message of a blob; nothing at its end.
///
/// # Errors
/// The reader's; `InvalidData` for a message that is too large or none.
pub(super) fn next(reader: &mut impl Read) -> io::Result<Option<StatusResponse>> {
    let mut size = [0; 4];
    match reader.read_exact(&mut size) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let size = u32::from_le_bytes(size);
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if size > MESSAGE_BYTES_MAX {
        return Err(damaged(format!("a message of {size} bytes")));
    }
    let mut bytes = Vec::new();
    let read = reader.take(size.into()).read_to_end(&mut bytes)?;
    if read as u64 != u64::from(size) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let response = StatusResponse::decode(&bytes[..]);
    response.map(Some).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::progress::{Event, Sink as _, Stream, VertexLog};
    use rbuild_oci::Digest;
    use std::time::SystemTime;

    fn log(texts: impl IntoIterator<Item = String>) -> EventLog {
        let log = EventLog::default();
        for text in texts {
            log.send(Event::Log(VertexLog {
                vertex: Digest::sha256(b"v"),
                stream: Stream::Stdout,
                data: text.into_bytes(),
                timestamp: SystemTime::UNIX_EPOCH,
            }));
        }
        log
    }

    #[test]
    fn what_is_written_is_read_again() {
        let blob = encode(&log((0..=EVENTS_MAX).map(|number| number.to_string())));
        let mut reader = &blob[..];
        let first = next(&mut reader).unwrap().unwrap();
        let second = next(&mut reader).unwrap().unwrap();
        assert_eq!((first.logs.len(), second.logs.len()), (EVENTS_MAX, 1));
        assert_eq!(second.logs[0].msg, EVENTS_MAX.to_string().into_bytes());
        assert!(next(&mut reader).unwrap().is_none());
        assert!(encode(&log([])).is_empty());
    }

    #[test]
    fn a_damaged_blob_is_an_error_and_no_panic() {
        let blob = encode(&log(["x".to_owned()]));
        assert!(next(&mut &blob[..blob.len() - 1]).is_err(), "cut");
        assert!(next(&mut &[255, 255, 255, 255, 0][..]).is_err(), "too large");
        assert!(next(&mut &[1, 0, 0, 0, 255][..]).is_err(), "no message");
    }
}
