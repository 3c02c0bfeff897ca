//! Volumes, page by page.

use super::Store;
use crate::backend::{ListError, Page};
use crate::volume::{Key, Volume};

impl Store {
    /// Up to `most` volumes behind `after`, in the order of their keys. Only their records are read.
    pub(super) fn list(&self, after: Option<Key>, most: usize) -> Result<Page, ListError> {
        let Some(trees) = self.trees()? else { return Ok(Page::default()) };
        let names = trees.names("volumes").map_err(self.trouble("reading the volumes"))?;
        let mut keys: Vec<Key> = names.iter().filter_map(|(name, _)| name.parse().ok()).collect();
        keys.retain(|key| after.is_none_or(|after| *key > after));
        keys.sort_unstable();
        let mut page = Page { identity: Some(trees.identity), more: keys.len() > most, volumes: Vec::new() };
        for key in keys.into_iter().take(most) {
            // One that was deleted between the two looks is not listed.
            if let Some(record) = self.record(&trees, key)? {
                let published = self.published(&trees, key)?;
                page.volumes.push(Volume { record, published });
            }
        }
        Ok(page)
    }
}
