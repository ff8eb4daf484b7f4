//! Lists that come page by page, each naming the next one by a link or a token.

use std::collections::HashSet;

use super::{ApiError, ErrorKind};

/// So many pages in a row may bring no entry that was not there before. Filters of the services
/// leave pages empty, though never that many.
const IDLE: usize = 100;
/// No list that is read here has so many pages.
const MOST: usize = 100_000;

/// Follows a list's pages and ends it with an error where it has no end: a part of a list must
/// never be taken for the whole.
pub struct Pages {
    service: &'static str,
    what: String,
    named: HashSet<[u8; 32]>,
    entries: HashSet<[u8; 32]>,
    read: usize,
    idle: usize,
}

impl Pages {
    /// Before the first page. `what` begins the sentence of an error: `the list of projects`.
    pub fn of(service: &'static str, what: impl Into<String>) -> Self {
        Self { service, what: what.into(), named: HashSet::new(), entries: HashSet::new(), read: 0, idle: 0 }
    }

    /// A page was read that names `next` as the next one; `entries` tells its entries apart.
    ///
    /// # Errors
    /// [`ErrorKind::NotTheService`] when an earlier page named the same one, when 100 pages in a
    /// row brought nothing new, and when there are more than 100,000.
    pub fn turn<E: AsRef<[u8]>>(&mut self, next: &str, entries: impl IntoIterator<Item = E>) -> Result<(), ApiError> {
        let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
        self.read += 1;
        let before = self.entries.len();
        self.entries.extend(entries.into_iter().map(|entry| hash(entry.as_ref())));
        self.idle = if self.entries.len() > before { 0 } else { self.idle + 1 };
        if !self.named.insert(hash(next.as_bytes())) {
            return Err(self.endless("it leads in a circle, a page names an earlier one as the next"));
        }
        if self.idle >= IDLE {
            return Err(self.endless(&format!("page {} brought nothing new, as {} before it", self.read, IDLE - 1)));
        }
        if self.read >= MOST {
            return Err(self.endless(&format!("{MOST} pages came and more are named")));
        }
        Ok(())
    }

    fn endless(&self, why: &str) -> ApiError {
        ApiError::new(ErrorKind::NotTheService, self.service, format!("{} does not end: {why}", self.what))
            .advice("Nothing was taken from it. Check the endpoint and the proxy settings of the connection.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_without_anything_new_have_an_end() {
        let nothing: [&str; 0] = [];
        let mut pages = Pages::of("x", "the list");
        for n in 1..IDLE {
            pages.turn(&n.to_string(), nothing).expect("may be empty");
        }
        pages.turn("new", ["A"]).expect("something came");
        // The same entry again is nothing new.
        for n in 1..IDLE {
            pages.turn(&format!("again {n}"), ["A"]).expect("may be repeated");
        }
        let error = pages.turn("more", ["A"]).expect_err("no end");
        assert_eq!(error.kind, ErrorKind::NotTheService);
        assert!(error.text().contains("page 200 brought nothing new, as 99 before it"), "{error}");
    }

    #[test]
    fn a_page_that_is_named_twice_is_a_circle() {
        let mut pages = Pages::of("x", "the list");
        pages.turn("2", ["A"]).expect("the first");
        pages.turn("3", ["B"]).expect("the second");
        assert!(pages.turn("2", ["C"]).expect_err("a circle").text().contains("the list does not end: it leads in a circle"));
    }

    #[test]
    fn a_long_list_is_read_and_an_absurd_one_is_not() {
        let mut pages = Pages::of("x", "the list");
        for n in 1..MOST {
            pages.turn(&n.to_string(), [n.to_string()]).expect("long");
        }
        assert!(pages.turn("more", ["more"]).expect_err("absurd").text().contains("100000 pages"));
    }
}
