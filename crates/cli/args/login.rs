//! Arguments of `login` and `logout`.

use clap::Args;

#[derive(Args)]
pub(crate) struct LoginArgs {
    /// Registry; Docker Hub if absent
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
    /// Who you are there
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password or token; everybody on this machine can see it while the command runs
    #[arg(short, long, value_name = "TEXT", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Take the password from standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
}

impl std::fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginArgs")
            .field("server", &self.server)
            .field("username", &self.username)
            .field("password_stdin", &self.password_stdin)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Registry; Docker Hub if absent
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}
