//! Pure: rows and import blocks become the source map, as the server's own engine would merge
//! them. Own secrets beat imports, a later import beats an earlier one, and inside a block the
//! imported folder's own secrets come first.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::proof::{Link, Proof};
use super::shapes::{Block, Hidden, Listed, Row, tidy};
use super::{SourceMap, SourceRef, SourceSecret};
use crate::model::SecretValue;

/// One key of one folder, resolved.
struct Found {
    secret: Result<SourceSecret, (String, String)>,
    /// Environment and folder the row really lives in.
    home: (String, String),
    imported: bool,
}

impl Found {
    fn key(&self) -> &str {
        match &self.secret {
            Ok(secret) => &secret.key,
            Err((key, _)) => key,
        }
    }
}

/// Builds the map of a source from its list and what was proved about it.
pub(super) fn merge(at: &SourceRef, listed: Listed, proof: Proof) -> SourceMap {
    let root = tidy(&at.path).to_string();
    let imports_answered = listed.imports.is_some();
    let blocks = listed.imports.unwrap_or_default();
    let mut map = SourceMap {
        environment_name: proof.environment.as_ref().map(|e| e.name.clone()),
        environment_id: proof.environment.as_ref().and_then(|e| e.id.clone()),
        folder_id: proof.folder_id,
        incomplete: proof.doubts,
        imports: proof.links.get(&root).into_iter().flatten().map(|l| format!("{}:{}", l.environment, l.path)).collect(),
        ..SourceMap::default()
    };
    for (folder, links) in &proof.links {
        for link in links.iter().filter(|l| !l.replication && !has_block(&blocks, l)) {
            let place = format!("{}:{}", link.environment, link.path);
            map.incomplete.push(if imports_answered {
                format!("import {place} of folder {folder} is not readable by this identity: its secrets may be missing")
            } else {
                format!("the server's list leaves imports out, and folder {folder} imports {place}")
            });
        }
    }
    let mut by_folder: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in listed.secrets.into_iter().filter(Row::shared) {
        let folder = if at.recursive { row.secret_path.as_deref().map_or(root.as_str(), tidy).to_string() } else { root.clone() };
        by_folder.entry(folder).or_default().push(row);
    }
    let mut found = Vec::new();
    if at.recursive {
        found = recursive(at, &root, by_folder, &blocks, &proof.links);
    } else {
        let own = by_folder.remove(&root).unwrap_or_default();
        resolve(&mut found, at, &root, own, blocks.iter().rev());
    }
    map.own_keys = found.iter().filter(|f| !f.imported && f.home.1 == root).map(|f| f.key().to_string()).collect();
    settle(&mut map, found);
    map
}

fn has_block(blocks: &[Block], link: &Link) -> bool {
    blocks.iter().any(|b| is_block_of(b, link))
}

fn is_block_of(block: &Block, link: &Link) -> bool {
    block.environment.as_deref() == Some(&link.environment) && block.secret_path.as_deref().map(tidy) == Some(link.path.as_str())
}

/// The folder and everything below it: each folder resolves its own imports.
fn recursive(at: &SourceRef, root: &str, mut rows: BTreeMap<String, Vec<Row>>, blocks: &[Block], links: &BTreeMap<String, Vec<Link>>) -> Vec<Found> {
    let mut found = Vec::new();
    let folders: HashSet<String> = rows.keys().chain(links.keys()).cloned().collect();
    let mut folders: Vec<String> = folders.into_iter().collect();
    folders.sort();
    let inside = |b: &Block| b.environment.as_deref() == Some(&at.environment) && b.secret_path.as_deref().is_some_and(|p| lies_below(tidy(p), root));
    let mut claimed = vec![false; blocks.len()];
    for folder in &folders {
        let own = rows.remove(folder).unwrap_or_default();
        // An import from inside the tree brings nothing that the tree does not hold already.
        let mine: Vec<usize> = links
            .get(folder)
            .into_iter()
            .flatten()
            .rev()
            .filter(|l| !l.replication)
            .filter_map(|l| blocks.iter().position(|b| is_block_of(b, l) && !inside(b)))
            .collect();
        mine.iter().for_each(|i| claimed[*i] = true);
        resolve(&mut found, at, folder, own, mine.iter().map(|i| &blocks[*i]));
    }
    // Blocks whose link could not be read: the keys exist, so they must not be lost.
    let taken: HashSet<String> = found.iter().map(|f| f.key().to_string()).collect();
    let mut rest = Vec::new();
    let loose = blocks.iter().enumerate().rev().filter(|(i, b)| !claimed[*i] && !inside(b)).map(|(_, b)| b);
    resolve(&mut rest, at, root, Vec::new(), loose);
    found.extend(rest.into_iter().filter(|f| !taken.contains(f.key())));
    found
}

