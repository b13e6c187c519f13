//! Messages that are not generated for us, or not well enough, as they go over the wire.
//!
//! `fsutil`'s packets have their names as bytes here: Go sends file names as they are, and a name that is no UTF-8
//! would make the generated type fail. Data is [`Bytes`], so a chunk of a file is not copied when it is decoded.
//! Field numbers are those of `fsutil/types/wire.proto`, `stat.proto`, `session/filesync/filesync.proto`,
//! `session/exporter/exporter.proto` and containerd's `content.proto`.

use std::collections::HashMap;

use bollard_buildkit_proto::google::protobuf::Timestamp;
pub use prost::bytes::Bytes;

/// A chunk of a stream of bytes: `BytesMessage` of FileSend, SSH and Upload.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BytesMessage {
    /// The bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
}

/// What a [`Packet`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PacketType {
    /// From the sender: one entry of the list, or without `stat` its end.
    Stat = 0,
    /// From the receiver: send the content of the entry `id`.
    Req = 1,
    /// From the sender: content of the entry `id`; empty at its end.
    Data = 2,
    /// From both: done.
    Fin = 3,
    /// From both: failed, with a text as `data`.
    Err = 4,
}

/// One message of `fsutil`'s transfer of a tree.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    /// A [`PacketType`].
    #[prost(enumeration = "PacketType", tag = "1")]
    pub kind: i32,
    /// The entry.
    #[prost(message, optional, tag = "2")]
    pub stat: Option<Stat>,
    /// Place of the entry in the list, from 0.
    #[prost(uint32, tag = "3")]
    pub id: u32,
    /// Content or text.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// One entry of a tree.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// Path relative to the tree's root.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Go's `os.FileMode`.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Bytes; 0 for directories and for a further name of a file.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub mod_time: i64,
    /// Where a symbolic link leads; or of a regular file: the path it is a hard link to.
    #[prost(bytes = "vec", tag = "7")]
    pub linkname: Vec<u8>,
    /// Of a device.
    #[prost(int64, tag = "8")]
    pub devmajor: i64,
    /// Of a device.
    #[prost(int64, tag = "9")]
    pub devminor: i64,
    /// Extended attributes.
    #[prost(message, repeated, tag = "10")]
    pub xattrs: Vec<Xattr>,
}

/// One extended attribute: an entry of the map `Stat.xattrs`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Xattr {
    /// Name with its namespace.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Packet {
    /// A packet without content.
    #[must_use]
    pub fn bare(kind: PacketType) -> Self {
        Self {
            kind: kind.into(),
            ..Self::default()
        }
    }

    /// An entry of the list.
    #[must_use]
    pub fn entry(stat: Stat) -> Self {
        Self {
            stat: Some(stat),
            ..Self::bare(PacketType::Stat)
        }
    }

    /// A request for the content of an entry.
    #[must_use]
    pub fn request(id: u32) -> Self {
        Self {
            id,
            ..Self::bare(PacketType::Req)
        }
    }

    /// A chunk of an entry's content.
    #[must_use]
    pub fn data(id: u32, data: Bytes) -> Self {
        Self {
            id,
            data,
            ..Self::bare(PacketType::Data)
        }
    }

    /// A failure.
    #[must_use]
    pub fn failure(text: &str) -> Self {
        Self {
            data: Bytes::copy_from_slice(text.as_bytes()),
            ..Self::bare(PacketType::Err)
        }
    }
}

/// `containerd.services.content.v1.InfoRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InfoRequest {
    /// Which blob.
    #[prost(string, tag = "1")]
    pub digest: String,
}

/// `containerd.services.content.v1.InfoResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoResponse {
    /// What is known of it.
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
}

/// `containerd.services.content.v1.Info`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Info {
    /// The blob's digest.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// Its bytes.
    #[prost(int64, tag = "2")]
    pub size: i64,
    /// When it was written.
    #[prost(message, optional, tag = "3")]
    pub created_at: Option<Timestamp>,
    /// When its labels changed last.
    #[prost(message, optional, tag = "4")]
    pub updated_at: Option<Timestamp>,
    /// Labels.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// `containerd.services.content.v1.ListContentRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListContentRequest {
    /// Which blobs: those for which one of these is true; all if there is none.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// `containerd.services.content.v1.ListContentResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContentResponse {
    /// Some of the blobs.
    #[prost(message, repeated, tag = "1")]
    pub info: Vec<Info>,
}

/// `containerd.services.content.v1.ReadContentRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadContentRequest {
    /// Which blob.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// First byte.
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// Number of bytes; 0 for all of the blob.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// `containerd.services.content.v1.ReadContentResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadContentResponse {
    /// Place of `data` in the answer; containerd's server does not count from the blob's start.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// Bytes of the blob.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// `containerd.services.content.v1.WriteAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WriteAction {
    /// How far the blob has come.
    Stat = 0,
    /// Bytes of it.
    Write = 1,
    /// It is whole.
    Commit = 2,
}

/// `containerd.services.content.v1.WriteContentRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteContentRequest {
    /// A [`WriteAction`].
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    /// Name of the transfer; the first message has it.
    #[prost(string, tag = "2")]
    pub reference: String,
    /// Bytes of the blob.
    #[prost(int64, tag = "3")]
    pub total: i64,
    /// Its digest.
    #[prost(string, tag = "4")]
    pub expected: String,
    /// Place of `data` in it.
    #[prost(int64, tag = "5")]
    pub offset: i64,
    /// Bytes.
    #[prost(bytes = "bytes", tag = "6")]
    pub data: Bytes,
}

/// `containerd.services.content.v1.WriteContentResponse`, times left out.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WriteContentResponse {
    /// The [`WriteAction`] that is answered.
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    /// Bytes that are there.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// Bytes there will be.
    #[prost(int64, tag = "5")]
    pub total: i64,
    /// Digest of what is there.
    #[prost(string, tag = "6")]
    pub digest: String,
}

/// `moby.exporter.v1.FindExportersRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindExportersRequest {
    /// Metadata of the build's result.
    #[prost(map = "string, bytes", tag = "1")]
    pub metadata: HashMap<String, Vec<u8>>,
    /// Ids of its references.
    #[prost(string, repeated, tag = "2")]
    pub refs: Vec<String>,
}

/// `moby.exporter.v1.FindExportersResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindExportersResponse {
    /// What to export to.
    #[prost(message, repeated, tag = "1")]
    pub exporters: Vec<ExporterEntry>,
}

/// `moby.exporter.v1.ExporterRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExporterEntry {
    /// Name of the exporter.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its attributes.
    #[prost(map = "string, string", tag = "2")]
    pub attrs: HashMap<String, String>,
}

/// `moby.exporter.v1.FinalizeExportRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FinalizeExportRequest {
    /// What the exporters answered.
    #[prost(map = "string, string", tag = "1")]
    pub exporter_response: HashMap<String, String>,
}

/// `moby.exporter.v1.FinalizeExportResponse`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FinalizeExportResponse {}
