//! `login`, `build --push` and `push` where Debian's `docker-registry` takes signed tokens only.

use std::fs;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;
use rbuild_testkit::peer::DockerRegistry;
use rbuild_testkit::registry::{ISSUER, RegistryAuth, TestRegistry};

use crate::e2e::fixture::Fixture;

const IDENTITY: &str = "r3fresh/me+now";
const PASSWORD: &str = "pa55:w0rd";

/// A registry with private and public repositories, and who gives tokens for it.
fn site() -> (TestRegistry, DockerRegistry) {
    let tokens = TestRegistry::start_with(RegistryAuth::Bearer {
        user: "ann".to_owned(),
        password: PASSWORD.to_owned(),
        identity_token: Some(IDENTITY.to_owned()),
        anonymous_pull: true,
        realm: None,
    });
    tokens.sign_tokens(300);
    let realm = format!("http://{}/token", tokens.host());
    let registry = DockerRegistry::with_tokens(&realm, ISSUER).expect("docker-registry");
    (tokens, registry)
}

fn log_in(fixture: &Fixture, host: &str, password: &str) -> RbuildCommand {
    fixture
        .rbuild(["login", "--username", "ann", "--password-stdin", host])
        .stdin(format!("{password}\n"))
}

#[test]
fn a_login_keeps_the_identity_token_and_not_the_password() {
    let (tokens, registry) = site();
    let host = registry.host();
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let config = fixture.home.home().join(".docker/config.json");
    let wrong = log_in(&fixture, &host, "wrong").fails();
    assert_eq!(wrong.status.code(), Some(4), "{wrong}");
    assert!(!config.exists());
    log_in(&fixture, &host, PASSWORD).ok();
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    // docker's own form: the user with an empty password, and the token.
    let expected = serde_json::json!({"auth": "YW5uOg==", "identitytoken": IDENTITY});
    assert_eq!(kept["auths"][&host], expected);
    tokens.clear_requests();
    let app = format!("{host}/team/app:1");
    fixture
        .build()
        .args(["--push", "-t", &app])
        .ok()
        .never_says(IDENTITY)
        .never_says(PASSWORD);
    assert_eq!(
        (tokens.count("POST", "/token"), tokens.count("GET", "/token")),
        (1, 0)
    );
    // What we wrote logs skopeo in too.
    tokens.clear_requests();
    RbuildCommand::new(machine::required("skopeo", "skopeo").expect("a tool of the tests"))
        .args(["inspect", "--tls-verify=false", "--authfile"])
        .arg(&config)
        .arg(format!("docker://{app}"))
        .ok();
    assert!(tokens.count("POST", "/token") > 0, "{:?}", tokens.requests());
}

#[test]
fn what_a_token_does_not_allow_has_its_exit_code() {
    let (tokens, registry) = site();
    let host = registry.host();
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let app = format!("{host}/team/app:1");
    let push = || fixture.build().args(["--push", "-t", &app]);
    let anonymous = push().fails();
    assert_eq!(anonymous.status.code(), Some(4), "{anonymous}");
    log_in(&fixture, &host, PASSWORD).ok();
    push().ok();
    // Anyone may pull it.
    let other = Fixture::new(&format!("FROM {app}\n"));
    other.build().ok();
    tokens.close_repository("team/app");
    let closed = push().args(["--label", "c=d"]).fails();
    assert_eq!(closed.status.code(), Some(4), "{closed}");
    let closed = fixture.rbuild(["pull", &app]).fails();
    assert_eq!(closed.status.code(), Some(4), "{closed}");
    fixture
        .rbuild(["--offline", "login", "-u", "ann", "-p", "x", &host])
        .fails()
        .says(&host)
        .says("--offline forbids");
}

#[test]
fn a_base_of_another_repository_is_mounted_by_a_token_for_both() {
    let (tokens, registry) = site();
    let host = registry.host();
    let base = Fixture::new("FROM busybox\n");
    log_in(&base, &host, PASSWORD).ok();
    base.build()
        .args(["--push", "-t", &format!("{host}/base:1")])
        .ok();
    let app = Fixture::new(&format!("FROM {host}/base:1\nLABEL a=b\n"));
    log_in(&app, &host, PASSWORD).ok();
    tokens.clear_requests();
    let to = format!("{host}/app:1");
    app.build().args(["--push", "-t", &to]).ok();
    // The form's body is not in the log: two scopes make it longer than one does.
    let asked: Vec<usize> = tokens.requests().iter().map(|request| request.body_len).collect();
    assert!(
        asked.len() >= 2 && asked.iter().max() > asked.iter().min(),
        "{asked:?}"
    );
    let again = Fixture::new(&format!("FROM {to}\nRUN true\n"));
    again.build().ok();
}
