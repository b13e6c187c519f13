//! Joins a server's socket to standard input and output: what drivers of buildx run inside a container or over ssh.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Carries bytes between the socket at `path` and the two streams: all of `input` goes in, and it is over when the
/// server has nothing more to say.
///
/// # Errors
/// The kernel's when connecting, `TimedOut` when that takes too long, and of either stream.
pub async fn carry<I, O>(path: &Path, timeout: Duration, mut input: I, mut output: O) -> io::Result<()>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
{
    let socket = tokio::time::timeout(timeout, UnixStream::connect(path)).await??;
    let (mut from, mut to) = socket.into_split();
    let inward = async {
        tokio::io::copy(&mut input, &mut to).await?;
        to.shutdown().await
    };
    let outward = async {
        tokio::io::copy(&mut from, &mut output).await?;
        output.shutdown().await
    };
    tokio::pin!(outward);
    tokio::select! {
        done = &mut outward => done,
        sent = inward => {
            sent?;
            outward.await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_of_each_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            socket.read_to_end(&mut asked).await.unwrap();
            socket.write_all(b"answer").await.unwrap();
            asked
        });
        let mut output = Vec::new();
        carry(&path, Duration::from_secs(5), &b"question"[..], &mut output)
            .await
            .unwrap();
        assert_eq!(output, b"answer");
        assert_eq!(server.await.unwrap(), b"question");
    }

    #[tokio::test]
    async fn a_server_that_leaves_ends_it_though_input_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        let (endless, _kept) = tokio::io::duplex(16);
        let carried = carry(&path, Duration::from_secs(5), endless, tokio::io::sink());
        tokio::time::timeout(Duration::from_secs(5), carried)
            .await
            .unwrap()
            .unwrap();
        server.await.unwrap();
    }
}
