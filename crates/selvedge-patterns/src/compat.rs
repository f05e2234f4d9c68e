//! Whether a new schema of messages allows what the old one allowed.
//!
//! A [`Shape`] is what a schema says in words that can be compared: types,
//! listed values, bounds, fields, items. The answer is yes only if it follows
//! rule by rule; where a schema says something else, it is that nobody can
//! tell, and that counts as no.
//!
//! Deliberately absent: reading schemas, and checking messages against them.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// Which changes of a schema are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compatibility {
    /// Every one.
    #[default]
    None,
    /// Those after which everything that was allowed still is: who reads by the
    /// new schema can read what was written by the old one.
    Backward,
    /// Those after which nothing is allowed that was not: who reads by the old
    /// schema can read what is written by the new one.
    Forward,
    /// Those that are both.
    Full,
}

/// Kinds of values, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(u8);

impl Types {
    /// No value.
    pub const NONE: Self = Self(0);
    /// `null`.
    pub const NULL: Self = Self(1);
    /// `true` and `false`.
    pub const BOOLEAN: Self = Self(2);
    /// Whole numbers.
    pub const INTEGER: Self = Self(4);
    /// Numbers.
    pub const NUMBER: Self = Self(12);
    /// Texts.
    pub const STRING: Self = Self(16);
    /// Lists.
    pub const ARRAY: Self = Self(32);
    /// Objects.
    pub const OBJECT: Self = Self(64);
    /// Every value.
    pub const ALL: Self = Self(127);

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    const fn some(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// One end of the numbers that are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// The number.
    pub at: f64,
    /// Whether it is outside.
    pub open: bool,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: Option<u64>,
}

/// What is allowed at one place of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Every value.
    Anything,
    /// No value at all.
    Nothing,
    /// Every value that keeps to these rules.
    Is(Box<Rules>),
}

/// Rules that must all be kept. The default allows everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Kinds of values.
    pub types: Types,
    /// If there, only these, each as a text that no other value has.
    pub one_of: Option<BTreeSet<String>>,
    /// Numbers from here.
    pub low: Option<End>,
    /// Numbers to here.
    pub high: Option<End>,
    /// Characters of a text.
    pub length: Count,
    /// Items of a list.
    pub items: Count,
    /// Each item of a list.
    pub item: Shape,
    /// Fields by name.
    pub fields: BTreeMap<String, Shape>,
    /// Fields that must be there.
    pub required: BTreeSet<String>,
    /// Each field that is not among `fields`.
    pub others: Shape,
    /// Further rules by name, which mean something by themselves: as texts, and
    /// compared as such.
    pub further: BTreeMap<String, String>,
    /// A rule that cannot be compared, if there is one.
    pub unknown: Option<String>,
    /// All of it, as a text: what has the same one is the same.
    pub text: String,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            types: Types::ALL,
            one_of: None,
            low: None,
            high: None,
            length: Count::default(),
            items: Count::default(),
            item: Shape::Anything,
            fields: BTreeMap::new(),
            required: BTreeSet::new(),
            others: Shape::Anything,
            further: BTreeMap::new(),
            unknown: None,
            text: String::new(),
        }
    }
}

/// Why a new schema cannot take the place of an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where in the schema: a JSON pointer, empty for the whole of it.
    pub path: String,
    /// What stands in the way: a lower-case fragment.
    pub problem: String,
}

/// Whether `new` may take the place of `old`.
///
/// # Errors
///
/// The first thing that stands in the way.
pub fn check(mode: Compatibility, new: &Shape, old: &Shape) -> Result<(), Refusal> {
    let backward =
        || accepts(new, old).map_err(|refusal| refusal.because("what was allowed no longer is"));
    let forward =
        || accepts(old, new).map_err(|refusal| refusal.because("what was not allowed now is"));
    match mode {
        Compatibility::None => Ok(()),
        Compatibility::Backward => backward(),
        Compatibility::Forward => forward(),
        Compatibility::Full => backward().and_then(|()| forward()),
    }
}

/// Whether every value that `narrow` allows, `wide` allows too, as far as one can tell.
///
/// # Errors
///
/// The first rule of `wide` that does not follow from `narrow`.
pub fn accepts(wide: &Shape, narrow: &Shape) -> Result<(), Refusal> {
    Comparison::default().shapes(wide, narrow)
}

impl Refusal {
    fn because(self, what: &str) -> Self {
        Self { problem: format!("{what}: {}", self.problem), ..self }
    }
}

#[derive(Default)]
struct Comparison {
    path: Vec<String>,
}

