//! The query of a request: every name known and given once, every value one that is meant.
//! What is mistyped is refused before anything is done, with its name and its rule.

use url::form_urlencoded;

use crate::model::Problems;
use crate::model::sync::unknown;
use crate::model::text::brief;

/// A query whose names are in order.
#[derive(Debug)]
pub struct Asked(Vec<(String, String)>);

impl Asked {
    /// Reads a query. Names that are not `known`, or given twice, are problems.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                unknown(&name, &name, known.iter().copied(), &mut problems);
            } else if pairs.iter().any(|(n, _)| *n == name) {
                problems.add(&*name, "unique", format!("{name} may be given once."));
            } else {
                pairs.push((name.into_owned(), value.into_owned()));
            }
        }
        problems.into_result(Self(pairs))
    }

    /// The value of a name, when it is given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A value that may not be empty.
    pub fn filled(&self, name: &str) -> Result<Option<&str>, Problems> {
        match self.text(name) {
            Some("") => Err(Problems::one(name, "required", format!("{name} may not be empty: leave it out, or give its value."))),
            value => Ok(value),
        }
    }

    /// One of some words, by its place among them.
    pub fn choice(&self, name: &str, words: &[&str]) -> Result<Option<usize>, Problems> {
        let Some(given) = self.text(name) else { return Ok(None) };
        match words.iter().position(|w| *w == given) {
            Some(at) => Ok(Some(at)),
            None => Err(Problems::one(name, "choice", format!("{name} is {}, not {:?}.", words.join(" or "), brief(given, 40)))),
        }
    }

    /// `true` or `false`, written like that; false when it is left out.
    pub fn flag(&self, name: &str) -> Result<bool, Problems> {
        Ok(self.choice(name, &["false", "true"])? == Some(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(problems: &Problems) -> Vec<(&str, &str)> {
        problems.0.iter().map(|p| (p.field.as_str(), p.rule.as_str())).collect()
    }

    #[test]
    fn a_flag_is_one_of_two_words() {
        let flag = |query: &str| Asked::read(Some(query), &["removeSecrets"]).and_then(|a| a.flag("removeSecrets"));
        assert_eq!(flag("removeSecrets=true"), Ok(true));
        assert_eq!(flag("removeSecrets=false"), Ok(false));
        assert_eq!(flag("remove%53ecrets=tru%65"), Ok(true));
        assert_eq!(flag(""), Ok(false));
        for word in ["TRUE", "True", "1", "0", "yes", "on", "banana", "", "true%20", "%ff", "true,true"] {
            let problems = flag(&format!("removeSecrets={word}")).unwrap_err();
            assert_eq!(rules(&problems), [("removeSecrets", "choice")], "{word}");
        }
        assert_eq!(rules(&flag("removeSecrets").unwrap_err()), [("removeSecrets", "choice")]);
    }

    #[test]
    fn names_are_known_and_given_once() {
        let read = |query| Asked::read(Some(query), &["removeSecrets"]).map(|_| ());
        assert_eq!(rules(&read("removeSecrets=true&removeSecrets=true").unwrap_err()), [("removeSecrets", "unique")]);
        let problems = read("removesecrets=true&x=1&removeSecrets=true").unwrap_err();
        assert_eq!(rules(&problems), [("removesecrets", "unknown-field"), ("x", "unknown-field")]);
        assert!(problems.0[0].message.contains("Did you mean removeSecrets?"), "{problems}");
        assert_eq!(Asked::read(None, &[]).map(|a| a.text("x").is_none()), Ok(true));
        assert!(Asked::read(Some("projectId="), &["projectId"]).unwrap().filled("projectId").is_err());
    }
}
