//! Shell text cut into simple commands, as far as rules need it: quotes, comments and separators are understood,
//! nothing is expanded or run.

/// Words that stand before a command and are none.
const BEFORE: [&str; 17] = [
    "if",
    "then",
    "else",
    "elif",
    "do",
    "while",
    "until",
    "!",
    "{",
    "time",
    "exec",
    "command",
    "sudo",
    "env",
    "nice",
    "eatmydata",
    "corepack",
];

/// The simple commands of `text`, each as its words without quotes. Assignments and words like `then` in front of a
/// command are left out.
pub(super) fn split(text: &str) -> Vec<Vec<String>> {
    let mut cutter = Cutter::default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                cutter.open = true;
                cutter.word.extend(chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => {
                cutter.open = true;
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match (c, chars.peek().copied()) {
                        ('\\', Some(next)) if matches!(next, '"' | '\\' | '`') => {
                            cutter.word.push(next);
                            chars.next();
                        }
                        _ => cutter.word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => cutter.push(c),
            },
            '#' if !cutter.open => {
                for _ in chars.by_ref().take_while(|c| *c != '\n') {}
                cutter.end_command();
            }
            // `2>&1` and `&>file` are redirections.
            '&' if cutter.word.ends_with('>') || chars.peek() == Some(&'>') => cutter.push(c),
            ';' | '&' | '|' | '\n' | '(' | ')' => cutter.end_command(),
            c if c.is_whitespace() => cutter.end_word(),
            c => cutter.push(c),
        }
    }
    cutter.end_command();
    cutter.commands
}

#[derive(Default)]
struct Cutter {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: String,
    /// A word has begun, be it empty.
    open: bool,
}

impl Cutter {
    fn push(&mut self, c: char) {
        self.open = true;
        self.word.push(c);
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        if !std::mem::take(&mut self.open) {
            return;
        }
        let is_assignment = || {
            word.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            })
        };
        if self.words.is_empty() && (BEFORE.contains(&word.as_str()) || is_assignment()) {
            return;
        }
        self.words.push(word);
    }

    fn end_command(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.commands.push(std::mem::take(&mut self.words));
        }
    }
}

/// The program without its directory, and its arguments.
pub(super) fn program(command: &[String]) -> (&str, &[String]) {
    match command {
        [] => ("", &[]),
        [program, arguments @ ..] => (program.rsplit('/').next().unwrap_or(program), arguments),
    }
}

/// The arguments that are no options.
pub(super) fn operands(arguments: &[String]) -> impl Iterator<Item = &str> {
    let words = arguments.iter().map(String::as_str);
    words.filter(|word| !word.starts_with('-') && !word.contains('>'))
}
