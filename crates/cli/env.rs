//! What a command knows of its surroundings, read once: variables, standard streams, the machine's platform. Tests
//! make their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::PathBuf;

/// The surroundings.
pub(crate) struct Env {
    vars: BTreeMap<OsString, OsString>,
    /// Standard input.
    pub(crate) stdin: Box<dyn Read + Send>,
    /// Standard output: data.
    pub(crate) stdout: Box<dyn Write>,
    /// Standard error: everything else.
    pub(crate) stderr: Box<dyn Write>,
    /// Nobody sends an archive through it.
    pub(crate) stdin_is_terminal: bool,
    /// Archives must not be written there.
    pub(crate) stdout_is_terminal: bool,
    /// A live view is possible.
    pub(crate) stderr_is_terminal: bool,
    /// `os/arch` of this machine, in OCI's words.
    pub(crate) own_platform: String,
}

impl Env {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            stdin_is_terminal: io::stdin().is_terminal(),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            own_platform: format!("linux/{}", oci_arch(std::env::consts::ARCH)),
        }
    }

    /// A variable, if it is set and is text.
    pub(crate) fn var(&self, name: &str) -> Option<String> {
        self.vars
            .get(std::ffi::OsStr::new(name))?
            .to_str()
            .map(str::to_owned)
    }

    /// What a flag says instead of the variable.
    pub(crate) fn set(&mut self, name: &str, value: &std::ffi::OsStr) {
        self.vars.insert(name.into(), value.into());
    }

    /// A variable, if it is set and not empty.
    pub(crate) fn filled(&self, name: &str) -> Option<String> {
        self.var(name).filter(|value| !value.is_empty())
    }

    /// Where short-lived files go.
    pub(crate) fn temp_dir(&self) -> PathBuf {
        self.filled("TMPDIR")
            .map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    }

    /// Colour is wanted on standard error.
    pub(crate) fn is_coloured(&self) -> bool {
        self.stderr_is_terminal && self.filled("NO_COLOR").is_none()
    }
}

fn oci_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Surroundings for tests, whose output can be read back.

    use std::sync::{Arc, Mutex};

    use super::*;

    /// Bytes a command wrote.
    #[derive(Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Surroundings with these variables and this standard input, and what is written to the two outputs.
    pub(crate) fn env(vars: &[(&str, &str)], stdin: &[u8]) -> (Env, Written, Written) {
        let (stdout, stderr) = (Written::default(), Written::default());
        let env = Env {
            vars: vars.iter().map(|&(k, v)| (k.into(), v.into())).collect(),
            stdin: Box::new(io::Cursor::new(stdin.to_vec())),
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
            stdin_is_terminal: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            own_platform: "linux/amd64".to_owned(),
        };
        (env, stdout, stderr)
    }
}
