//! Gzip members that were made before, by what is in them: what did not change in a layer is not compressed again.

use rbuild_oci::Digest;

/// Where members are kept. Several threads ask at once.
pub trait Members: Send + Sync + std::fmt::Debug {
    /// The member that was made of `content` at `level`, if it is at hand. Whoever asks looks whether it is whole.
    fn find(&self, content: &Digest, level: u32) -> Option<Vec<u8>>;

    /// Says that the member of `content` is in the output now, `size` bytes at `offset`.
    fn placed(&self, content: Digest, level: u32, offset: u64, size: u64);
}

/// Whether `member` can be the gzip member of `content`: its first bytes, and the sum and length at its end.
pub(super) fn is_member_of(member: &[u8], content: &[u8]) -> bool {
    let Some((body, trailer)) = member.split_last_chunk::<8>() else {
        return false;
    };
    let (sum, len) = trailer.split_at(4);
    body.starts_with(&super::gzip::MAGIC)
        && sum == libdeflater::crc32(content).to_le_bytes()
        && u32::try_from(content.len()).is_ok_and(|expected| len == expected.to_le_bytes())
}
