//! A port of 127.0.0.1 whose connections are served by a thread each, until it is dropped.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A port that is listened on. Dropping it stops that, and tells those who serve by the flag they were given.
#[derive(Debug)]
pub(crate) struct Listening {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Listening {
    /// Has `serve` answer each connection. One that ends badly is the client's affair, or what the test wanted.
    #[track_caller]
    pub(crate) fn start(
        serve: impl Fn(TcpStream, &AtomicBool) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let (for_thread, serve) = (Arc::clone(&stopped), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_thread.load(Ordering::Relaxed) {
                    return;
                }
                let (stopped, serve) = (Arc::clone(&for_thread), Arc::clone(&serve));
                std::thread::spawn(move || serve(stream, &stopped).ok());
            }
        });
        Self { address, stopped }
    }

    /// Host and port.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}
