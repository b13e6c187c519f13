//! The little of XML that S3 and Azure answer with: the text of an element that has no other elements in it.

/// The text of the first element of this name, nothing if there is none or it holds elements.
pub(crate) fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    (!inner.contains('<')).then(|| unescaped(inner))
}

/// Code and message of an error document.
pub(crate) fn error(body: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, error) = text.split_once("<Error>")?;
    let code = element(error, "Code")?;
    let message = element(error, "Message").unwrap_or_default();
    // Azure tells the request's id and time on lines of their own.
    let first = message.lines().next().unwrap_or_default().to_owned();
    Some((code, first))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let entity = after.split_once(';').and_then(|(name, tail)| {
            let character = match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                _ => {
                    let number = name.strip_prefix('#')?;
                    let code = match number.strip_prefix('x') {
                        Some(digits) => u32::from_str_radix(digits, 16),
                        None => number.parse(),
                    };
                    char::from_u32(code.ok()?)?
                }
            };
            Some((character, tail))
        });
        match entity {
            Some((character, tail)) => {
                out.push(character);
                rest = tail;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `text` as the content of an element.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_errors_are_found() {
        let text = "<?xml version=\"1.0\"?>\n<R xmlns=\"x\"><UploadId>a&amp;b&#34;&#x41;&x;&</UploadId><A><B>1</B></A></R>";
        assert_eq!(element(text, "UploadId").as_deref(), Some("a&b\"A&x;&"));
        assert_eq!(element(text, "A"), None, "it holds an element");
        assert_eq!(element(text, "C"), None);
        assert_eq!(element("<B>1", "B"), None);
        let body = b"<Error><Code>NoSuchBucket</Code><Message>It is\nnot here</Message></Error>";
        assert_eq!(error(body), Some(("NoSuchBucket".to_owned(), "It is".to_owned())));
        assert_eq!(error(b"<html>\xff"), None);
        assert_eq!(
            error(b"<Error><Code>A</Code></Error>"),
            Some(("A".to_owned(), String::new()))
        );
        assert_eq!(
            element(&format!("<E>{}</E>", escaped("\"a<&>")), "E").as_deref(),
            Some("\"a<&>")
        );
    }
}
