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
        "Health": null,
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
        ("{{.Config.Cmd}}", "[]"),
        ("{{json .Config.Cmd}}", "null"),
        ("{{.Health}} {{json .Health}}", "<nil> null"),
        ("{{.Config.Labels.none}}", "<no value>"),
        (
            "{{split .Id \":\"}} {{title .Os}} {{pad .Os 1 2}}|",
            "[sha256 ab] Linux  linux  |",
        ),
        (
            "{{truncate .Os 3}} {{slice .Os 1 3}} {{slice .RepoTags 1}}",
            "lin in [app:2]",
        ),
        (
            "{{printf \"%.3s|%q|%-7s|%5d|%05d|%v|%%\" .Os .Os .Os .Size .Size .RepoTags}}",
            "lin|\"linux\"|linux  |   12|00012|[app:1 app:2]|%",
        ),
        (
            "{{printf \"%d %s\" .Os}} {{printf \"x\" 1}}",
            "%!d(linux) %!s(MISSING) x%!(EXTRA 1)",
        ),
        (
            "{{print .Os .Size 1 2}} {{println 1 .Os}}",
            "linux12 1 2 1 linux\n",
        ),
        (
            "{{and .Os .Size}} {{or .Config.Cmd \"none\"}} {{not .Os}}",
            "12 none false",
        ),
        (
            "{{lt .Size 13}} {{ge .Size 13}} {{gt .Os \"a\"}} {{le 1 1.5}}",
            "true false true true",
        ),
        ("{{(index .RepoTags 0)}} {{(.Config).Labels.z}}", "app:1 w"),
        ("{{true}} {{len \"abc\"}} {{nil | json}}", "true 3 null"),
        (
            "{{$x := .Os}}{{$x}} {{$.Os}} {{$x = \"b\"}}{{$x}}",
            "linux linux b",
        ),
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
        ("a {{- /* x */ -}} b", "ab"),
        (
            "{{range $key, $value := .Config.Labels}}{{$key}}={{$value}};{{end}}",
            "org.x=y;z=w;",
        ),
        (
            "{{range $at, $value := .Config.Env}}{{if $at}},{{end}}{{$value}}{{end}}",
            "A=1,B=2",
        ),
        (
            "{{range $tag := .RepoTags}}{{$tag}} {{.}};{{end}}",
            "app:1 app:1;app:2 app:2;",
        ),
        (
            "{{with .Os}}{{.}}{{else}}none{{end}}{{with .Config.Cmd}}x{{else}}-{{end}}",
            "linux-",
        ),
        (
            "{{if .Config.Cmd}}a{{else if eq .Os \"linux\"}}b{{else}}c{{end}}",
            "b",
        ),
        ("{{range .Config.Env}}{{.}}{{break}}{{end}}", "A=1"),
        (
            "{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{end}}",
            "B=2",
        ),
        ("{{if and (eq .Os \"linux\") (ne .Size 1)}}both{{end}}", "both"),
        (
            "{{$found := \"\"}}{{range .Config.Env}}{{$found = .}}{{end}}{{$found}}",
            "B=2",
        ),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (template, expected) in [
        ("{{.Id", ParseError::Unclosed),
        ("{{\"x}}", ParseError::Quote),
        ("{{html .Id}}", ParseError::Function("html".to_owned())),
        (
            "{{template \"x\"}}",
            ParseError::Unsupported("template".to_owned()),
        ),
        ("{{$x}}", ParseError::Variable("$x".to_owned())),
        (
            "{{with $x := .Id}}{{end}}{{$x}}",
            ParseError::Variable("$x".to_owned()),
        ),
        ("{{break}}", ParseError::Function("break".to_owned())),
        (
            "{{if .Id}}{{else}}{{else}}{{end}}",
            ParseError::Unexpected("else".to_owned()),
        ),
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
    assert_eq!(fails("{{.Nope}}"), EvalError::Field("Nope".to_owned()));
    assert_eq!(fails("{{.Config.Nope}}"), EvalError::Field("Nope".to_owned()));
    assert_eq!(fails("{{slice .Os 9}}"), EvalError::Range(9));
    assert_eq!(fails("{{pad .Os 1 999999999}}"), EvalError::Arguments("pad"));
    assert_eq!(
        fails("{{printf \"%99999999s\" .Os}}"),
        EvalError::Arguments("printf")
    );
}

#[test]
fn fields_of_documents_have_their_names_in_go() {
    let data = serde_json::json!({
        "manifest": { "mediaType": "m", "digest": "d<", "platform": { "architecture": "a", "os": "o" } },
        "image": { "architecture": "a", "history": [{ "created_by": "RUN" }], "config": { "Labels": { "type": "x", "os": "y", "size": "1" } } },
        "SBOM": {},
    });
    let render = |text: &str| Template::parse(text).unwrap().render_document(&data).unwrap();
    assert_eq!(render("{{.Manifest.Digest}} {{.Manifest.MediaType}}"), "d< m");
    assert_eq!(render("{{.Manifest.Platform.Architecture}}"), "a");
    assert_eq!(render("{{range .Image.History}}{{.CreatedBy}}{{end}}"), "RUN");
    assert_eq!(render("{{.Image.Config.Labels.Type}}"), "<no value>");
    assert_eq!(render("{{.Manifest.Nothing}}"), "<no value>");
    assert_eq!(
        Template::parse("{{.Nothing}}").unwrap().render_document(&data),
        Err(EvalError::Field("Nothing".to_owned()))
    );
    // In the order of Go's structures, and of keys in maps; what Go has as a method is not there.
    assert_eq!(
        render("{{json .Manifest}}"),
        "{\n  \"mediaType\": \"m\",\n  \"digest\": \"d\\u003c\",\n  \"platform\": {\n    \"architecture\": \"a\",\n    \"os\": \"o\"\n  }\n}"
    );
    assert_eq!(
        render("{{json .Image.Config}} {{json .SBOM}}"),
        "{\n  \"Labels\": {\n    \"os\": \"y\",\n    \"size\": \"1\",\n    \"type\": \"x\"\n  }\n} {}"
    );
    assert!(!render("{{json .}}").contains("SBOM"));
}

#[test]
fn a_header_keeps_its_titles() {
    let titles = serde_json::json!({ "ID": "IMAGE ID", "Tag": "TAG" });
    let header = |text: &str| Template::parse(text).unwrap().render_header(&titles);
    assert_eq!(
        header("{{lower .ID}}\t{{truncate .ID 3}} {{pad .Tag 1 1}}|{{json .Tag}}").unwrap(),
        "IMAGE ID\tIMAGE ID  TAG |TAG"
    );
    assert_eq!(header("{{.Nope}}"), Err(EvalError::Field("Nope".to_owned())));
}
