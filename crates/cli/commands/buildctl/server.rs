//! Which server is asked, and how it is reached: `--addr`, `BUILDKIT_HOST`, else where a server of this user listens.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild_builder::error::chain_text;
use rbuild_client::{Address, Connection, Security, connect as open};
use rbuild_tls::{ClientFiles, Pair};

use crate::args::ServerArgs;
use crate::commands::CommandError;
use crate::env::Env;

/// How often `--wait` tries.
const RETRY: Duration = Duration::from_millis(100);

/// How long a connection is waited for.
pub(super) fn patience(args: &ServerArgs) -> Duration {
    Duration::from_secs(args.timeout)
}

/// The server's address.
pub(super) fn address(args: &ServerArgs, env: &Env) -> Result<Address, CommandError> {
    let given = args.addr.clone().or_else(|| env.filled("BUILDKIT_HOST"));
    let text = given
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| usual(env));
    text.parse().map_err(|error| CommandError::failed(&error))
}

fn usual(env: &Env) -> String {
    let is_root = rustix::process::geteuid().is_root();
    let own = env.filled("XDG_RUNTIME_DIR").filter(|_| !is_root);
    format!(
        "unix://{}/buildkit/buildkitd.sock",
        own.as_deref().unwrap_or("/run")
    )
}

/// The server's services.
pub(super) async fn connect(args: &ServerArgs, env: &Env) -> Result<Connection, CommandError> {
    let address = address(args, env)?;
    let files = files(args)?;
    let security = match files {
        None => None,
        Some(files) => Some(Security {
            config: files
                .load()
                .map_err(|error| CommandError::failed(&chain_text(&error)))?,
            server_name: args.tlsservername.clone(),
        }),
    };
    let since = Instant::now();
    loop {
        match open(&address, security.as_ref(), patience(args)).await {
            Ok(connection) => return Ok(connection),
            Err(_) if args.wait == Some(true) && since.elapsed() < patience(args) => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(CommandError::failed(&chain_text(&error))),
        }
    }
}

fn files(args: &ServerArgs) -> Result<Option<ClientFiles>, CommandError> {
    if let Some(dir) = &args.tlsdir {
        return Ok(Some(ClientFiles {
            ca: one_of(dir, ["ca.pem", "ca.crt"])?,
            own: Some(Pair {
                cert: one_of(dir, ["cert.pem", "tls.crt"])?,
                key: one_of(dir, ["key.pem", "tls.key"])?,
            }),
        }));
    }
    let own = args.tlscert.clone().zip(args.tlskey.clone());
    Ok(args.tlscacert.clone().map(|ca| ClientFiles {
        ca,
        own: own.map(|(cert, key)| Pair { cert, key }),
    }))
}

fn one_of(dir: &Path, names: [&str; 2]) -> Result<PathBuf, CommandError> {
    let found = names.iter().map(|name| dir.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        let [either, or] = names;
        CommandError::failed(&format!(
            "directory did not contain one of the needed files: {either} or {or}"
        ))
    })
}
