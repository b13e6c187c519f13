//! The streams of a process as asynchronous ones: ends of pipes, or of a terminal. Owns nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

/// What a process reads. It sees the end of it when this is dropped.
#[derive(Debug)]
pub struct Input(Sender);

/// What a process writes.
#[derive(Debug)]
pub struct Output(Receiver);

fn not_blocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

impl Input {
    /// Takes a pipe or terminal. Whoever shares its open file description no longer blocks on it either.
    ///
    /// # Errors
    /// The kernel's: not every kind of file can be waited for.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Sender::from_owned_fd_unchecked(not_blocking(fd)?).map(Self)
    }
}

impl Output {
    /// As [`Input::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Receiver::from_owned_fd_unchecked(not_blocking(fd)?).map(Self)
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, buf));
        // A terminal that nobody has open any more says this at its end.
        let ended = |error: &io::Error| Errno::from_io_error(error) == Some(Errno::IO);
        Poll::Ready(read.or_else(|error| if ended(&error) { Ok(()) } else { Err(error) }))
    }
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn more_than_a_pipe_holds_goes_through_and_ends() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (mut read, mut write) = (Output::new(read).unwrap(), Input::new(write).unwrap());
        let sent = vec![7_u8; 1 << 20];
        let writer = async {
            write.write_all(&sent).await.unwrap();
            drop(write);
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(writer, read.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn a_pipe_without_a_reader_is_an_error() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(read);
        let mut write = Input::new(write).unwrap();
        let error = write.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_terminal_ends_when_nobody_has_it_open() {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        rustix::io::write(&slave, b"said").unwrap();
        drop(slave);
        let mut text = String::new();
        Output::new(master)
            .unwrap()
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert_eq!(text, "said");
    }
}
