//! RUN and its mounts.

use rbuild_graph::{HostIp, NetMode, Ulimit};

use crate::dump::dump;
use crate::fake::{Fake, history, lower_with, lowered, options};

/// What a single RUN becomes: the last vertex of the dump.
fn step(dockerfile: &str) -> String {
    let text = dump(&lowered(dockerfile));
    let start = text.rfind("\n%").map_or(0, |at| at + 1);
    text[start..].to_owned()
}

#[test]
fn forms_of_the_command() {
    for (run, args) in [
        ("RUN echo a  b", r#"["/bin/sh", "-c", "echo a  b"]"#),
        (r#"RUN ["echo", "$x"]"#, r#"["echo", "$x"]"#),
        (r#"RUN ["echo"] x"#, r#"["/bin/sh", "-c", "[\"echo\"] x"]"#),
        ("SHELL [\"bash\", \"-ec\"]\nRUN x", r#"["bash", "-ec", "x"]"#),
        (
            "RUN <<EOF\necho 1\n\techo 2\nEOF",
            r#"["/bin/sh", "-c", "echo 1\n\techo 2\n"]"#,
        ),
        ("RUN <<-EOF\n\techo 1\n\tEOF", r#"["/bin/sh", "-c", "echo 1\n"]"#),
        (
            "RUN cat <<A | tr <<B\n1\nA\n2\nB",
            r#"["/bin/sh", "-c", "cat <<A | tr <<B\n1\nA\n2\nB"]"#,
        ),
        (
            "RUN <<EOF cat\n1\nEOF",
            r#"["/bin/sh", "-c", "<<EOF cat\n1\nEOF"]"#,
        ),
        ("RUN echo \"<<EOF\"", r#"["/bin/sh", "-c", "echo \"<<EOF\""]"#),
    ] {
        let text = step(&format!("FROM alpine\n{run}\n"));
        assert!(text.contains(&format!("exec {args} cwd=/")), "{run}:\n{text}");
    }
}

#[test]
fn a_script_is_mounted_and_run() {
    let lowered = lowered("FROM alpine\nRUN <<EOF\n#!/usr/bin/env python\nprint(1)\nEOF\n");
    let text = dump(&lowered);
    for part in [
        "[internal] preparing inline document\n  on scratch: mkfile /EOF 755 \"#!/usr/bin/env python\\nprint(1)\\n\" ->out",
        "[2/2] RUN <<EOF (#!/usr/bin/env python...)",
        "exec [\"/bin/sh\", \"-c\", \"/dev/pipes/EOF\"]",
        "mount /dev/pipes/ Bind from %1 ro bycontent sel=/",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(history(&lowered), ["RUN /bin/sh -c /dev/pipes/EOF # buildkit"]);
}

#[test]
fn mounts() {
    let text = step(
        "FROM alpine AS base\nFROM alpine\nWORKDIR /w\nENV T=/t\nRUN --mount=target=/ctx --mount=type=bind,from=base,source=bin,dst=bin,rw \\\n  --mount=type=cache,target=$T/cache,sharing=locked --mount=type=cache,id=x,target=/c2,uid=5,mode=700 \\\n  --mount=type=tmpfs,target=/tmp,size=1m --mount=type=cache,from=base,source=/seed,target=/c3,ro true\n",
    );
    for line in [
        "mount / Bind from %1 out\n",
        "mount /ctx Bind from %3 ro bycontent\n",
        "mount /w/bin Bind from %0 bycontent sel=/bin\n",
        "mount /t/cache Cache { id: \"//t/cache\", sharing: Locked } from scratch\n",
        "mount /c2 Cache { id: \"/x\", sharing: Shared } from %2 bycontent sel=/cache\n",
        "mount /tmp Tmpfs { size_bytes: 1048576 } from scratch\n",
        "mount /c3 Cache { id: \"//c3\", sharing: Shared } from %0 ro bycontent sel=/seed\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn secrets_stand_before_sockets() {
    let text = dump(&lowered(
        "FROM alpine\nRUN --mount=type=ssh --mount=type=secret,id=b --mount=type=ssh,id=k --mount=type=secret,id=a true\n",
    ));
    let places = [
        "/run/secrets/b ",
        "/run/secrets/a ",
        "/ssh_agent.0 ",
        "/ssh_agent.1 ",
    ];
    let found: Vec<usize> = places.iter().filter_map(|place| text.find(place)).collect();
    assert!(found.len() == 4 && found.is_sorted(), "{text}");
}

#[test]
fn secrets_and_sockets() {
    let lowered = lowered(
        "FROM alpine\nARG TOKEN=visible\nRUN --mount=type=secret,id=a/b --mount=type=secret,id=t,env=TOKEN,required --mount=type=secret,id=u,env=U,target=/u,mode=0444,uid=3 --mount=type=ssh --mount=type=ssh,id=k,required,mode=0666 echo $TOKEN ${U} $PATH\n",
    );
    let text = dump(&lowered);
    for line in [
        "mount /run/secrets/b Secret { id: \"a/b\", uid: 0, gid: 0, mode: 256, optional: true } from scratch\n",
        "mount /u Secret { id: \"u\", uid: 3, gid: 0, mode: 292, optional: true } from scratch\n",
        "mount /run/buildkit/ssh_agent.0 Ssh { id: \"\", uid: 0, gid: 0, mode: 384, optional: true } from scratch\n",
        "mount /run/buildkit/ssh_agent.1 Ssh { id: \"k\", uid: 0, gid: 0, mode: 438, optional: false } from scratch\n",
        "secret t as $TOKEN\n",
        "secret u as $U optional\n",
        "\"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0\"]",
        "required,mode=0666 echo **** **** /bin @3",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("RUN --mount=type=secret,id=a/b visible"));
}

#[test]
fn names_show_values_and_keep_quotes() {
    let text = step("FROM alpine\nARG A=1\nRUN echo \"$A\" '$A' $B \\\n  # gone\n  end\n");
    assert!(text.contains("[2/2] RUN echo \"1\" '$A' $B   end"), "{text}");
    let text = step("FROM alpine\nrun x\n");
    assert!(text.contains("[2/2] RUN x @2"), "{text}");
}

#[test]
fn network_and_security_and_the_builds_own_settings() {
    let text = step("FROM alpine\nRUN --network=none --security=insecure x\n");
    assert!(text.contains("net=None security=Insecure"), "{text}");
    let mut options = options("FROM alpine\nUSER me:us\nRUN x\nRUN --network=host y\n");
    options.network = NetMode::None;
    options.shm_size_bytes = 7;
    options.hostname = "h".to_owned();
    options.cgroup_parent = "/cg".to_owned();
    options.extra_hosts.push(HostIp {
        host: "a".into(),
        ip: "1.2.3.4".into(),
    });
    options.ulimits.push(Ulimit {
        name: "nofile".into(),
        soft: 1,
        hard: 2,
    });
    options.build_args.insert("http_proxy".into(), "http://p".into());
    options.build_args.insert("NO_PROXY".into(), "x".into());
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    let text = dump(&lowered);
    for part in [
        "user=\"me:us\"",
        "net=None security=Sandbox",
        "net=Host security=Sandbox",
        "proxy http://p x",
        "mount /dev/shm Tmpfs { size_bytes: 7 } from scratch",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(
        history(&lowered)[1],
        "RUN /bin/sh -c x # buildkit",
        "proxies are in no history"
    );
}

#[test]
fn history_has_the_arguments_declared_so_far() {
    let lowered = lowered("FROM alpine\nARG A=1\nARG B\nARG A=2\nENV C=x\nARG C=y\nRUN z\n");
    assert_eq!(
        history(&lowered).last().unwrap(),
        "RUN |3 A=2 B= C=y /bin/sh -c z # buildkit"
    );
}

#[test]
fn devices_are_optional_unless_they_are_required() {
    let lowered = lowered("FROM alpine\nRUN --device=v.com/c=d --device=name=class,required x\n");
    let graph = &lowered.graph;
    let target = lowered.result.as_ref().map(|edge| &edge.vertex);
    let Some(rbuild_graph::Op::Exec(exec)) = target
        .and_then(|vertex| graph.get(vertex))
        .map(|vertex| &vertex.op)
    else {
        panic!("the last operation is a step");
    };
    let devices: Vec<(&str, bool)> = exec
        .cdi_devices
        .iter()
        .map(|device| (device.name.as_str(), device.optional))
        .collect();
    assert_eq!(devices, [("v.com/c=d", true), ("class", false)]);
}
