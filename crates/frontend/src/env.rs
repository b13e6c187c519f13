//! Variables of a stage, in the order in which each was last set (BuildKit `llb.EnvList`).

use std::collections::BTreeMap;

use rbuild_dockerfile::shell::Variables;

/// Ordered variables. Setting one again moves it to the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Env {
    values: BTreeMap<String, (u64, String)>,
    next: u64,
    bytes: usize,
}

impl Env {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.bytes += name.len() + value.len() + 2;
        let old = self.values.insert(name.to_owned(), (self.next, value.to_owned()));
        if let Some((_, old)) = old {
            self.bytes -= name.len() + old.len() + 2;
        }
        self.next += 1;
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some((_, old)) = self.values.remove(name) {
            self.bytes -= name.len() + old.len() + 2;
        }
    }

    /// `name=value` of each, oldest first.
    pub(crate) fn to_list(&self) -> Vec<String> {
        self.ordered()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// Bytes of [`Self::to_list`], with one more for each.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn ordered(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = self.values.iter().collect();
        all.sort_unstable_by_key(|(_, (order, _))| *order);
        all.into_iter()
            .map(|(name, (_, value))| (name.as_str(), value.as_str()))
            .collect()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Vec<&str> {
        self.ordered().into_iter().map(|(name, _)| name).collect()
    }
}

/// Variables with the secrets of a step in front, whose values are stars.
pub(crate) struct Masked<'a> {
    pub(crate) env: &'a Env,
    pub(crate) secrets: &'a [String],
}

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.secrets.iter().any(|secret| secret == name) {
            Some("****")
        } else {
            self.env.get(name)
        }
    }

    fn names(&self) -> Vec<&str> {
        let mut names = self.env.names();
        names.extend(self.secrets.iter().map(String::as_str));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_last_setting() {
        let mut env = Env::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        env.set("C", "");
        assert_eq!(env.to_list(), ["B=2", "A=3", "C="]);
        assert_eq!(env.bytes(), "B=2 A=3 C= ".len());
        env.remove("A");
        assert_eq!(env.names(), ["B", "C"]);
        assert_eq!((env.get("C"), env.get("A")), (Some(""), None));
        let masked = Masked {
            env: &env,
            secrets: &["B".to_owned()],
        };
        assert_eq!(masked.get("B"), Some("****"));
    }
}
