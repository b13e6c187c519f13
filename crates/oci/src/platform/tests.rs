//! Specifiers, their order, and which platform is chosen for which.

use super::*;

fn parse(text: &str) -> Platform {
    Platform::parse(text).expect(text)
}

#[test]
fn specifiers_mean_what_containerd_says() {
    let host = host_architecture();
    for (text, shown) in [
        ("linux", format!("linux/{host}")),
        ("arm64", "linux/arm64".to_owned()),
        ("aarch64", "linux/arm64".to_owned()),
        ("armhf", "linux/arm".to_owned()),
        ("armel", "linux/arm/v6".to_owned()),
        ("x86_64", "linux/amd64".to_owned()),
        ("i386", "linux/386".to_owned()),
        ("macos", format!("darwin/{host}")),
        ("Linux/AMD64", "linux/amd64".to_owned()),
        ("linux/arm", "linux/arm".to_owned()),
        ("linux/arm/7", "linux/arm/v7".to_owned()),
        ("linux/arm/v6", "linux/arm/v6".to_owned()),
        ("linux/arm64/v8", "linux/arm64/v8".to_owned()),
        ("linux/arm64/9.0", "linux/arm64/v9".to_owned()),
        ("linux/amd64/v1", "linux/amd64".to_owned()),
        ("linux/amd64/v3", "linux/amd64/v3".to_owned()),
        ("foo/bar", "foo/bar".to_owned()),
        (
            "windows(10.0.17763)/amd64",
            "windows(10.0.17763)/amd64".to_owned(),
        ),
        (
            "windows(10.0.17763+win32k)/amd64",
            "windows(10.0.17763+win32k)/amd64".to_owned(),
        ),
        ("linux(+gpu)/amd64", "linux(+gpu)/amd64".to_owned()),
        ("linux(a%20b)/amd64", "linux(a%20b)/amd64".to_owned()),
    ] {
        assert_eq!(parse(text).to_string(), shown, "{text}");
    }
}

#[test]
fn bad_specifiers_are_refused() {
    for text in [
        "",
        "linux/&",
        "linux//",
        "a/b/c/d",
        "foo",
        "*",
        "linux/*",
        "linux(/amd64",
        "linux()x/amd64",
        "/amd64",
        "linux/amd64/",
        "linux(%zz)/amd64",
        "linux(%2)/amd64",
    ] {
        assert!(Platform::parse(text).is_err(), "{text}");
    }
}

#[test]
fn choice_prefers_the_closest_variant() {
    let wanted = parse("linux/arm/v7");
    let index = [
        parse("linux/amd64"),
        parse("linux/arm/v5"),
        parse("linux/arm/v6"),
        parse("linux/arm64"),
    ];
    assert_eq!(wanted.choose(index.iter().map(Some)), Some(2));
    assert_eq!(parse("linux/arm/v5").choose(index.iter().map(Some)), Some(1));
    assert_eq!(parse("linux/arm64").choose(index.iter().map(Some)), Some(3));
    assert_eq!(parse("linux/s390x").choose(index.iter().map(Some)), None);
    assert_eq!(parse("linux/amd64").choose([None, Some(&index[0])]), Some(1));
}

#[test]
fn fallbacks_are_containerds() {
    let runs = |wanted: &str, image: &str| parse(wanted).rank(&parse(image)).is_some();
    assert!(runs("linux/arm64", "linux/arm64/v8"));
    assert!(runs("linux/arm64", "linux/arm/v7"));
    assert!(runs("linux/arm64/v8.2", "linux/arm64/v8.1"));
    assert!(!runs("linux/arm64/v8.1", "linux/arm64/v8.2"));
    assert!(runs("linux/arm64/v9.1", "linux/arm64/v8.6"));
    assert!(!runs("linux/arm64/v9.1", "linux/arm64/v8.7"));
    assert!(runs("linux/amd64/v3", "linux/amd64/v2"));
    assert!(runs("linux/amd64/v3", "linux/amd64"));
    assert!(runs("linux/amd64", "linux/386"));
    assert!(!runs("linux/386", "linux/amd64"));
    assert!(!runs("linux/arm/v6", "linux/arm/v7"));
    assert!(!runs("linux/amd64", "linux(+gpu)/amd64"));
    assert!(runs("linux(+gpu)/amd64", "linux/amd64"));
    assert!(runs("windows(10.0.17763.1)/amd64", "windows(10.0.17763.2)/amd64"));
    assert!(!runs(
        "windows(10.0.17763.1)/amd64",
        "windows(10.0.17764.2)/amd64"
    ));
    assert!(!runs("linux/amd64", "darwin/amd64"));
    assert_eq!(parse("linux/amd64/v4000000000").rank(&parse("linux/arm")), None);
}

#[test]
fn json_is_in_go_order() {
    let platform = Platform {
        os: "windows".to_owned(),
        architecture: "amd64".to_owned(),
        variant: Some("v2".to_owned()),
        os_version: Some("10".to_owned()),
        os_features: vec!["win32k".to_owned()],
    };
    let text = serde_json::to_string(&platform).expect("json");
    assert_eq!(
        text,
        r#"{"architecture":"amd64","os":"windows","os.version":"10","os.features":["win32k"],"variant":"v2"}"#
    );
    assert_eq!(serde_json::from_str::<Platform>(&text).expect("json"), platform);
    let null: Platform = serde_json::from_str(r#"{"os":"linux","os.features":null}"#).expect("json");
    assert_eq!(
        serde_json::to_string(&null).expect("json"),
        r#"{"architecture":"","os":"linux"}"#
    );
}
