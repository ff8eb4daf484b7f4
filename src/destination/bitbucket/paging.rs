//! Whole lists from a server whose paging cannot be trusted.
//!
//! Known of the Pipelines and deployments services: `next` may be absent although there is
//! more (BCLOUD-20639) or name the same page for ever (BCLOUD-20796); `pagelen` in the answer
//! may be the page's row count; pages repeat entries while the list moves (BCLOUD-23644). So
//! the walk counts unique ids against `size`, asks for pages by number, and takes only the
//! query of `next`, never its host, scheme or path. A link to another address whose query
//! brings nothing new here is followed by the same list's next number, and when that brings
//! nothing either, the list is incomplete unless `size` says otherwise.

use std::collections::HashSet;

use serde_json::Value;

use super::client::{Api, Call};
use super::spec::SERVICE;
use crate::http::{Answer, ApiError, Cx, ErrorKind};

/// The largest page of every list used here.
const PAGE: &str = "100";
/// Longer lists are refused: nothing here can have so many entries.
const CAP: usize = 10_000;
/// A list that goes on and on by a few entries must not cost the hour's budget: after this many
/// pages each must have brought [`THIN`] entries, half of the smallest page that is in use.
const PATIENCE: usize = 20;
const THIN: usize = 5;
/// Pages of one reading. Full ones reach [`CAP`] with fewer; a server that gives ten at a time,
/// whatever is asked, may have 1,500 entries, and one that never ends costs a part of the hour.
const PAGES: usize = 150;

type Query = Vec<(String, String)>;

/// Reads of a list that keeps moving before it is given up.
const READS: usize = 3;

/// A whole list, or the answer that was no list.
pub enum Listed {
    Rows(Vec<Value>),
    /// The first page's answer, which was not a 2xx.
    Refused(Box<Answer>),
}

/// One walk over the pages.
#[derive(Default)]
struct Walk {
    rows: Vec<Value>,
    size: Option<u64>,
    /// Signs that the list changed while it was read: entries repeated, sizes that differ.
    moved: bool,
    /// The server named a further page at an address that is not this list's, and this address
    /// has none: what is there was not read.
    cut: bool,
}

impl Walk {
    fn missing(&self) -> bool {
        self.size.map_or(self.cut, |size| (self.rows.len() as u64) < size)
    }

    /// As many entries came as the list says it has.
    fn full(&self) -> bool {
        self.size == Some(self.rows.len() as u64)
    }

    fn steady(&self) -> bool {
        !self.moved && !self.missing() && (self.size.is_none() || self.full())
    }
}

/// Reads a list whole. `id` finds an entry's identity; `bare` asks the first page without any
/// query; `what` begins the sentence of an error. A list that moves while it is read is read
/// again; one that stays incomplete or keeps moving is an error, never a part.
pub async fn list(api: &Api, cx: &Cx, call: &Call<'_>, id: fn(&Value) -> Option<String>, bare: bool, what: &str) -> Result<Listed, ApiError> {
    let mut last = Walk::default();
    for _ in 0..READS {
        match walk(api, cx, call, id, bare, what).await? {
            Ok(walk) if walk.steady() => return Ok(Listed::Rows(walk.rows)),
            Ok(walk) => last = walk,
            Err(answer) => return Ok(Listed::Refused(answer)),
        }
    }
    let came = last.rows.len();
    let problem = match last.size {
        Some(size) if last.missing() => format!("the list is incomplete, {came} of {size} entries came"),
        None if last.missing() => format!("the list is incomplete, {came} entries came and the rest is said to be at another address"),
        Some(size) if came as u64 > size => format!("the list contradicts itself, it says {size} entries and {came} came"),
        _ => "the list changed each time it was read".to_string(),
    };
    Err(ApiError::new(ErrorKind::Transient, SERVICE, format!("{what}: {problem}"))
        .advice("Nothing was written or deleted. Try again; if it stays so, Bitbucket's paging is at fault."))
}