fn lies_below(path: &str, root: &str) -> bool {
    root == "/" || path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

/// Resolves one folder: its own rows, then the blocks in the order given (best first).
fn resolve<'b>(found: &mut Vec<Found>, at: &SourceRef, folder: &str, own: Vec<Row>, blocks: impl Iterator<Item = &'b Block>) {
    let mut keys = HashSet::new();
    let below = folder != tidy(&at.path);
    for row in own {
        if keys.insert(row.secret_key.clone()) {
            let origin = below.then(|| folder.to_string());
            found.push(Found { home: (at.environment.clone(), folder.to_string()), imported: false, secret: secret(&row, origin) });
        }
    }
    for block in blocks {
        let environment = block.environment.clone().unwrap_or_else(|| at.environment.clone());
        let path = block.secret_path.as_deref().map_or("/", tidy);
        for row in block.secrets.iter().filter(|r| r.shared()) {
            if keys.insert(row.secret_key.clone()) {
                let home =
                    (row.environment.clone().unwrap_or_else(|| environment.clone()), row.secret_path.as_deref().map_or(path, tidy).to_string());
                found.push(Found { home, imported: true, secret: secret(row, Some(format!("{environment}:{path}"))) });
            }
        }
    }
}

/// One row as a secret, or why its value cannot be had.
fn secret(row: &Row, origin: Option<String>) -> Result<SourceSecret, (String, String)> {
    let key = row.secret_key.clone();
    let from = origin.as_deref().map(|o| format!(" (it comes from {o})")).unwrap_or_default();
    // The flag decides: the mask is a text of the server's own and differs between brands.
    if row.secret_value_hidden == Some(true) {
        return Err((key, format!("its value is hidden from this identity{from}: grant it the right to read secret values")));
    }
    let Some(Hidden(value)) = &row.secret_value else {
        return Err((key, format!("the server sent no value{from}")));
    };
    let metadata = row.secret_metadata.iter().flatten().map(|m| (m.key.clone(), m.value.clone().unwrap_or_default())).collect();
    Ok(SourceSecret { key, value: value.clone(), metadata, origin })
}

/// Sorts, separates what is unreadable or in two places, and warns of unexpanded references.
fn settle(map: &mut SourceMap, found: Vec<Found>) {
    let mut homes: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for one in &found {
        let places = homes.entry(one.key().to_string()).or_default();
        if !places.contains(&one.home) {
            places.push(one.home.clone());
        }
    }
    let mut done = HashSet::new();
    for one in found {
        let key = one.key().to_string();
        if !done.insert(key.clone()) {
            continue;
        }
        match homes.get(&key) {
            Some(places) if places.len() > 1 => {
                let mut paths: Vec<String> = places.iter().map(|(_, path)| path.clone()).collect();
                paths.sort();
                map.clashes.push((key, paths));
            }
            _ => match one.secret {
                Ok(secret) => {
                    if let Some(reference) = unexpanded(secret.value.expose()) {
                        map.warnings.push(format!(
                            "{key} still holds {reference} after the KMS expanded references: it is broken, unreadable for this identity, or plain text; it is synced as it is"
                        ));
                    }
                    map.secrets.push(secret);
                }
                Err(unreadable) => map.unreadable.push(unreadable),
            },
        }
    }
    map.secrets.sort_by(|a, b| a.key.cmp(&b.key));
    map.clashes.sort();
}

/// The first `${name}` that looks like a reference of the KMS.
pub(super) fn unexpanded(value: &str) -> Option<String> {
    let mut rest = value;
    while let Some(start) = rest.find("${") {
        rest = &rest[start + 2..];
        let end = rest.find('}')?;
        let name = &rest[..end];
        if !name.is_empty() && name.len() <= 200 && name.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c)) {
            return Some(format!("${{{name}}}"));
        }
    }
    None
}

/// True when the KMS would take part of a value for a reference: names, environments, paths and
/// projects are letters, digits and `-_.@:` in all its versions.
pub(super) fn refers(value: &str) -> bool {
    let name = |rest: &str| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.@:".contains(c)));
        end.is_some_and(|end| end > 0 && rest[end..].starts_with('}'))
    };
    value.match_indices("${").any(|(at, _)| name(&value[at + 2..]))
}

/// True when an expanded value may have been wrapped because its row asks to skip multi-line
/// encoding: quoted, with its line breaks written as two characters.
pub(super) fn maybe_wrapped(row: &Row) -> bool {
    let Some(Hidden(value)) = &row.secret_value else { return false };
    let text = value.expose();
    // Old servers do not send the flag, so there its absence proves nothing.
    row.skip_multiline_encoding != Some(false) && text.len() > 2 && text.starts_with('"') && text.ends_with('"') && text.contains("\\n")
}

/// Puts the stored values back where the expanded ones were wrapped.
pub(super) fn unwrap_multiline(listed: &mut Listed, stored: &Listed) {
    let place = |row: &Row| (row.secret_path.as_deref().map(|p| tidy(p).to_string()), row.secret_key.clone());
    let values: HashMap<_, SecretValue> =
        stored.secrets.iter().filter(|r| r.shared()).filter_map(|r| Some((place(r), r.secret_value.as_ref()?.0.clone()))).collect();
    for row in listed.secrets.iter_mut().filter(|r| r.shared() && maybe_wrapped(r)) {
        if let Some(value) = values.get(&place(row)).filter(|v| unexpanded(v.expose()).is_none()) {
            row.secret_value = Some(Hidden(value.clone()));
        }
    }
}
