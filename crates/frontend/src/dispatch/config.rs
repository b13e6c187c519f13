//! Instructions that only change the image config.

use rbuild_dockerfile::quote::quote_list;
use rbuild_dockerfile::{CommandLine, Healthcheck, KeyValue, Span, duration};

use crate::dispatch::Site;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lint::Rule;
use crate::lowering::Lowering;
use crate::stage::StageState;

/// The command with the stage's shell in front, if it is a shell form.
pub(super) fn with_shell(stage: &StageState, prepend: bool, arguments: &[String]) -> Vec<String> {
    if !prepend {
        return arguments.to_vec();
    }
    let mut command = stage.image.config.shell.clone();
    if command.is_empty() {
        let default: &[&str] = if stage.image.os == "windows" {
            &["cmd", "/S", "/C"]
        } else {
            &["/bin/sh", "-c"]
        };
        command.extend(default.iter().map(|word| (*word).to_owned()));
    }
    command.push(arguments.join(" "));
    command
}

pub(super) fn cmd(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    line: &CommandLine,
) -> Result<(), FrontendError> {
    let before = lowering.stages.list[site.stage].last_cmd.replace(site.span());
    lint_repeated(lowering, site, before);
    lint_shell_form(lowering, site, line);
    let stage = &mut lowering.stages.list[site.stage];
    let command = with_shell(stage, line.prepend_shell, &line.arguments);
    let created_by = format!("CMD {}", quote_list(&command));
    stage.image.config.cmd = command;
    stage.image.config.args_escaped = true;
    lowering.commit(site.stage, created_by, false);
    Ok(())
}

pub(super) fn entrypoint(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    line: &CommandLine,
) -> Result<(), FrontendError> {
    let before = lowering.stages.list[site.stage]
        .last_entrypoint
        .replace(site.span());
    lint_repeated(lowering, site, before);
    lint_shell_form(lowering, site, line);
    let stage = &mut lowering.stages.list[site.stage];
    let command = with_shell(stage, line.prepend_shell, &line.arguments);
    let created_by = format!("ENTRYPOINT {}", quote_list(&command));
    stage.image.config.entrypoint = command;
    // An inherited CMD was meant for the inherited entry point.
    if stage.last_cmd.is_none() {
        stage.image.config.cmd.clear();
    }
    lowering.commit(site.stage, created_by, false);
    Ok(())
}

pub(super) fn healthcheck(lowering: &mut Lowering<'_>, site: Site<'_>, check: &Healthcheck) {
    let before = lowering.stages.list[site.stage]
        .last_healthcheck
        .replace(site.span());
    lint_repeated(lowering, site, before);
    let stage = &mut lowering.stages.list[site.stage];
    stage.image.config.healthcheck = Some(rbuild_oci::Healthcheck {
        test: check.test.clone(),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries.into(),
    });
    let created_by = format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        duration::format(check.interval_ns),
        duration::format(check.timeout_ns),
        duration::format(check.start_period_ns),
        duration::format(check.start_interval_ns),
        check.retries,
    );
    lowering.commit(site.stage, created_by, false);
}

pub(super) fn label(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    pairs: &[KeyValue],
) -> Result<(), FrontendError> {
    let expanded = lowering.expand_pairs(site, pairs)?;
    lowering.lint_legacy(site, pairs);
    let mut created_by = "LABEL".to_owned();
    let labels = &mut lowering.stages.list[site.stage].image.config.labels;
    for (name, value) in expanded {
        created_by += &format!(" {name}={value}");
        labels.insert(name, value);
    }
    lowering.commit(site.stage, created_by, false);
    Ok(())
}

pub(super) fn user(lowering: &mut Lowering<'_>, site: Site<'_>, user: &str) -> Result<(), FrontendError> {
    let user = lowering.expand(site, user)?;
    let stage = &mut lowering.stages.list[site.stage];
    stage.state.user.clone_from(&user);
    stage.image.config.user.clone_from(&user);
    lowering.commit(site.stage, format!("USER {user}"), false);
    Ok(())
}

pub(super) fn volume(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    paths: &[String],
) -> Result<(), FrontendError> {
    let paths = lowering.expand_all(site, paths)?;
    if paths.iter().any(String::is_empty) {
        return Err(FrontendErrorKind::EmptyVolume.into());
    }
    let created_by = format!("VOLUME [{}]", paths.join(" "));
    lowering.stages.list[site.stage]
        .image
        .config
        .volumes
        .extend(paths);
    lowering.commit(site.stage, created_by, false);
    Ok(())
}

pub(super) fn stop_signal(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    signal: &str,
) -> Result<(), FrontendError> {
    let signal = lowering.expand(site, signal)?;
    if !is_signal(&signal) {
        return Err(FrontendErrorKind::Signal(signal).into());
    }
    lowering.stages.list[site.stage]
        .image
        .config
        .stop_signal
        .clone_from(&signal);
    lowering.commit(site.stage, format!("STOPSIGNAL {signal}"), false);
    Ok(())
}

/// A number other than 0, or a name of moby/sys/signal for Linux, with or without `SIG`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let within = |offset: &str, most: u32| {
        let canonical = !offset.starts_with('0') && offset.bytes().all(|b| b.is_ascii_digit());
        canonical
            && offset
                .parse()
                .is_ok_and(|offset: u32| (1..=most).contains(&offset))
    };
    match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(offset), _) => within(offset, 15),
        (_, Some(offset)) => within(offset, 14),
        _ => NAMES.contains(&name),
    }
}

/// The earlier instruction is the one without effect, so that is where the warning points.
fn lint_repeated(lowering: &mut Lowering<'_>, site: Site<'_>, before: Option<Span>) {
    let Some(before) = before else { return };
    let keyword = &site.command.instruction.keyword;
    let message = format!(
        "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
    );
    lowering.lint.warn(
        Rule::MultipleInstructionsDisallowed,
        message,
        before,
        site.comments(),
    );
}

fn lint_shell_form(lowering: &mut Lowering<'_>, site: Site<'_>, line: &CommandLine) {
    if line.prepend_shell && lowering.stages.list[site.stage].image.config.shell.is_empty() {
        let keyword = &site.command.instruction.keyword;
        let message = format!(
            "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
        );
        lowering
            .lint
            .warn(Rule::JsonArgsRecommended, message, site.span(), site.comments());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for good in [
            "SIGTERM",
            "term",
            "9",
            "sigkill",
            "RTMIN+3",
            "SIGRTMAX-14",
            "RTMIN",
            "64",
            "+5",
        ] {
            assert!(is_signal(good), "{good}");
        }
        for bad in [
            "", "0", "SIGFOO", "RTMIN+16", "RTMIN+03", "RTMAX-15", "RTMIN+0", "UNUSED", "SIG",
        ] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
