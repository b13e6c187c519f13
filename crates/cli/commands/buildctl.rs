//! The commands of `buildctl`. Each asks a server and prints the answer as BuildKit's client does; `build` does so where a
//! server is named, and else builds in this process. None of the others opens the store or an engine of its own.

mod build;
mod question;
mod records;
mod server;
mod stores;
mod through;

use std::path::Path;
use std::time::SystemTime;

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRequest, DiskUsageRequest, InfoRequest,
    ListWorkersRequest, PruneRequest, UpdateBuildHistoryRequest,
};
use rbuild_client::{Address, Control, stdio};
use rbuild_registry::chain_text;
use rbuild_ui::table::Table;
use rbuild_ui::units::{human_size, rfc3339};
use rbuild_ui::values::scalar::parse_duration;
use tonic::{Response, Status, Streaming};

use super::{CommandError, Open, usage};
use crate::args::{Buildctl, BuildctlCommand, ClearArgs, DebugCommand, ServerArgs, UsageArgs, WorkersArgs};
use crate::engine::UsageRow;
use crate::env::Env;

/// The unit of `--keep-storage` and its like.
const MEGABYTE: f64 = 1e6;

/// Runs the command.
pub(super) fn run(args: &Buildctl, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    if let BuildctlCommand::Build(build) = &args.command {
        let address = args.server.addr.as_deref().filter(|address| !address.is_empty());
        return match address {
            None => build::run(build, env, open),
            Some(_) => through::run(build, &args.server, env),
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::failed(&format!("cannot start: {error}")))?;
    let done = runtime.block_on(answer(args, env));
    // A read of standard input that is still under way does not keep the program.
    runtime.shutdown_background();
    done?;
    Ok(env.stdout.flush()?)
}

async fn answer(args: &Buildctl, env: &mut Env) -> Result<(), CommandError> {
    let server = &args.server;
    match &args.command {
        BuildctlCommand::Build(_) => unreachable!("run() builds without a server"),
        BuildctlCommand::DialStdio => dial_stdio(server, env).await,
        BuildctlCommand::Du(args) => du(server::connect(server, env).await?.control(), args, env).await,
        BuildctlCommand::Prune(args) => {
            let request = prune_request(args)?;
            prune(server::connect(server, env).await?.control(), args, request, env).await
        }
        BuildctlCommand::PruneHistories => {
            prune_histories(server::connect(server, env).await?.control(), env).await
        }
        BuildctlCommand::Debug(command) => {
            let control = server::connect(server, env).await?.control();
            match command {
                DebugCommand::Workers(args) => workers(control, args, env).await,
                DebugCommand::Info(args) => info(control, args.format.is_some(), env).await,
                DebugCommand::Histories => histories(control, env).await,
            }
        }
    }
}

async fn dial_stdio(args: &ServerArgs, env: &Env) -> Result<(), CommandError> {
    let Address::Unix(path) = server::address(args, env)? else {
        return Err(CommandError::failed(
            &"dial-stdio reaches a server by unix:// only",
        ));
    };
    let carried = stdio::carry(
        Path::new(&path),
        server::patience(args),
        tokio::io::stdin(),
        tokio::io::stdout(),
    );
    carried
        .await
        .map_err(|error| CommandError::failed(&format!("{}: {error}", path.display())))
}

async fn workers(mut control: Control, args: &WorkersArgs, env: &mut Env) -> Result<(), CommandError> {
    let request = ListWorkersRequest {
        filter: args.filter.clone(),
    };
    let workers = asked(control.list_workers(request).await)?.record;
    if args.form.format.is_some() {
        return json(&workers.iter().map(records::worker).collect::<Vec<_>>(), env);
    }
    if args.form.verbose {
        for worker in &workers {
            records::write_worker(worker, &mut env.stdout)?;
        }
        return Ok(());
    }
    let mut table = Table::new(&["ID", "PLATFORMS"]);
    for worker in workers {
        let platforms = records::platforms(&worker);
        table.row([worker.id, platforms]);
    }
    Ok(table.write(&mut env.stdout)?)
}

async fn info(mut control: Control, is_json: bool, env: &mut Env) -> Result<(), CommandError> {
    let info = asked(control.info(InfoRequest {}).await)?;
    let version = info.buildkit_version.unwrap_or_default();
    if is_json {
        return json(&records::info(&version), env);
    }
    let (package, number, revision) = (version.package, version.version, version.revision);
    Ok(writeln!(env.stdout, "BuildKit: {package} {number} {revision}")?)
}

async fn du(mut control: Control, args: &UsageArgs, env: &mut Env) -> Result<(), CommandError> {
    let request = DiskUsageRequest {
        filter: args.filter.clone(),
        ..DiskUsageRequest::default()
    };
    let found = asked(control.disk_usage(request).await)?.record;
    if args.form.format.is_some() {
        return json(&found.iter().map(records::usage).collect::<Vec<_>>(), env);
    }
    let rows: Vec<UsageRow> = found.into_iter().map(records::row).collect();
    let now = SystemTime::now();
    if args.form.verbose {
        usage::write_all(&rows, now, &mut env.stdout)?;
    } else {
        usage::table(&rows, now).write(&mut env.stdout)?;
    }
    if args.filter.is_empty() {
        usage::write_summary(&rows, &mut env.stdout)?;
    }
    Ok(())
}

fn prune_request(args: &ClearArgs) -> Result<PruneRequest, CommandError> {
    let keep = parse_duration(&args.keep_duration).ok_or_else(|| {
        CommandError::failed(&format!(
            "--keep-duration {:?} is not a duration such as 24h",
            args.keep_duration
        ))
    })?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a number too large for the type is the largest, and so is meant"
    )]
    let bytes = |megabytes: f64| (megabytes * MEGABYTE) as i64;
    Ok(PruneRequest {
        filter: args.filter.clone(),
        all: args.all,
        keep_duration: i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX),
        reserved_space: bytes(args.keep_storage_min),
        max_used_space: bytes(args.keep_storage),
        min_free_space: bytes(args.free_storage),
    })
}

