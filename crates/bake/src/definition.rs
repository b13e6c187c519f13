//! Groups and targets of all files, and those of them that are to be built (`ReadTargets` of buildx' `bake/bake.go`).

use std::collections::{BTreeMap, HashMap};

use crate::entries::Output;
use crate::error::BakeError;
use crate::overrides::{Granted, Overrides};
use crate::paths;
use crate::printed::Printed;
use crate::target::Target;
use crate::world::{Group, Listed};

/// Deepest chain of targets that inherit or link, and of groups.
const CHAIN_MAX: usize = 200;

/// What files define.
#[derive(Debug, Default)]
pub struct Definition {
    pub(crate) groups: Vec<Group>,
    pub(crate) targets: Vec<Target>,
    /// Variables of the files, by name.
    pub variables: Vec<Listed>,
    /// There is no file but compose files, which have no variables.
    pub is_composed: bool,
    /// What is strange in the files, but no fault.
    pub warnings: Vec<String>,
}

/// What is to be built.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Targets, by name.
    pub targets: BTreeMap<String, Target>,
    /// Groups that lead to them, by name.
    pub groups: BTreeMap<String, Group>,
    /// What `--set` grants.
    pub granted: Granted,
}

impl Chosen {
    /// Makes paths short, and the time that results are to have a build argument of all targets.
    ///
    /// # Errors
    /// [`BakeError::Stdin`].
    pub fn prepare(&mut self, epoch: Option<&str>) -> Result<(), BakeError> {
        for target in self.targets.values_mut() {
            for (what, path) in [("context", &target.context), ("dockerfile", &target.dockerfile)] {
                if path.as_deref() == Some("-") {
                    return Err(BakeError::Stdin(what));
                }
            }
            let context = target.context.take().unwrap_or_default();
            target.context = Some(match context.strip_prefix("cwd://") {
                Some(path) => paths::clean(path),
                None if paths::is_remote(&context) => context,
                None => paths::clean(&context),
            });
            if let Some(epoch) = epoch {
                let args = target.args.entry("SOURCE_DATE_EPOCH".to_owned());
                args.or_insert_with(|| epoch.to_owned());
            }
        }
        Ok(())
    }

    /// As buildx prints it.
    #[must_use]
    pub fn to_json(&self) -> Printed {
        let mut fields = Vec::new();
        let groups: BTreeMap<String, Printed> = self
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group_json(group)))
            .collect();
        if !groups.is_empty() {
            fields.push(("group".to_owned(), groups.into()));
        }
        let targets: BTreeMap<String, Printed> = self
            .targets
            .iter()
            .map(|(name, target)| (name.clone(), target.to_json()))
            .collect();
        fields.push(("target".to_owned(), targets.into()));
        Printed::Fields(fields)
    }
}

fn group_json(group: &Group) -> Printed {
    let mut fields = Vec::new();
    if !group.description.is_empty() {
        fields.push(("description".to_owned(), Printed::text(&group.description)));
    }
    let targets = match group.targets.as_slice() {
        [] if group.is_null => Printed::Bare("null".to_owned()),
        targets => Printed::texts(targets),
    };
    fields.push(("targets".to_owned(), targets));
    Printed::Fields(fields)
}

fn distinct(names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    names
        .into_iter()
        .filter(|name| seen.insert(name.clone()))
        .collect()
}