impl Comparison {
    fn refuse(&self, keyword: &str, problem: &str) -> Result<(), Refusal> {
        let mut path = self.path.concat();
        if !keyword.is_empty() {
            path.push('/');
            path.push_str(keyword);
        }
        Err(Refusal { path, problem: problem.to_owned() })
    }

    fn at(
        &mut self,
        step: String,
        compare: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.path.push(step);
        compare(self)?;
        self.path.pop();
        Ok(())
    }

    fn shapes(&mut self, wide: &Shape, narrow: &Shape) -> Result<(), Refusal> {
        let everything = Rules::default();
        let (wide, narrow) = match (wide, narrow) {
            (Shape::Anything, _) | (_, Shape::Nothing) => return Ok(()),
            (Shape::Nothing, _) => return self.refuse("", "nothing is allowed here"),
            (Shape::Is(wide), Shape::Anything) => (&**wide, &everything),
            (Shape::Is(wide), Shape::Is(narrow)) => (&**wide, &**narrow),
        };
        let same = !wide.text.is_empty() && wide.text == narrow.text;
        if same { Ok(()) } else { self.rules(wide, narrow) }
    }

    fn rules(&mut self, wide: &Rules, narrow: &Rules) -> Result<(), Refusal> {
        if let Some(unknown) = wide.unknown.as_ref().or(narrow.unknown.as_ref()) {
            let problem = "nobody can tell what a change beside this rule means";
            return self.refuse(unknown, problem);
        }
        if !narrow.types.within(wide.types) {
            return self.refuse("type", "not every type is allowed");
        }
        if let Some(allowed) = &wide.one_of {
            let listed = narrow.one_of.as_ref().is_some_and(|values| values.is_subset(allowed));
            if !listed {
                return self.refuse("enum", "only listed values are allowed");
            }
        }
        for (name, rule) in &wide.further {
            if narrow.further.get(name) != Some(rule) {
                return self.refuse(name, "nobody can tell what a change of this rule means");
            }
        }
        if narrow.types.some(Types::NUMBER) {
            self.numbers(wide, narrow)?;
        }
        if narrow.types.some(Types::STRING) {
            self.counts("Length", wide.length, narrow.length)?;
        }
        if narrow.types.some(Types::ARRAY) {
            self.counts("Items", wide.items, narrow.items)?;
            self.at("/items".to_owned(), |it| it.shapes(&wide.item, &narrow.item))?;
        }
        if narrow.types.some(Types::OBJECT) {
            self.fields(wide, narrow)?;
        }
        Ok(())
    }

    fn numbers(&self, wide: &Rules, narrow: &Rules) -> Result<(), Refusal> {
        let within = |wide: Option<End>, narrow: Option<End>, further: fn(f64, f64) -> bool| {
            let Some(wide) = wide else { return true };
            let shut = |narrow: End| narrow.at == wide.at && (narrow.open || !wide.open);
            narrow.is_some_and(|narrow| further(narrow.at, wide.at) || shut(narrow))
        };
        if !within(wide.low, narrow.low, |narrow, wide| narrow > wide) {
            return self.refuse("minimum", "lower numbers are not allowed");
        }
        if !within(wide.high, narrow.high, |narrow, wide| narrow < wide) {
            return self.refuse("maximum", "higher numbers are not allowed");
        }
        Ok(())
    }

    fn counts(&self, of: &str, wide: Count, narrow: Count) -> Result<(), Refusal> {
        if wide.min > narrow.min {
            return self.refuse(&format!("min{of}"), "fewer are not allowed");
        }
        match (wide.max, narrow.max) {
            (Some(wide), narrow) if narrow.is_none_or(|narrow| narrow > wide) => {
                self.refuse(&format!("max{of}"), "more are not allowed")
            }
            _ => Ok(()),
        }
    }

    fn fields(&mut self, wide: &Rules, narrow: &Rules) -> Result<(), Refusal> {
        if let Some(name) = wide.required.difference(&narrow.required).next() {
            return self.refuse("required", &format!("`{name}` must be there"));
        }
        for (name, shape) in &wide.fields {
            let before = narrow.fields.get(name).unwrap_or(&narrow.others);
            self.at(step(name), |it| it.shapes(shape, before))?;
        }
        for (name, shape) in &narrow.fields {
            if !wide.fields.contains_key(name) {
                self.at(step(name), |it| it.shapes(&wide.others, shape))?;
            }
        }
        let others = "/additionalProperties".to_owned();
        self.at(others, |it| it.shapes(&wide.others, &narrow.others))
    }
}

/// A field's place, as a JSON pointer escapes it.
fn step(name: &str) -> String {
    format!("/properties/{}", name.replace('~', "~0").replace('/', "~1"))
}
