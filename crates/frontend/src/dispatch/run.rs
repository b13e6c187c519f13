//! RUN.

use rbuild_dockerfile::shell::{Lexer, Variables as _};
use rbuild_dockerfile::{CommandLine, Device, Run, RunNetwork, RunSecurity, chomp};
use rbuild_graph::{CdiDevice, ExecMeta, ExecOp, Mount, MountKind, NetMode, Op, SecurityMode};

use crate::dispatch::mounts::{self, Mounts};
use crate::dispatch::{Site, config};
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lowering::{Lowering, NewVertex};
use crate::origins::Made;
use crate::stage::StageState;

pub(super) fn run(lowering: &mut Lowering<'_>, site: Site<'_>, run: &Run) -> Result<(), FrontendError> {
    let options = mounts::options(lowering, site, run)?;
    let (arguments, shown, script) = command(lowering, site, &run.command)?;
    let mut mounts = Mounts::new(lowering.stages.list[site.stage].state.root.clone());
    if let Some(script) = script {
        mounts.push(
            Some(script),
            Mount {
                selector: "/".to_owned(),
                ..mounts::mount("/dev/pipes/", MountKind::Bind, true)
            },
        );
    }
    mounts::add(lowering, site, &options, &mut mounts)?;
    if lowering.options.shm_size_bytes > 0 {
        let kind = MountKind::Tmpfs {
            size_bytes: lowering.options.shm_size_bytes,
        };
        mounts.push(None, mounts::mount("/dev/shm", kind, false));
    }
    let secret_names: Vec<String> = mounts
        .secret_env
        .iter()
        .map(|secret| secret.name.clone())
        .collect();
    let lexer = Lexer {
        raw_quotes: true,
        skip_unset: true,
        ..lowering.lexer
    };
    if arguments.is_empty() {
        return Err(FrontendErrorKind::NoArguments.into());
    }
    let name = lowering.step_name(site, lexer, &shown, &secret_names)?;
    let created_by = history(&lowering.stages.list[site.stage], &arguments);
    lowering
        .budget
        .spend(created_by.len() + lowering.stages.list[site.stage].state.env.bytes())?;
    let meta = meta(lowering, site, arguments, &mounts);
    let (mounts, inputs, secret_env) = mounts.finish();
    let op = Op::Exec(Box::new(ExecOp {
        meta,
        mounts,
        network: match run.network {
            RunNetwork::Default => lowering.options.network,
            RunNetwork::None => NetMode::None,
            RunNetwork::Host => NetMode::Host,
        },
        security: match run.security {
            RunSecurity::Sandbox => SecurityMode::Sandbox,
            RunSecurity::Insecure => SecurityMode::Insecure,
        },
        secret_env,
        cdi_devices: run.devices.iter().map(device).collect(),
    }));
    let stage = &lowering.stages.list[site.stage];
    let vertex = NewVertex {
        inputs,
        platform: Some(
            stage
                .platform
                .as_ref()
                .unwrap_or(&lowering.target_platform)
                .clone(),
        ),
        name,
        ignore_cache: stage.ignore_cache,
        span: Some(site.span()),
        command: Some(site.source().to_owned()),
        linux_resources: lowering.options.linux_resources.clone(),
        ..NewVertex::default()
    };
    let root = lowering.add(op, vertex);
    lowering.stages.list[site.stage].state.root = Some(root);
    lowering.commit(site.stage, created_by, true);
    Ok(())
}

/// A device as the graph has it (`dockerfile2llb/convert_rundevice.go`).
fn device(device: &Device) -> CdiDevice {
    CdiDevice {
        name: device.name.clone(),
        optional: !device.required,
    }
}

/// Program and arguments, the text shown for them, and the root with the script if the command is one.
fn command(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    line: &CommandLine,
) -> Result<(Vec<String>, String, Option<Made>), FrontendError> {
    let mut arguments = line.arguments.clone();
    let mut shown = site.source().to_owned();
    let mut script = None;
    if let Some(first) = line.heredocs.first() {
        let ([text], true) = (line.arguments.as_slice(), line.prepend_shell) else {
            return Err(FrontendErrorKind::HeredocCommand(line.arguments.clone()).into());
        };
        if rbuild_dockerfile::is_heredoc(text) {
            let data = if first.chomp {
                chomp(&first.content)
            } else {
                first.content.clone()
            };
            let windows = lowering.stages.list[site.stage].image.os == "windows";
            if !windows && data.starts_with("#!") {
                script = Some(lowering.inline_file(&first.name, 0o755, &data));
                arguments = vec![rbuild_dockerfile::path::join(&["/dev/pipes/", &first.name])];
                // Its path goes through the shell all the same, as in BuildKit.
            } else {
                arguments = vec![data];
            }
            shown += &format!(" ({})", summary(&first.content));
        } else {
            let mut whole = text.clone();
            for heredoc in &line.heredocs {
                whole.push('\n');
                whole += &heredoc.content;
                whole += &heredoc.name;
            }
            arguments = vec![whole];
        }
    }
    let arguments = config::with_shell(&lowering.stages.list[site.stage], line.prepend_shell, &arguments);
    Ok((arguments, shown, script))
}

/// First line of a here-document, with dots if there are more.
fn summary(text: &str) -> String {
    let text = text.trim();
    match text.split_once('\n') {
        Some((first, _)) => format!("{}...", first.strip_suffix('\r').unwrap_or(first)),
        None => text.to_owned(),
    }
}

/// `RUN |n a=b … command # buildkit`: the arguments declared so far with their last values, in the order in which
/// they were first declared.
fn history(stage: &StageState, arguments: &[String]) -> String {
    let mut declared: Vec<(&str, &str)> = Vec::new();
    let mut positions = std::collections::HashMap::new();
    for (name, value) in &stage.build_args {
        let name = name.as_str();
        let value = stage
            .state
            .env
            .get(name)
            .unwrap_or(value.as_deref().unwrap_or_default());
        match positions.get(name) {
            Some(at) => declared[*at] = (name, value),
            None => {
                positions.insert(name, declared.len());
                declared.push((name, value));
            }
        }
    }
    let mut text = "RUN ".to_owned();
    if !declared.is_empty() {
        text += &format!("|{} ", declared.len());
        for (name, value) in declared {
            text += &format!("{name}={value} ");
        }
    }
    text + &arguments.join(" ") + " # buildkit"
}

fn meta(lowering: &Lowering<'_>, site: Site<'_>, args: Vec<String>, mounts: &Mounts) -> ExecMeta {
    let options = lowering.options;
    let state = &lowering.stages.list[site.stage].state;
    let mut env = state.env.to_list();
    if let Some(socket) = mounts.first_ssh_socket()
        && state.env.get("SSH_AUTH_SOCK").is_none()
    {
        env.push(format!("SSH_AUTH_SOCK={socket}"));
    }
    ExecMeta {
        args,
        env,
        cwd: state.dir.clone(),
        user: state.user.clone(),
        proxy_env: lowering.proxy.clone(),
        extra_hosts: options.extra_hosts.clone(),
        hostname: options.hostname.clone(),
        ulimit: options.ulimits.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        remove_mount_stubs_recursive: true,
        valid_exit_codes: Vec::new(),
    }
}
