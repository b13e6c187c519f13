//! What docker prints for the templates people write.

use serde_json::json;

use super::*;

fn data() -> Value {
    json!({
        "Id": "sha256:ab",
        "RepoTags": ["app:1", "app:2"],
        "Size": 12,
        "Config": {"Env": ["A=1", "B=2"], "Labels": {"org.x": "y", "z": "w"}, "Cmd": null},
        "Os": "linux",
    })
}

fn render(text: &str) -> String {
    Template::parse(text).unwrap().render(&data()).unwrap()
}

#[test]
fn fields_and_functions() {
    for (template, expected) in [
        ("{{.Id}}", "sha256:ab"),
        ("{{ .Os }}/{{.Size}}", "linux/12"),
        ("{{.RepoTags}}", "[app:1 app:2]"),
        ("{{index .RepoTags 1}}", "app:2"),
        ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
        ("{{.Config.Env | json}}", r#"["A=1","B=2"]"#),
        ("{{join .RepoTags \", \"}}", "app:1, app:2"),
        ("{{index .Config.Labels \"org.x\"}}", "y"),
        ("{{index .Config.Labels \"none\"}}", ""),
        ("{{.Config.Labels.z}}", "w"),
        ("{{.Config.Labels}}", "map[org.x:y z:w]"),
        ("{{.Config.Cmd}}", "<no value>"),
        ("{{len .RepoTags}}", "2"),
        ("{{upper .Os}}{{lower `ABC`}}", "LINUXabc"),
        ("{{(index .RepoTags 0) | upper}}", "APP:1"),
        ("{{/* nothing */}}x", "x"),
        ("plain", "plain"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn blocks() {
    for (template, expected) in [
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        (
            "{{range .Config.Env}}{{$.Os}} {{.}};{{end}}",
            "linux A=1;linux B=2;",
        ),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Labels}}{{.}},{{end}}", "y,w,"),
        ("{{if .Config.Cmd}}a{{else}}b{{end}}", "b"),
        ("{{if eq .Os \"linux\"}}a{{end}}", "a"),
        ("{{if ne .Os \"linux\" }}a{{end}}", ""),
        ("{{if .Size}}{{if .RepoTags}}both{{end}}{{end}}", "both"),
        ("a  {{- .Os -}}  b", "alinuxb"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (template, expected) in [
        ("{{.Id", ParseError::Unclosed),
        ("{{\"x}}", ParseError::Quote),
        ("{{split .Id \":\"}}", ParseError::Function("split".to_owned())),
        ("{{if .Id}}", ParseError::NoEnd("if")),
        ("{{end}}", ParseError::Unexpected("end".to_owned())),
        ("{{(.Id}}", ParseError::Unclosed),
    ] {
        assert_eq!(Template::parse(template).unwrap_err(), expected, "{template}");
    }
    assert!(matches!(
        Template::parse("{{}}x}}{{.Id .Os}}"),
        Err(ParseError::Syntax(_))
    ));
    let deep = "{{if .Id}}".repeat(60) + &"{{end}}".repeat(60);
    assert_eq!(Template::parse(&deep).unwrap_err(), ParseError::Deep(50));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let fails = |template: &str| Template::parse(template).unwrap().render(&data()).unwrap_err();
    assert_eq!(fails("{{index .RepoTags 2}}"), EvalError::Range(2));
    assert_eq!(fails("{{index .RepoTags -1}}"), EvalError::Range(-1));
    assert_eq!(fails("{{.Id.x}}"), EvalError::Field("x".to_owned()));
    assert_eq!(fails("{{join .Id \",\"}}"), EvalError::Arguments("join"));
    assert_eq!(fails("{{range .Size}}{{end}}"), EvalError::Arguments("range"));
}

#[test]
fn fields_of_documents_have_their_names_in_go() {
    let data = serde_json::json!({
        "Manifest": { "mediaType": "m", "digest": "d", "platform": { "architecture": "a", "os": "o" } },
        "Labels": { "arch": "x" },
    });
    let render = |text: &str| Template::parse(text).unwrap().render(&data).unwrap();
    assert_eq!(render("{{.Manifest.Digest}} {{.Manifest.MediaType}}"), "d m");
    assert_eq!(render("{{.Manifest.Platform.Architecture}}"), "a");
    assert_eq!(render("{{.Labels.Arch}}"), "<no value>");
}