impl Definition {
    /// Targets and groups for a list: name, description, whether it is a group. Private ones are left out.
    #[must_use]
    pub fn listed(&self) -> Vec<(String, String, bool)> {
        let targets = self
            .targets
            .iter()
            .map(|target| (target.name.clone(), target.description.clone(), false));
        let groups = self.groups.iter().map(|group| {
            let mut names = group.targets.clone();
            names.sort();
            let names = names.join(", ");
            let text = match (group.description.as_str(), names.as_str()) {
                ("", names) => names.to_owned(),
                (text, "") => text.to_owned(),
                (text, names) => format!("{text} ({names})"),
            };
            (group.name.clone(), text, true)
        });
        let mut all: Vec<_> = targets
            .chain(groups)
            .filter(|(name, ..)| !name.starts_with('_'))
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Names that match `pattern`: of groups too, if `with_groups`.
    fn matching(&self, pattern: &str, with_groups: bool) -> Result<Vec<String>, BakeError> {
        let is_target = self.targets.iter().any(|target| target.name == pattern);
        if is_target || (with_groups && !pattern.contains(['*', '?', '[', ']'])) {
            return Ok(vec![pattern.to_owned()]);
        }
        let groups = self
            .groups
            .iter()
            .map(|group| &group.name)
            .filter(|_| with_groups);
        let names = groups.chain(self.targets.iter().map(|target| &target.name));
        let found: Vec<String> = names.filter(|name| matches(pattern, name)).cloned().collect();
        if found.is_empty() {
            return Err(BakeError::NoMatch(pattern.to_owned()));
        }
        Ok(found)
    }

    /// The targets that `names` lead to, changed as `set` says.
    ///
    /// # Errors
    /// [`BakeError`].
    pub fn choose(
        &self,
        names: &[String],
        set: &[String],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Chosen, BakeError> {
        let mut asked = Vec::new();
        for name in names {
            asked.extend(self.matching(&name.replace('.', "_"), true)?);
        }
        let asked = distinct(asked);
        let overrides = Overrides::read(set, variable, |pattern| self.matching(pattern, false))?;
        let mut chosen = Chosen::default();
        for name in &asked {
            let (targets, groups) = self.expand(name, &mut HashMap::new(), 0);
            for name in distinct(targets) {
                let target = self.resolve(&name, &overrides, &mut chosen.granted)?;
                chosen.targets.insert(name, target);
            }
            for name in groups {
                if let Some(group) = self.groups.iter().find(|group| group.name == name) {
                    chosen.groups.insert(name, group.clone());
                }
            }
        }
        for name in asked {
            if name == "default" && chosen.groups.contains_key("default") {
                continue;
            }
            let group = chosen
                .groups
                .entry("default".to_owned())
                .or_insert_with(|| Group {
                    name: "default".to_owned(),
                    ..Group::default()
                });
            group.targets.push(name);
        }
        if let Some(group) = chosen.groups.get_mut("default") {
            group.targets = distinct(std::mem::take(&mut group.targets));
            group.targets.sort();
        }
        for name in chosen.targets.keys().cloned().collect::<Vec<_>>() {
            self.link(&name, &mut chosen, &overrides, &mut Vec::new())?;
        }
        Ok(chosen)
    }

    /// Targets and groups that `name` leads to.
    fn expand(
        &self,
        name: &str,
        visited: &mut HashMap<String, (Vec<String>, Vec<String>)>,
        depth: usize,
    ) -> (Vec<String>, Vec<String>) {
        if let Some(known) = visited.get(name) {
            return known.clone();
        }
        let Some(group) = self.groups.iter().find(|group| group.name == name) else {
            return (vec![name.to_owned()], Vec::new());
        };
        visited.insert(name.to_owned(), Default::default());
        let (mut targets, mut groups) = (Vec::new(), vec![name.to_owned()]);
        for member in &group.targets {
            if depth >= CHAIN_MAX {
                break;
            }
            let (inner, inner_groups) = self.expand(member, visited, depth + 1);
            if inner.is_empty() {
                targets.push(member.clone());
            }
            targets.extend(inner);
            groups.extend(inner_groups);
        }
        let found = (distinct(targets), distinct(groups));
        visited.insert(name.to_owned(), found.clone());
        found
    }

    fn resolve(&self, name: &str, overrides: &Overrides, granted: &mut Granted) -> Result<Target, BakeError> {
        let found = self.inherited(name, &mut HashMap::new(), overrides, granted, 0)?;
        let mut target = found.ok_or_else(|| BakeError::NoTarget(name.to_owned()))?;
        target.inherits = Vec::new();
        target.context.get_or_insert_with(|| ".".to_owned());
        if target.dockerfile.as_deref().is_none_or(str::is_empty) {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    /// A target with what it inherits; nothing while it is being put together.
    fn inherited(
        &self,
        name: &str,
        visited: &mut HashMap<String, Option<Target>>,
        overrides: &Overrides,
        granted: &mut Granted,
        depth: usize,
    ) -> Result<Option<Target>, BakeError> {
        if let Some(known) = visited.get(name) {
            return Ok(known.clone());
        }
        let target = self.targets.iter().find(|target| target.name == name);
        let target = target.ok_or_else(|| BakeError::NoTarget(name.to_owned()))?;
        if depth > CHAIN_MAX {
            return Err(BakeError::TooMany(CHAIN_MAX));
        }
        visited.insert(name.to_owned(), None);
        let mut whole = Target::default();
        for parent in &target.inherits {
            if let Some(parent) = self.inherited(parent, visited, overrides, granted, depth + 1)? {
                whole.merge(&parent);
            }
        }
        whole.merge(target);
        name.clone_into(&mut whole.name);
        overrides.apply(&mut whole, granted)?;
        whole.normalize();
        visited.insert(name.to_owned(), Some(whole.clone()));
        Ok(Some(whole))
    }

    /// Adds the targets that `name` is built from.
    fn link(
        &self,
        name: &str,
        chosen: &mut Chosen,
        overrides: &Overrides,
        visited: &mut Vec<String>,
    ) -> Result<(), BakeError> {
        visited.push(name.to_owned());
        if visited.len() > CHAIN_MAX {
            return Err(BakeError::TooMany(CHAIN_MAX));
        }
        let Some(target) = chosen.targets.get(name) else {
            return Ok(());
        };
        let platforms = target.platforms.clone().unwrap_or_default();
        let links = target
            .contexts
            .values()
            .filter_map(|value| value.strip_prefix("target:"));
        for linked in links.map(str::to_owned).collect::<Vec<_>>() {
            if linked == name {
                return Err(BakeError::SelfLink(linked));
            }
            if visited.contains(&linked) {
                return Err(BakeError::Loop {
                    from: name.to_owned(),
                    to: linked,
                });
            }
            if !chosen.targets.contains_key(&linked) {
                let mut target = self.resolve(&linked, overrides, &mut chosen.granted)?;
                target.outputs = Some(vec![Output::of("cacheonly")]);
                target.is_linked = true;
                chosen.targets.insert(linked.clone(), target);
            }
            // What was seen on the way to another is no loop.
            self.link(&linked, chosen, overrides, &mut visited.clone())?;
            let inner = &chosen.targets[&linked];
            let has = inner.platforms.clone().unwrap_or_default();
            let entitlements = inner.entitlements.clone().unwrap_or_default();
            if platforms.len() > 1
                && has.len() > 1
                && !platforms.iter().all(|platform| has.contains(platform))
            {
                let (target, wanted) = (name.to_owned(), platforms);
                return Err(BakeError::Platforms {
                    target,
                    linked,
                    wanted,
                    has,
                });
            }
            let own = chosen.targets.entry(name.to_owned()).or_default();
            for entitlement in entitlements {
                let own = own.entitlements.get_or_insert_default();
                if !own.contains(&entitlement) {
                    own.push(entitlement);
                }
            }
        }
        Ok(())
    }
}

/// Whether `name` matches `pattern`: `*`, `?` and `[…]`, as Go's `path.Match` for names without slashes.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Which positions of the pattern can be reached after each character of the name.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    let through_stars = |reached: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            if reached[at] && pattern[at] == '*' {
                reached[at + 1] = true;
            }
        }
    };
    through_stars(&mut reached);
    for next in name {
        let mut after = vec![false; pattern.len() + 1];
        for at in (0..pattern.len()).filter(|&at| reached[at]) {
            match pattern[at] {
                '*' => after[at] = true,
                '?' => after[at + 1] = true,
                '[' => {
                    if let Some((end, holds)) = class(&pattern, at, next) {
                        after[end] |= holds;
                    }
                }
                literal => after[at + 1] |= literal == next,
            }
        }
        through_stars(&mut after);
        reached = after;
    }
    reached[pattern.len()]
}

/// Where the class that begins at `at` ends, and whether `next` is of it.
fn class(pattern: &[char], at: usize, next: char) -> Option<(usize, bool)> {
    let end = at + 1 + pattern[at + 1..].iter().position(|char| *char == ']')?;
    let (negated, set) = match &pattern[at + 1..end] {
        ['^', set @ ..] => (true, set),
        set => (false, set),
    };
    let mut holds = false;
    let mut position = 0;
    while position < set.len() {
        if let [from, '-', to, ..] = &set[position..] {
            holds |= (*from..=*to).contains(&next);
            position += 3;
        } else {
            holds |= set[position] == next;
            position += 1;
        }
    }
    Some((end + 1, holds != negated))
}
