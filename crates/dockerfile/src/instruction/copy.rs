//! COPY and ADD.

use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::flags::{FlagType, Flags};
use crate::instruction::words;
use crate::parser::{Node, chomp, parse_heredoc};

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Name of the here-document, and of the file.
    pub name: String,
    /// Content.
    pub data: String,
    /// Variables in it are expanded.
    pub expand: bool,
}

/// What is copied and to where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourcesAndDestination {
    /// Paths, or for ADD also URLs.
    pub paths: Vec<String>,
    /// Inline files, which are copied after the paths.
    pub contents: Vec<InlineFile>,
    /// Destination.
    pub destination: String,
}

/// COPY.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// Sources and destination.
    pub files: SourcesAndDestination,
    /// `--from`; empty if absent.
    pub from: String,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, each.
    pub exclude: Vec<String>,
}

/// ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Add {
    /// Sources and destination.
    pub files: SourcesAndDestination,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, each.
    pub exclude: Vec<String>,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`.
    pub checksum: String,
    /// `--unpack`, if given.
    pub unpack: Option<bool>,
}

pub(super) fn copy(node: &Node) -> Result<Copy, ParseError> {
    let arguments = two_or_more(node, "COPY")?;
    let flags = Flags::parse(
        node,
        &[
            ("chown", FlagType::Text),
            ("from", FlagType::Text),
            ("chmod", FlagType::Text),
            ("link", FlagType::Boolean),
            ("exclude", FlagType::List),
            ("parents", FlagType::Boolean),
        ],
    )?;
    Ok(Copy {
        files: sources(node, arguments, "COPY")?,
        from: flags.text("from").to_owned(),
        chown: flags.text("chown").to_owned(),
        chmod: flags.text("chmod").to_owned(),
        link: flags.boolean("link").unwrap_or(false),
        parents: flags.boolean("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
    })
}

pub(super) fn add(node: &Node) -> Result<Add, ParseError> {
    let arguments = two_or_more(node, "ADD")?;
    let flags = Flags::parse(
        node,
        &[
            ("chown", FlagType::Text),
            ("chmod", FlagType::Text),
            ("link", FlagType::Boolean),
            ("keep-git-dir", FlagType::Boolean),
            ("checksum", FlagType::Text),
            ("unpack", FlagType::Boolean),
            ("exclude", FlagType::List),
        ],
    )?;
    Ok(Add {
        files: sources(node, arguments, "ADD")?,
        chown: flags.text("chown").to_owned(),
        chmod: flags.text("chmod").to_owned(),
        link: flags.boolean("link").unwrap_or(false),
        exclude: flags.list("exclude"),
        keep_git_dir: flags.boolean("keep-git-dir"),
        checksum: flags.text("checksum").to_owned(),
        unpack: flags.boolean("unpack"),
    })
}

fn two_or_more<'a>(node: &'a Node, name: &'static str) -> Result<&'a [String], ParseError> {
    match words(&node.arguments) {
        list @ [_, _, ..] => Ok(list),
        _ => Err(ParseError::new(ParseErrorKind::NoDestination(name), node.span)),
    }
}

fn sources(
    node: &Node,
    arguments: &[String],
    name: &'static str,
) -> Result<SourcesAndDestination, ParseError> {
    let Some((destination, sources)) = arguments.split_last() else {
        return Err(ParseError::new(ParseErrorKind::NoDestination(name), node.span));
    };
    // A word that looks like a here-document but cannot be read is a path.
    let heredoc = |word: &str| parse_heredoc(word).ok().flatten();
    if heredoc(destination).is_some() {
        return Err(ParseError::new(
            ParseErrorKind::HeredocDestination(name),
            node.span,
        ));
    }
    let mut files = SourcesAndDestination {
        destination: destination.clone(),
        ..Default::default()
    };
    for source in sources {
        let Some(mark) = heredoc(source) else {
            files.paths.push(source.clone());
            continue;
        };
        let content = node.heredocs.iter().rev().find(|read| read.name == mark.name);
        let content = content.map(|read| read.content.as_str()).unwrap_or_default();
        let data = if mark.chomp {
            chomp(content)
        } else {
            content.to_owned()
        };
        files.contents.push(InlineFile {
            name: mark.name,
            data,
            expand: mark.expand,
        });
    }
    Ok(files)
}
