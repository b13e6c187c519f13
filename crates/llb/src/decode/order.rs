//! Order of a definition's operations: what the target needs, each after what it depends on.

use std::collections::HashMap;

use super::LlbError;

/// Names of operations with the names of what they depend on.
pub(super) type Dependencies<'a> = HashMap<&'a str, Vec<&'a str>>;

/// What `target` needs, each after its inputs; `depth` is how many may stand on each other.
///
/// Every dependency is known: the caller has looked.
///
/// # Errors
/// [`LlbError::Cycle`], [`LlbError::TooDeep`].
pub(super) fn order<'a>(
    dependencies: &Dependencies<'a>,
    target: &'a str,
    depth: usize,
) -> Result<Vec<&'a str>, LlbError> {
    // An explicit stack, since a client decides how deep this goes.
    let mut stack = vec![(target, false)];
    let mut heights: HashMap<&str, Option<usize>> = HashMap::new();
    let mut order = Vec::new();
    while let Some((name, inputs_done)) = stack.pop() {
        let inputs = dependencies.get(name).map_or(&[][..], Vec::as_slice);
        if inputs_done {
            let below = inputs
                .iter()
                .filter_map(|input| heights.get(input).copied().flatten());
            let height = below.max().unwrap_or_default() + 1;
            if height > depth {
                return Err(LlbError::TooDeep {
                    digest: name.to_owned(),
                    limit: depth,
                });
            }
            heights.insert(name, Some(height));
            order.push(name);
            continue;
        }
        match heights.get(name) {
            Some(Some(_)) => continue,
            // Begun and not done, and met again: it stands on itself.
            Some(None) => {
                return Err(LlbError::Cycle {
                    digest: name.to_owned(),
                });
            }
            None => {}
        }
        heights.insert(name, None);
        stack.push((name, true));
        for input in inputs.iter().rev() {
            match heights.get(input) {
                Some(Some(_)) => {}
                Some(None) => {
                    return Err(LlbError::Cycle {
                        digest: (*input).to_owned(),
                    });
                }
                None => stack.push((input, false)),
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&'static str, &[&'static str])]) -> Dependencies<'static> {
        edges
            .iter()
            .map(|(name, inputs)| (*name, inputs.to_vec()))
            .collect()
    }

    #[test]
    fn inputs_come_first_and_what_is_not_needed_does_not_come() {
        let graph = graph(&[
            ("d", &["b", "c", "b"]),
            ("c", &["a"]),
            ("b", &["a"]),
            ("a", &[]),
            ("x", &["a"]),
        ]);
        assert_eq!(order(&graph, "d", 3).unwrap(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn row48_an_operation_that_stands_on_itself_is_refused() {
        // Digests make this impossible unless someone breaks SHA-256; the order must end all the same.
        for edges in [
            &[("a", &["a"][..])][..],
            &[("a", &["b"]), ("b", &["c"]), ("c", &["a"])],
            &[("a", &["x", "b"]), ("b", &["a"]), ("x", &[])],
            &[("a", &["b", "b"]), ("b", &["a", "a"])],
        ] {
            assert!(
                matches!(order(&graph(edges), "a", 10), Err(LlbError::Cycle { .. })),
                "{edges:?}"
            );
        }
    }

    #[test]
    fn row48_depth_is_bounded() {
        let graph = graph(&[("c", &["b"]), ("b", &["a"]), ("a", &[])]);
        assert!(matches!(
            order(&graph, "c", 2),
            Err(LlbError::TooDeep { digest, limit: 2 }) if digest == "c"
        ));
        assert!(order(&graph, "c", 3).is_ok());
    }
}
