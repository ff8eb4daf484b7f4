//! References between secrets, `${KEY}` and `${environment.folder.KEY}`, expanded as the server does.

use super::db::Db;

/// Depth of references that is followed.
const DEEPEST: usize = 10;

/// A secret's address.
type Address = (String, String, String);

impl Db {
    /// A value with its references replaced; what is unknown or circular stays as it is.
    pub fn expand(&self, project: &str, environment: &str, path: &str, key: &str, value: &str) -> String {
        let mut trail = vec![(environment.to_string(), path.to_string(), key.to_string())];
        self.expand_in(project, value, &mut trail)
    }

    fn expand_in(&self, project: &str, value: &str, trail: &mut Vec<Address>) -> String {
        if !value.contains("${") {
            return value.to_string();
        }
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(start) = rest.find("${") {
            let Some(end) = rest[start..].find('}').map(|e| start + e) else { break };
            out.push_str(&rest[..start]);
            let literal = &rest[start..=end];
            match self.referred(project, &rest[start + 2..end], trail) {
                Some(value) => out.push_str(&value),
                None => out.push_str(literal),
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        out
    }

    fn referred(&self, project: &str, name: &str, trail: &mut Vec<Address>) -> Option<String> {
        let (environment, path, key) = match name.split('.').collect::<Vec<_>>().as_slice() {
            [key] => {
                let (environment, path, _) = trail.last()?;
                (environment.clone(), path.clone(), (*key).to_string())
            }
            [environment, folders @ .., key] => ((*environment).to_string(), format!("/{}", folders.join("/")), (*key).to_string()),
            [] => return None,
        };
        let address = (environment, path, key);
        if trail.len() >= DEEPEST || trail.contains(&address) {
            return None;
        }
        let value = self.folder(project, &address.0, &address.1)?.secrets.get(&address.2)?.value.clone();
        trail.push(address);
        let out = self.expand_in(project, &value, trail);
        trail.pop();
        Some(out)
    }
}