/// Walks all pages once. The inner error is the first page's answer when that is no list.
async fn walk(
    api: &Api,
    cx: &Cx,
    call: &Call<'_>,
    id: fn(&Value) -> Option<String>,
    bare: bool,
    what: &str,
) -> Result<Result<Walk, Box<Answer>>, ApiError> {
    let mut walk = Walk::default();
    let mut seen = HashSet::new();
    let mut page: u64 = 1;
    let mut query = call.query.clone();
    if !bare {
        query.push(("pagelen".into(), PAGE.into()));
    }
    let base = query.clone();
    // True while the page asked for was our guess and not the server's word.
    let mut guessed = false;
    // The last page that brought something named a further one, at another address.
    let mut elsewhere = false;
    // What is asked when the server's word leads to nothing new: the page by its number.
    let mut instead: Option<Query> = None;
    for pages in 1.. {
        let answer = api.send(cx, &Call { query: query.clone(), ..call.clone() }).await?;
        if !answer.ok() {
            if page == 1 && seen.is_empty() {
                return Ok(Err(Box::new(answer)));
            }
            if answer.status == 404 && walk.full() {
                break;
            }
            if answer.status == 404 && (guessed || instead.is_some()) {
                if let Some(by_number) = instead.take() {
                    (query, guessed) = (by_number, true);
                    continue;
                }
                walk.cut = elsewhere;
                break;
            }
            return Err(super::errors::of(cx, &api.auth, &answer, &format!("{what}, page {page}"), None, None));
        }
        let body = object(&answer)?;
        let Some(values) = body.get("values").and_then(Value::as_array) else {
            return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{what}: the answer is no list"))
                .status(answer.status)
                .advice("This is not Bitbucket's API: check the endpoint and the proxy settings of the connection."));
        };
        let told = body.get("size").and_then(Value::as_u64);
        walk.moved |= walk.size.is_some() && told.is_some() && walk.size != told;
        walk.size = told.or(walk.size);
        let (mut fresh, mut repeated) = (0, 0);
        for row in values {
            // An entry without identity cannot be told from a repeated one: its text stands for it.
            if seen.insert(id(row).unwrap_or_else(|| row.to_string())) {
                walk.rows.push(row.clone());
                fresh += 1;
            } else {
                repeated += 1;
            }
        }
        // A page of nothing but repeats is how some servers end a list.
        walk.moved |= fresh > 0 && repeated > 0;
        if walk.rows.len() > CAP {
            return Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{what}: the list has more than {CAP} entries")));
        }
        let done = walk.size.is_some_and(|size| walk.rows.len() as u64 >= size);
        if !done && (pages >= PAGES || pages >= PATIENCE && walk.rows.len() < pages * THIN) {
            return Err(ApiError::new(
                ErrorKind::Invalid,
                SERVICE,
                format!("{what}: {pages} pages brought {} entries and there is no end", walk.rows.len()),
            )
            .advice("Nothing was written or deleted. This is not how Bitbucket pages: check the endpoint and the proxy settings."));
        }
        let link = body.get("next").and_then(Value::as_str);
        let next = link.and_then(next_query);
        // `size` is reached, and yet a page ahead is named: which of the two is wrong, one call tells.
        let more = walk.full() && fresh > 0 && matches!(&next, Some(Next::Page(number, _)) if *number > page);
        if done && !more {
            break;
        }
        // An empty page that names one ahead is not the end; [`PATIENCE`] ends a list of such pages.
        let goes_on = match &next {
            Some(Next::Page(number, _)) => *number > page,
            Some(Next::Opaque(_)) => true,
            None => false,
        };
        if fresh == 0 && !(values.is_empty() && goes_on && instead.is_none()) {
            if let Some(by_number) = instead.take() {
                (query, guessed) = (by_number, true);
                continue;
            }
            walk.cut = elsewhere;
            break;
        }
        // `page` is what was asked for: the answer's own word may be absent or wrong.
        let ahead = match &next {
            Some(Next::Page(number, _)) => *number > page,
            Some(Next::Opaque(_)) | None => true,
        };
        elsewhere = ahead && link.is_some_and(|link| !leads_to(link, &api.address(call)));
        let by_number = with(&base, &[("page", &(page + 1).to_string())]);
        (query, page, guessed) = match next {
            Some(Next::Page(number, rest)) if number > page => (with(&rest, &[("pagelen", PAGE), ("page", &number.to_string())]), number, false),
            Some(Next::Opaque(all)) => (with(&all, &[("pagelen", PAGE)]), page + 1, false),
            _ => (by_number.clone(), page + 1, true),
        };
        instead = (!guessed && by_number != query).then_some(by_number);
    }
    Ok(Ok(walk))
}

