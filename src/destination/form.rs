//! Form fields as data: the wizard draws them, validation and pickers find them by name.

/// One field of a form step.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The JSON member it fills.
    pub name: &'static str,
    /// The dashboard's label.
    pub label: &'static str,
    /// The dashboard's help sentence.
    pub help: &'static str,
    pub input: Input,
    pub required: bool,
    /// Shown only while another field has this value; naming the field itself: only for a
    /// document that has this value.
    pub only_if: Option<(&'static str, &'static str)>,
    /// The text a fresh form starts with.
    pub default: Option<&'static str>,
    /// What a short text that people type here stands for; `None`: it is taken as it is.
    pub expand: Option<fn(&str) -> Option<String>>,
    /// Another member filled from the picked choice's label (`devopsProjectName`).
    pub label_into: Option<&'static str>,
    /// Left empty, the field stands for the name of the source's environment, or for its slug
    /// where the server gives no name.
    pub follows_environment: bool,
    /// What is said when the provider lists nothing here, and what to do; empty: the usual words.
    pub none_listed: &'static str,
    /// What is typed where the provider refuses its list; `None`: any text may do.
    pub when_refused: Option<Unlisted>,
}

/// What a field takes where its list is refused.
#[derive(Debug, Clone, Copy)]
pub struct Unlisted {
    /// Whether a text is of the form that needs no looking up.
    pub fits: fn(&str) -> bool,
    /// The sentence that names the form.
    pub text: &'static str,
}

/// How a field is filled.
#[derive(Debug, Clone, Copy)]
pub enum Input {
    /// Free text.
    Text,
    /// Picked from what the provider lists live ([`super::Session::choices`]); free text when
    /// listing is not permitted. `depends` names the fields that must be filled before.
    Live { depends: &'static [&'static str] },
    /// Offered from a fixed list, any text accepted.
    Suggest(&'static [&'static str]),
    /// One of a fixed list: (value, label, help).
    Choice(&'static [(&'static str, &'static str, &'static str)]),
    /// Yes or no.
    Flag,
    /// A whole number.
    Number { min: i64, max: i64 },
    /// Pairs of key and value, a line each (`key=value`), stored as `[{key,value}]`.
    Pairs,
}

impl Field {
    /// A required free text field; the builder methods below change the rest.
    pub const fn text(name: &'static str, label: &'static str, help: &'static str) -> Self {
        Self {
            name,
            label,
            help,
            input: Input::Text,
            required: true,
            only_if: None,
            default: None,
            expand: None,
            label_into: None,
            follows_environment: false,
            none_listed: "",
            when_refused: None,
        }
    }

    pub const fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    pub const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    pub const fn only_if(mut self, field: &'static str, value: &'static str) -> Self {
        self.only_if = Some((field, value));
        self
    }

    pub const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    pub const fn expand(mut self, expand: fn(&str) -> Option<String>) -> Self {
        self.expand = Some(expand);
        self
    }

    pub const fn follows_environment(mut self) -> Self {
        self.follows_environment = true;
        self
    }

    pub const fn none_listed(mut self, text: &'static str) -> Self {
        self.none_listed = text;
        self
    }

    pub const fn when_refused(mut self, fits: fn(&str) -> bool, text: &'static str) -> Self {
        self.when_refused = Some(Unlisted { fits, text });
        self
    }

    pub const fn label_into(mut self, member: &'static str) -> Self {
        self.label_into = Some(member);
        self
    }
}