async fn prune(
    mut control: Control,
    args: &ClearArgs,
    request: PruneRequest,
    env: &mut Env,
) -> Result<(), CommandError> {
    let gone = asked(control.prune(request).await)?;
    let gone = all(gone).await?;
    if args.form.format.is_some() {
        for record in &gone {
            json(&records::usage(record), env)?;
        }
        return Ok(());
    }
    let rows: Vec<UsageRow> = gone.into_iter().map(records::row).collect();
    let now = SystemTime::now();
    if args.form.verbose {
        usage::write_all(&rows, now, &mut env.stdout)?;
    } else if !rows.is_empty() {
        usage::table(&rows, now).write(&mut env.stdout)?;
    }
    let total = rows.iter().map(|row| row.size_bytes).sum();
    Ok(writeln!(env.stdout, "Total:   {}", human_size(total))?)
}

async fn listed(control: &mut Control) -> Result<Vec<BuildHistoryEvent>, CommandError> {
    let request = BuildHistoryRequest {
        early_exit: true,
        ..BuildHistoryRequest::default()
    };
    all(asked(control.listen_build_history(request).await)?).await
}

async fn histories(mut control: Control, env: &mut Env) -> Result<(), CommandError> {
    let events = listed(&mut control).await?;
    write_histories(events.iter(), env)
}

async fn prune_histories(mut control: Control, env: &mut Env) -> Result<(), CommandError> {
    let events = listed(&mut control).await?;
    let is_kept = |event: &BuildHistoryEvent| event.record.as_ref().is_none_or(|record| record.pinned);
    let mut gone = Vec::new();
    for event in events.iter().filter(|event| !is_kept(event)) {
        let request = UpdateBuildHistoryRequest {
            r#ref: event
                .record
                .as_ref()
                .map(|record| record.r#ref.clone())
                .unwrap_or_default(),
            delete: true,
            ..UpdateBuildHistoryRequest::default()
        };
        asked(control.update_build_history(request).await)?;
        gone.push(event);
    }
    write_histories(gone.into_iter(), env)
}

fn write_histories<'a>(
    events: impl Iterator<Item = &'a BuildHistoryEvent>,
    env: &mut Env,
) -> Result<(), CommandError> {
    let mut table = Table::new(&["TYPE", "REF", "CREATED", "COMPLETED", "GENERATION", "PINNED"]);
    for event in events {
        let record = event.record.clone().unwrap_or_default();
        let kind = BuildHistoryEventType::try_from(event.r#type);
        let time = |at: Option<_>| at.and_then(records::time).map_or_else(String::new, rfc3339);
        table.row([
            kind.map_or("", |kind| kind.as_str_name()).to_owned(),
            record.r#ref,
            time(record.created_at),
            time(record.completed_at),
            record.generation.to_string(),
            if record.pinned { "*" } else { "" }.to_owned(),
        ]);
    }
    Ok(table.write(&mut env.stdout)?)
}

fn json(value: &impl serde::Serialize, env: &mut Env) -> Result<(), CommandError> {
    serde_json::to_writer(&mut env.stdout, value).map_err(std::io::Error::from)?;
    Ok(writeln!(env.stdout)?)
}

/// The server's answer, or its error as the user is told.
fn asked<T>(answer: Result<Response<T>, Status>) -> Result<T, CommandError> {
    answer.map(Response::into_inner).map_err(|status| told(&status))
}

fn told(status: &Status) -> CommandError {
    let cause = std::error::Error::source(status).map(|cause| format!(": {}", chain_text(cause)));
    let text = format!("{}{}", status.message(), cause.unwrap_or_default());
    CommandError::failed(&text)
}

async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, CommandError> {
    let mut found = Vec::new();
    while let Some(one) = stream.message().await.map_err(|status| told(&status))? {
        found.push(one);
    }
    Ok(found)
}