/// The answer's JSON object.
pub fn object(answer: &Answer) -> Result<serde_json::Map<String, Value>, ApiError> {
    if answer.status == 203 {
        return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "something between here and Bitbucket answered in its place")
            .status(answer.status)
            .advice("Check the endpoint and the proxy settings of the connection."));
    }
    match answer.json::<Value>(SERVICE)? {
        Value::Object(map) => Ok(map),
        _ => Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "the answer is not the JSON that the API documents")
            .status(answer.status)
            .advice("Check the endpoint and the proxy settings of the connection.")),
    }
}

#[derive(Debug, PartialEq)]
enum Next {
    /// A numbered page, and the other parameters.
    Page(u64, Vec<(String, String)>),
    /// A token only the server understands.
    Opaque(Vec<(String, String)>),
}

/// True when a link names this address, whatever its query. Behind a proxy the host may be the
/// service's own: the path tells.
fn leads_to(link: &str, address: &url::Url) -> bool {
    let path = match url::Url::parse(link) {
        Ok(url) => url.path().to_string(),
        Err(_) => link.split(['?', '#']).next().unwrap_or_default().to_string(),
    };
    let plain = |path: &str| percent_encoding::percent_decode_str(path.trim_end_matches('/')).decode_utf8_lossy().to_lowercase();
    path.is_empty() || plain(address.path()).ends_with(&plain(&path)) || plain(&path).ends_with(&plain(address.path()))
}

/// What a `next` link asks for. Only its query counts.
fn next_query(link: &str) -> Option<Next> {
    let query = match url::Url::parse(link) {
        Ok(url) => url.query()?.to_string(),
        Err(_) => link.split_once('?')?.1.split('#').next()?.to_string(),
    };
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if pairs.is_empty() {
        return None;
    }
    match pairs.iter().find(|(name, _)| name == "page").map(|(_, value)| value.parse::<u64>()) {
        Some(Ok(number)) => Some(Next::Page(number, pairs)),
        _ => Some(Next::Opaque(pairs)),
    }
}

fn with(base: &[(String, String)], set: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = base.iter().filter(|(name, _)| !set.iter().any(|(n, _)| n == name)).cloned().collect();
    out.extend(set.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_query_of_a_link_counts() {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_string(), (*b).to_string())).collect::<Vec<_>>();
        assert_eq!(next_query("https://evil.example/2.0/x?pagelen=10&page=2"), Some(Next::Page(2, pairs(&[("pagelen", "10"), ("page", "2")]))));
        assert_eq!(next_query("ftp://h/x?page=2"), Some(Next::Page(2, pairs(&[("page", "2")]))));
        assert_eq!(next_query("/x?after=abc%3D"), Some(Next::Opaque(pairs(&[("after", "abc=")]))));
        assert_eq!(next_query("https://h/x?page=abc"), Some(Next::Opaque(pairs(&[("page", "abc")]))));
        assert_eq!(next_query("https://h/x"), None);
        assert_eq!(next_query("nonsense"), None);
    }

    #[test]
    fn links_are_told_from_links_elsewhere() {
        let address = url::Url::parse("http://127.0.0.1:7400/bitbucket/2.0/repositories/%7Bw%7D/r/pipelines_config/variables").expect("a URL");
        for (link, here) in [
            ("https://api.bitbucket.org/2.0/repositories/%7BW%7D/r/pipelines_config/variables/?page=2", true),
            ("http://127.0.0.1:7400/bitbucket/2.0/repositories/{w}/r/pipelines_config/variables?page=2", true),
            ("?page=2", true),
            ("https://evil.example/2.0/elsewhere?page=2", false),
            ("http://127.0.0.1:7400/bitbucket/2.0/repositories/%7Bw%7D/other/pipelines_config/variables?page=2", false),
        ] {
            assert_eq!(leads_to(link, &address), here, "{link}");
        }
    }

    #[test]
    fn parameters_are_replaced_not_doubled() {
        let base = vec![("sort".to_string(), "slug".to_string()), ("page".to_string(), "1".to_string())];
        let out = with(&base, &[("page", "2")]);
        assert_eq!(out, vec![("sort".to_string(), "slug".to_string()), ("page".to_string(), "2".to_string())]);
    }
}
