//! Versions and what is asked of them, as `Masterminds/semver` reads both.

/// A version; what is absent of it is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    pre: Vec<String>,
    /// How many of the numbers were given.
    given: usize,
}

/// Whether `version` satisfies `constraint`: alternatives between `||`, each of conditions that all have to hold.
///
/// # Errors
/// What cannot be read.
pub(super) fn satisfies(version: &str, constraint: &str) -> Result<bool, String> {
    let version = parse(version.trim()).ok_or_else(|| "invalid semantic version".to_owned())?;
    let mut is_met = false;
    for alternative in constraint.split("||") {
        let mut holds = true;
        for (operator, bound) in conditions(alternative)? {
            holds &= meets(&version, &operator, &bound);
        }
        is_met |= holds;
    }
    Ok(is_met)
}

fn parse(text: &str) -> Option<Version> {
    let text = text.trim_start_matches('v');
    let text = text.split_once('+').map_or(text, |(text, _)| text);
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    let mut version = Version {
        numbers: [0; 3],
        pre: pre
            .split('.')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
        given: 0,
    };
    for part in numbers.split('.') {
        if matches!(part, "x" | "X" | "*") {
            return Some(version);
        }
        *version.numbers.get_mut(version.given)? = part.parse().ok()?;
        version.given += 1;
    }
    Some(version)
}

/// Operators and versions of one alternative.
fn conditions(text: &str) -> Result<Vec<(String, Version)>, String> {
    let improper = || format!("improper constraint: {text}");
    if let Some((from, to)) = text.split_once(" - ") {
        let (from, to) = (parse(from.trim()), parse(to.trim()));
        let (from, to) = from.zip(to).ok_or_else(improper)?;
        return Ok(vec![(">=".to_owned(), from), ("<=".to_owned(), to)]);
    }
    let mut found = Vec::new();
    let mut operator = String::new();
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        let at = word
            .find(|next: char| !"=!<>~^".contains(next))
            .unwrap_or(word.len());
        operator.push_str(&word[..at]);
        if at < word.len() {
            let version = parse(&word[at..]).ok_or_else(improper)?;
            found.push((std::mem::take(&mut operator), version));
        }
    }
    let is_known = |operator: &str| {
        matches!(
            operator,
            "" | "=" | "!=" | ">" | "<" | ">=" | "=>" | "<=" | "=<" | "~" | "~>" | "^"
        )
    };
    if found.is_empty() || !operator.is_empty() || found.iter().any(|(operator, _)| !is_known(operator)) {
        return Err(improper());
    }
    Ok(found)
}

fn order(one: &Version, two: &Version) -> std::cmp::Ordering {
    one.numbers
        .cmp(&two.numbers)
        .then_with(|| match (one.pre.is_empty(), two.pre.is_empty()) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
            (false, false) => {
                let part = |text: &String| {
                    text.parse::<u64>()
                        .map_or((1, 0, text.clone()), |n| (0, n, String::new()))
                };
                one.pre.iter().map(part).cmp(two.pre.iter().map(part))
            }
        })
}

fn meets(version: &Version, operator: &str, bound: &Version) -> bool {
    // A version before a release is meant only where the constraint has one.
    if !version.pre.is_empty() && bound.pre.is_empty() && operator != "!=" {
        return false;
    }
    let same = |count: usize| version.numbers[..count] == bound.numbers[..count];
    let ordering = order(version, bound);
    match operator {
        "" | "=" if bound.given < 3 => same(bound.given),
        "" | "=" => ordering.is_eq(),
        "!=" if bound.given < 3 => !same(bound.given),
        "!=" => ordering.is_ne(),
        ">" if bound.given < 3 => ordering.is_gt() && !same(bound.given),
        ">" => ordering.is_gt(),
        "<" => ordering.is_lt(),
        ">=" | "=>" => ordering.is_ge(),
        "<=" | "=<" if bound.given < 3 => ordering.is_le() || same(bound.given),
        "<=" | "=<" => ordering.is_le(),
        "~" | "~>" => ordering.is_ge() && same(bound.given.min(2)),
        _ => {
            let first = bound.numbers.iter().position(|number| *number > 0);
            let kept = first.map_or(bound.given.max(1), |at| at + 1).min(3);
            ordering.is_ge() && same(kept)
        }
    }
}
