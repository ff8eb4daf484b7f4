//! Hostile text made safe: what servers and files say is shown, never obeyed.

/// Replaces control characters, escape sequences' introducers, bidirectional overrides and
/// other invisible format characters by visible stand-ins. Line feeds and tabs become spaces.
pub fn sanitise(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('?'),
            '\u{7f}' => '\u{2421}',
            '\u{80}'..='\u{9f}' => '\u{fffd}',
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// [`sanitise`], cut to `max` characters with `...` at the end.
pub fn brief(text: &str, max: usize) -> String {
    let clean = sanitise(text.trim());
    if clean.chars().count() <= max {
        return clean;
    }
    let mut cut: String = clean.chars().take(max.saturating_sub(3)).collect();
    cut.push_str("...");
    cut
}

/// The first `most` of some names, and how many more there are: `a, b and 3 more`.
pub fn names<S: AsRef<str>>(all: &[S], most: usize) -> String {
    let mut text = all.iter().take(most).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if all.len() > most {
        text.push_str(&format!(" and {} more", all.len() - most));
    }
    text
}

/// Sentences and parts of sentences as one: `a; b.` A full stop before a semicolon is left out.
pub fn joined<S: AsRef<str>>(parts: &[S]) -> String {
    let last = parts.len().saturating_sub(1);
    let part = |(i, text): (usize, &S)| if i < last { text.as_ref().trim_end_matches('.').to_string() } else { text.as_ref().to_string() };
    parts.iter().enumerate().map(part).collect::<Vec<_>>().join("; ")
}

/// False for what is no segment of a URL's path: nothing, and the words for the folder itself and
/// the one above it, which a path swallows.
pub fn is_segment(text: &str) -> bool {
    !matches!(text.trim(), "" | "." | "..") && !text.contains(['/', '\\'])
}

/// True when a text names `name` as a word of its own: letters, digits and `._-` are of a name,
/// but for the full stop that ends a sentence.
pub fn mentions(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || "._-".contains(c);
    text.match_indices(name).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let mut tail = text[at + found.len()..].chars();
        let next = tail.next();
        let ends = next.is_none_or(|c| !part(c) || (c == '.' && tail.next().is_none_or(char::is_whitespace)));
        before.is_none_or(|c| !part(c)) && ends
    })
}

/// The closest of `known` to a mistyped `word`, for "did you mean".
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&word.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_visible() {
        let out = sanitise("a\u{1b}[31mred\u{202e}x\n\u{9b}");
        assert_eq!(out, "a\u{241b}[31mred\u{fffd}x \u{fffd}");
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        assert_eq!(names(&["a", "b"], 2), "a, b");
        assert_eq!(names(&["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(names::<&str>(&[], 2), "");
    }

    #[test]
    fn sentences_are_joined_without_a_stop_before_the_semicolon() {
        assert_eq!(joined(&["a is bad.", "b", "c is bad."]), "a is bad; b; c is bad.");
        assert_eq!((joined::<&str>(&[]), joined(&["one."])), (String::new(), "one.".into()));
    }

    #[test]
    fn what_a_path_swallows_is_no_segment() {
        for (text, fits) in [("a", true), ("...", true), (".a", true), ("", false), (".", false), ("..", false), (" .. ", false), ("a/..", false)] {
            assert_eq!(is_segment(text), fits, "{text}");
        }
    }

    #[test]
    fn names_are_mentioned_as_words() {
        for (text, told) in
            [("set A: refused", true), ("refused: A.", true), ("set DATA", false), ("A.B is refused", false), ("set A-B", false), ("", false)]
        {
            assert_eq!(mentions(text, "A"), told, "{text}");
        }
    }

    #[test]
    fn suggestions_are_near_misses_only() {
        assert_eq!(closest("disableSecretDeletoin", ["keySchema", "disableSecretDeletion"]), Some("disableSecretDeletion"));
        assert_eq!(closest("zzz", ["keySchema"]), None);
    }
}
