//! Made-up secret values: believable in shape, obviously fake in content, the same for the
//! same seed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A token with a telling prefix.
    Token(&'static str),
    Password,
    Hex(usize),
    /// A multi-line text in PEM's shape.
    Pem,
    /// A small JSON document.
    Json,
    Number(u32, u32),
    Flag,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// The text itself; references of the KMS included.
    Text(&'static str),
}

/// The generator of one world.
pub(super) struct Values(StdRng);

impl Values {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A fresh value of a shape.
    pub fn make(&mut self, shape: Shape) -> String {
        match shape {
            Shape::Token(prefix) => format!("{prefix}demo_{}", self.letters(28)),
            Shape::Password => format!("demo-{}-{}-{}", self.word(), self.word(), self.0.random_range(100..999)),
            Shape::Hex(length) => (0..length).map(|_| char::from_digit(self.0.random_range(0..16), 16).unwrap_or('0')).collect(),
            Shape::Pem => {
                let lines: Vec<String> = (0..8).map(|_| self.letters(64)).collect();
                format!("-----BEGIN DEMO KEY-----\n{}\n-----END DEMO KEY-----\n", lines.join("\n"))
            }
            Shape::Json => serde_json::json!({
                "type": "demo_account",
                "client_email": format!("{}@demo.invalid", self.word()),
                "private_key_id": self.letters(20),
                "scopes": ["read", "write"],
            })
            .to_string(),
            Shape::Number(low, high) => self.0.random_range(low..=high).to_string(),
            Shape::Flag => if self.0.random() { "true" } else { "false" }.to_string(),
            Shape::Word(words) => words.choose(&mut self.0).copied().unwrap_or_default().to_string(),
            Shape::Text(text) => text.to_string(),
        }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    fn letters(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(self.0.sample(rand::distr::Alphanumeric))).collect()
    }

    fn word(&mut self) -> &'static str {
        const WORDS: &[&str] = &["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "juniper", "kelp", "lotus"];
        WORDS.choose(&mut self.0).copied().unwrap_or("amber")
    }
}
