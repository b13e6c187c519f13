//! Arguments that hold before any stage: the platform's, those in front of the first FROM, proxies.

use std::collections::BTreeSet;

use rbuild_dockerfile::directive::{self, DirectiveName};
use rbuild_dockerfile::{Dockerfile, Instruction, InstructionKind};
use rbuild_graph::ProxyEnv;

use crate::convert::Values;
use crate::env::Env;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lint::CheckOptions;
use crate::lowering::Lowering;
use crate::options::FrontendOptions;

/// The build argument with lint options.
pub(crate) const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Lint options: a `BUILDKIT_DOCKERFILE_CHECK` argument replaces the directive; rules of our own may be asked for beside it.
pub(super) fn check_options(options: &FrontendOptions) -> Result<CheckOptions, FrontendError> {
    let mut check = match check_argument(options)? {
        Some(check) => check,
        None => {
            let found = directive::find(DirectiveName::Check, &options.dockerfile);
            let text = found.map(|(word, _)| word).unwrap_or_default();
            CheckOptions::parse(&text).map_err(FrontendErrorKind::CheckOptions)?
        }
    };
    if options.own_checks {
        check.ask_own();
    }
    check.error &= !options.later_platform;
    Ok(check)
}

/// Lint options of a build argument: wrong ones are refused whatever is asked.
pub(crate) fn check_argument(options: &FrontendOptions) -> Result<Option<CheckOptions>, FrontendError> {
    let text = options.build_args.get(CHECK_ARG);
    let check = text.map(|text| CheckOptions::parse(text)).transpose();
    check.map_err(|error| FrontendErrorKind::CheckArgument(error).into())
}

/// The arguments that are there by themselves, in BuildKit's order.
pub(super) fn defaults(lowering: &Lowering<'_>, target: &str) -> Env {
    let (build, target_platform) = (&lowering.options.build_platform, &lowering.target_platform);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let list = [
        ("BUILDPLATFORM", build.short()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", text(&build.os_version)),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", text(&build.variant)),
        ("TARGETPLATFORM", target_platform.to_string()),
        ("TARGETOS", target_platform.os.clone()),
        ("TARGETOSVERSION", text(&target_platform.os_version)),
        ("TARGETARCH", target_platform.architecture.clone()),
        ("TARGETVARIANT", text(&target_platform.variant)),
        (
            "TARGETSTAGE",
            if target.is_empty() {
                "default".to_owned()
            } else {
                target.to_owned()
            },
        ),
    ];
    let mut env = Env::default();
    for (name, value) in list {
        env.set(name, lowering.build_args.get(name).unwrap_or(&value));
    }
    env
}

/// Adds the ARGs in front of the first FROM; with `given`, build arguments beat their defaults.
pub(super) fn global(
    lowering: &mut Lowering<'_>,
    instructions: &[Instruction],
    mut env: Env,
    given: bool,
) -> Result<Env, FrontendError> {
    for instruction in instructions {
        let InstructionKind::Arg(definitions) = &instruction.kind else {
            continue;
        };
        for definition in definitions {
            let mut matched = BTreeSet::new();
            let value = match lowering.build_args.get(&definition.key).filter(|_| given) {
                Some(value) => Some(value.clone()),
                None => match &definition.value {
                    Some(value) => {
                        let lexer = lowering.lexer;
                        let found = lowering
                            .expand_with(lexer, value, &env)
                            .map_err(|error| error.or_at(instruction.span))?;
                        matched = found.matched;
                        Some(found.text)
                    }
                    None => None,
                },
            };
            if given {
                lowering.note_global_arg(definition, value.as_deref(), matched, instruction.span)?;
            }
            if let Some(value) = value {
                env.set(&definition.key, &value);
            }
        }
    }
    Ok(env)
}

/// Names of all arguments in front of the first FROM and of those there by themselves.
pub(super) fn declared(dockerfile: &Dockerfile) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for instruction in &dockerfile.global_args {
        if let InstructionKind::Arg(definitions) = &instruction.kind {
            names.extend(definitions.iter().map(|definition| definition.key.clone()));
        }
    }
    names
}

/// Proxies among the build arguments, in either case; the later name in byte order wins.
pub(super) fn proxy(build_args: &Values) -> Option<ProxyEnv> {
    let mut proxy = ProxyEnv::default();
    let mut found = false;
    for (name, value) in build_args {
        let field = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        found = true;
    }
    found.then_some(proxy)
}
